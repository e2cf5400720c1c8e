"""The machine of tests/faults, where it reads and decides: which Nth calls it strikes, how it counts them in a log, and
the library that cuts writes short. What it finds is docs/reliability.md's."""
import os
import signal
import subprocess
import sys

import pytest
from support.gateway import BINARY, REPOSITORY

sys.path.append(os.path.join(REPOSITORY, "tests", "faults"))

from machine import publish, report, sweep  # noqa: E402
from machine.world import Skipped  # noqa: E402

# Two threads that write seven times 100 bytes each, and say what they were told.
WRITER = """
import os, sys, threading
def write(fd):
    for at in range(7):
        try:
            print(os.pwrite(fd, b"x" * 100, at * 100), flush=True)
        except OSError as error:
            print(-error.errno, flush=True)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for _ in range(2):
    thread = threading.Thread(target=write, args=(fd,))
    thread.start()
    thread.join()
"""


def numbers(site, **more):
    return sweep.strikes(sweep.SITES[site], **{"calls": 15, "depth": 500, "seed": "a:1", **more})


def test_a_comb_leaves_no_call_out():
    struck = [number + step * tooth for number, step in numbers("fdatasync:EIO") for tooth in range(100)]
    assert sorted(struck)[:500] == list(range(1, 501)), "each once"


def test_where_a_strike_is_the_end_some_far_ones_are_tried():
    struck = numbers("fdatasync:SIGKILL")
    assert struck[:15] == [(number, 0) for number in range(1, 16)]
    far = [number for number, _ in struck[15:]]
    assert len(set(far)) == sweep.FAR and min(far) > 15 and max(far) <= 500 and far == sorted(far)
    assert struck == numbers("fdatasync:SIGKILL") != numbers("fdatasync:SIGKILL", seed="a:2"), "the seed repeats them"
    assert len(numbers("fdatasync:SIGKILL", depth=20)) == 20
    for site in ("fdatasync:EIO", "fdatasync:SIGKILL", "fdatasync:EIO:starting"):
        assert numbers(site, depth=0) == [(number, 0) for number in range(1, 16)]
    assert len(numbers("fdatasync:EIO:starting")) == 15, "a start is not deep"


LOG = """\
7<lane 0> sendto(4, ""..., 9, MSG_NOSIGNAL, NULL, 0) = 9
7<lane 0> sendto(4, ""..., 9, MSG_NOSIGNAL, NULL, 0 <unfinished ...>
8<lane 1> sendto(5, ""..., 9, MSG_NOSIGNAL, NULL, 0) = 9
7<lane 0> <... sendto resumed>)          = -1 EPIPE (Broken pipe) (INJECTED)
--- SIGPIPE is no call
8<lane 1> sendto(5, ""..., 9, MSG_NOSIGNAL, NULL, 0) = 9
8<lane 1> sendto(5, ""..., 9, MSG_NOSIGNAL, NULL, 0) = -1 EPIPE (Broken pipe) (INJECTED)
9<upkeep 12> sendto(6, ""..., 9, MSG_NOSIGNAL, NULL, 0) = -1 EPIPE (Broken pipe) (INJECTED)
9<upkeep 12> sendto(6, ""..., 9, MSG_NOSIGNAL, NULL, 0) = ?
9<upkeep 12> +++ killed by SIGKILL +++
"""


def test_what_was_struck_is_read_from_the_log(tmp_path):
    path = tmp_path / "log"
    log, killed = sweep.Log(path), sweep.Log(path, 2)
    assert log.read().strikes == 0, "not there yet"
    for end in range(0, len(LOG) + 1, 50):  # as it grows, in the middle of lines
        path.write_text(LOG[:end])
        log.read()
    path.write_text(LOG)
    assert (log.read().struck, log.strikes, log.deepest) == ({"lane": {2, 3}, "upkeep": {1}}, 3, 3)
    assert killed.read().struck["upkeep"] == {1, 2}, "a kill has no word of strace's"
    assert sweep.runs({4, 2, 1, 9, 8}) == [[1, 2], [4, 4], [8, 9]]


def test_strace_counts_as_the_log_is_read(tmp_path):
    try:
        sweep.check_tool("fdatasync:EIO", "")
    except Skipped as why:
        pytest.skip(str(why))
    tool = sweep.Strace(sweep.Site("pwrite64", "EIO"), None, str(tmp_path / "log"))
    done = subprocess.run([*tool.argv(2, 3), sys.executable, "-c", WRITER, tmp_path / "file"], stdout=subprocess.PIPE,
                          text=True, check=True, timeout=60)
    assert done.stdout.split() == ["100", "-5", "100", "100", "-5", "100", "100"] * 2
    log = sweep.Log(tool.trace).read()
    assert [*log.struck.values()] == [{2, 5}] and log.strikes == 4 and log.deepest == 7


class Idle:
    """As much of a gateway as Short needs."""
    binary = BINARY

    def start(self):
        pass

    kill = start


def write_short(tmp_path, becomes, number, step):
    """(exit code, what each write said, the log)"""
    idle = Idle()
    tool = sweep.Short(sweep.Site("pwrite64", becomes), idle, str(tmp_path / "log"))
    tool.attach(number, step)
    done = subprocess.run([sys.executable, "-c", WRITER, tmp_path / "file"], stdout=subprocess.PIPE, text=True,
                          check=False, timeout=60, env={**os.environ, **idle.env})
    return done.returncode, done.stdout.split(), sweep.Log(tool.trace).read()


def test_half_of_the_nth_write_is_written(tmp_path):
    code, said, log = write_short(tmp_path, "short", 2, 3)
    assert code == 0 and said == ["100", "50", "100", "100", "50", "100", "100"] * 2
    assert [*log.struck.values()] == [{2, 5}] and log.strikes == 4 and log.deepest == 7
    os.unlink(tmp_path / "file")
    code, said, _ = write_short(tmp_path, "short", 7, 0)
    assert code == 0 and said == [*["100"] * 6, "50"] * 2 and os.path.getsize(tmp_path / "file") == 650


def test_behind_half_a_write_is_what_was_ordered(tmp_path):
    _, said, log = write_short(tmp_path, "short+ENOSPC", 2, 3)
    assert said == ["100", "50", "-28", "100", "50", "-28", "100"] * 2 and log.strikes == 4
    os.unlink(tmp_path / "file")
    code, said, log = write_short(tmp_path, "short+SIGKILL", 3, 0)
    assert code == -signal.SIGKILL and said == ["100"] * 2 and [*log.struck.values()] == [{3}]
    assert os.path.getsize(tmp_path / "file") == 250, "the third one is there by half"


def test_a_table_says_how_deep_a_sweep_came():
    swept = {"site": "writev:short:tls", "struck": 1200, "refused_to_start": 0, "left": 0, "no_more": 0,
             "calls": {"main": [[7, 9]], "lane": [[1, 2]], "http": [[1, 1184], [1401, 1401]]}}
    row = publish.sweep_table([{"swept": swept}]).splitlines()[2]
    assert row == "| `writev`, TLS | short | work | refuse | 1,200 | 1,184 (http), 2 (lane) | 1,401 |  |  |  |"
    swept.update(site="writev:SIGKILL", calls={"http": [[1, 3], [5, 5]], "main": [[4, 4]]}, no_more=1)
    row = publish.sweep_table([{"swept": swept}]).splitlines()[2]
    assert row == "| `writev` | SIGKILL | work | refuse | 1,200 | 5 | 5 | yes |  |  |", "in one thread or another"
    assert report.say_depth({**swept, "calls": {}}) == ("0", "0")
