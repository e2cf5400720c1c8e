"""oncehook tail: follows the feed, for people and for scripts, over a gateway that comes and goes."""

import contextlib
import json
import os
import pty
import signal
import subprocess

import pytest

from support import process
from support.capture import capture, event
from support.gateway import BINARY, TOKEN, environment, oncehook


def arguments(gateway, *more):
    return ["tail", "--url", f"http://127.0.0.1:{gateway.admin_port}", *more]


def tail_once(gateway, *more, check=True, token=TOKEN):
    return oncehook(*arguments(gateway, "--once", *more), check=check, env={"ONCEHOOK_ADMIN_TOKEN": token})


def ids(text):
    return [json.loads(line)["provider_event_id"] for line in text.splitlines()]


class Tail:
    """A running tail whose output is a file."""

    def __init__(self, directory, argv):
        self.out_path, self.error_path = directory / "tail.out", directory / "tail.error"
        with open(self.out_path, "wb") as out, open(self.error_path, "wb") as error:
            self.child = process.spawn([BINARY, *argv], stdin=subprocess.DEVNULL, stdout=out, stderr=error,
                                       env=environment(ONCEHOOK_ADMIN_TOKEN=TOKEN))

    @property
    def ids(self):
        return ids(self.out_path.read_text()[:self.out_path.read_text().rfind("\n") + 1])

    @property
    def errors(self):
        return self.error_path.read_text()


@pytest.fixture
def follow(tmp_path):
    with contextlib.ExitStack() as stack:
        def start(argv):
            made = Tail(tmp_path, argv)
            stack.callback(process.stop, made.child, signal.SIGKILL)
            return made
        yield start


def test_it_prints_what_is_there_and_ends(gateway, database):
    capture(database.gateway_url, event(id="a", source="x", type="opened"), event(id="b", source="y"))
    capture(database.gateway_url, event(id="c", source="x"))
    assert ids(tail_once(gateway, "--from", "first").stdout) == ["a", "b", "c"]
    assert tail_once(gateway).stdout == "", "without --from it begins now"
    assert ids(tail_once(gateway, "--from", "first", "--source", "x").stdout) == ["a", "c"]
    assert ids(tail_once(gateway, "--from", "first", "--type", "opened").stdout) == ["a"]
    cursor = json.loads(tail_once(gateway, "--from", "first").stdout.splitlines()[0])["cursor"]
    assert ids(tail_once(gateway, "--from", cursor).stdout) == ["b", "c"]


def test_more_than_a_page_is_printed_once_each_and_in_order(gateway, database):
    database.sql("INSERT INTO campaign_events (provider_event_id) SELECT n FROM generate_series(1, 1800) n")
    assert ids(tail_once(gateway, "--from", "first").stdout) == [str(n) for n in range(1, 1801)]


def test_it_follows_a_gateway_that_goes_and_comes_back(start_gateway, database, follow):
    port = process.free_port()
    config = {"admin": {"listen": f"127.0.0.1:{port}"}}
    gateway = start_gateway(config)
    tail = follow(["tail", "-c", gateway.config_path, "--from", "first"])
    capture(database.gateway_url, event(id="one"))
    process.wait_until(lambda: tail.ids == ["one"], what="the first event")
    gateway.kill()
    process.wait_until(lambda: "tried again" in tail.errors, 20, what="the word that it is gone")
    capture(database.gateway_url, event(id="two"))
    gateway.start()
    process.wait_until(lambda: tail.ids == ["one", "two"], 20, what="the event that came meanwhile")
    assert tail.errors.count("tried again") == 1 and "connected again" in tail.errors
    for number in range(5):
        capture(database.gateway_url, event(id=f"more {number}"))
    process.wait_until(lambda: tail.ids == ["one", "two"] + [f"more {n}" for n in range(5)], what="the others")
    assert process.stop(tail.child, signal.SIGINT, 10) == 0
    last = tail.errors.rsplit("--from ", 1)[1].strip()
    capture(database.gateway_url, event(id="later"))
    assert ids(tail_once(gateway, "--from", last).stdout) == ["later"], "where it stopped is where it goes on"


def test_a_terminal_gets_lines_for_people_and_no_control_sequences(gateway, database):
    [[instance, [enrollment]]] = database.seed()
    capture(database.gateway_url, event(id="evil\x1b[2J\x9b31m", type="opened", enrollment=enrollment),
            event(id="plain", instance=instance), event(id="nobody"))
    head, other = pty.openpty()
    with process.spawn([BINARY, *arguments(gateway, "--from", "first", "--once")], stdin=subprocess.DEVNULL,
                       stdout=other, stderr=subprocess.STDOUT,
                       env=environment(ONCEHOOK_ADMIN_TOKEN=TOKEN)) as child:
        os.close(other)
        text = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while more := os.read(head, 65536):
                text += more
        os.close(head)
        assert child.wait(20) == 0
    lines = text.decode().splitlines()
    assert len(lines) == 3 and b"\x1b" not in text and b"\xc2\x9b" not in text, text
    assert "opened" in lines[0] and f"enrollment {enrollment}" in lines[0] and lines[0].endswith("evil?[2J?31m")
    assert f"instance   {instance}" in lines[1] and lines[1].endswith(" plain")


def test_what_it_cannot_do_it_says(gateway, database, tmp_path):
    for more, words in ((["--type", "nothing"], "type must be one of"), (["--from", "yesterday"], "cursor must be")):
        done = tail_once(gateway, *more, check=False)
        assert done.returncode == 2 and words in done.stderr, done
    assert "token" in tail_once(gateway, check=False, token="wrong").stderr
    assert tail_once(gateway, check=False, token="wrong").returncode == 2
    assert "ONCEHOOK_ADMIN_TOKEN" in tail_once(gateway, check=False, token="").stderr
    assert oncehook("tail", check=False).returncode == 2
    for url in "ftp://127.0.0.1", "127.0.0.1:9", "":  # and not tried for ever
        done = oncehook("tail", "--url", url, check=False, env={"ONCEHOOK_ADMIN_TOKEN": "t"}, timeout=20)
        assert done.returncode == 2 and f"--url: http://… or https://…, not '{url}'" in done.stderr
    capture(database.gateway_url, event())
    cursor = json.loads(tail_once(gateway, "--from", "first").stdout)["cursor"]
    database.sql("DELETE FROM campaign_events")
    done = tail_once(gateway, "--from", cursor, check=False)
    assert done.returncode == 1 and '"first"' in done.stderr, done
    done = oncehook("tail", "--once", "--url", f"http://127.0.0.1:{process.free_port()}", check=False,
                    env={"ONCEHOOK_ADMIN_TOKEN": TOKEN})
    assert done.returncode == 1 and "oncehook tail: http://127.0.0.1" in done.stderr
    assert TOKEN not in done.stderr + done.stdout


def test_a_reader_that_leaves_ends_it(gateway, database):
    database.sql("INSERT INTO campaign_events (provider_event_id) SELECT n FROM generate_series(1, 3000) n")
    done = subprocess.run(f"{BINARY} {' '.join(arguments(gateway, '--from', 'first'))} | head -1", shell=True,
                          timeout=60, stdout=subprocess.PIPE, check=True,
                          env=environment(ONCEHOOK_ADMIN_TOKEN=TOKEN))
    assert ids(done.stdout.decode()) == ["1"]
