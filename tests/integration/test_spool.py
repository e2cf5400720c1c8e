"""The spool on a disk that fails: a program that only puts and gets (bench/spool) is killed, runs out of disk,
gets I/O errors; what it was told is kept must come back, once it is asked. And the command `oncehook spool`.

SPOOL_EVERY=1 fails every single write and fsync of the scenario, not a sample; that takes minutes."""

import json
import os
import pty
import re
import signal
import subprocess
import time

import pytest

from support import process
from support.gateway import BINARY, SANITIZER, environment, oncehook

SPOOL = os.path.join(os.path.dirname(BINARY), "bench", "spool")
EVERY = bool(os.environ.get("SPOOL_EVERY"))


class Bed:
    """One spool directory and the log of what was acknowledged."""

    def __init__(self, directory):
        self.root, self.directory = str(directory), os.path.join(str(directory), "spool")
        self.acked, self.got = os.path.join(self.root, "acked"), os.path.join(self.root, "got")

    def command(self, action, *options, directory=None):
        log = {"put": self.acked, "get": self.got}[action]
        return [SPOOL, action, directory or self.directory, "--log", log, *map(str, options)]

    def run(self, argv, check=True, timeout=60, codes=(0, 1), **env):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False,
                              env=environment(**env))
        assert not SANITIZER.search(done.stderr), done.stderr
        assert done.returncode in codes, f"{argv} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def put(self, *options, **rest):
        return numbers(self.run(self.command("put", *options), **rest))

    def get(self, **rest):
        return numbers(self.run(self.command("get"), **rest))

    def lines(self, path):
        if not os.path.exists(path):
            return []
        with open(path, encoding="ascii") as file:
            return [line for line in file.read().split("\n")[:-1] if line]

    def check_kept(self):
        """Everything acknowledged came back as it was put, nothing was reported lost."""
        result = self.get(check=False)
        assert result["wrong"] == 0 and result["lost"] == 0, result
        missing = set(self.lines(self.acked)) - set(self.lines(self.got))
        assert not missing, f"{len(missing)} acknowledged events are gone: {sorted(missing)[:10]}"


def numbers(done):
    """The figures of the program's last line."""
    last = done.stdout.strip().split("\n")[-1]
    return {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", last)}


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


def test_what_was_acknowledged_is_there_after_kill_9(bed, rng):
    for start in range(0, 8):
        child = process.spawn(bed.command("put", "--events", 1000000, "--start", start * 1000000),
                              env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(bed.lines(bed.acked))
        process.wait_until(lambda: len(bed.lines(bed.acked)) > before, 30, what="the next event kept")
        time.sleep(rng.uniform(0, 0.3))
        process.stop(child, signal.SIGKILL)
    bed.check_kept()


def test_kill_9_while_it_is_drained_gives_each_once_or_again(bed, rng):
    bed.put("--events", 30000)
    while numbers(bed.run(bed.command("put", "--events", 1)))["acknowledged"] < 30008:
        child = process.spawn(bed.command("get", "--chunk", 50), env=environment(),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0, 0.3))
        process.stop(child, signal.SIGKILL)
    bed.check_kept()


def on_small_disk(bed, mib, script):
    """The script, with a tmpfs of its own as disk/, visible to this shell only."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    os.mkdir(os.path.join(bed.root, "disk"))
    done = subprocess.run(["unshare", "--mount", "sh", "-c",
                           f"mount -t tmpfs -o size={mib}m tmpfs disk || exit 90\n{script}"], capture_output=True,
                          text=True, timeout=120, check=False, env=environment(), cwd=bed.root)
    assert not SANITIZER.search(done.stderr), done.stderr
    return done


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(bed):
    """A file that fills it is deleted while events come."""
    put = " ".join(bed.command("put", "--events", 24000, "--rate", 8000, directory="disk/spool"))
    get = " ".join(bed.command("get", directory="disk/spool"))
    script = f"""
        head -c 38m /dev/zero >disk/filler
        {put} & child=$!
        sleep 1.3; rm disk/filler
        wait $child; echo "put gave $?"
        {get}; echo "get gave $?"
    """
    done = on_small_disk(bed, 40, script)
    assert "put gave 1" in done.stdout and "get gave 0" in done.stdout, done.stdout + done.stderr
    assert "the disk is full" in done.stderr and "takes events again" in done.stderr
    acked = [int(line) for line in bed.lines(bed.acked)]
    assert set(bed.lines(bed.got)) >= set(bed.lines(bed.acked))
    assert max(acked) == 23999 and len(acked) < 24000


def test_a_small_disk_is_used_for_events_and_not_for_the_wal_of_small_groups(bed):
    """The WAL writes each page anew for every group. On a disk with little room it is moved into the file while
    there is room for that, and gives its own back: 8 MiB hold 10,900 events of 600 bytes, not 8,400."""
    put = " ".join(bed.command("put", "--events", 12000, "--lanes", 1, "--rate", 2500, "--payload", 600,
                               directory="disk/spool"))
    get = " ".join(bed.command("get", directory="disk/spool"))
    script = f"{put}; {get}; echo \"get gave $?\""
    done = on_small_disk(bed, 8, script)
    assert "get gave 0" in done.stdout and "the disk is full" in done.stderr, done.stdout + done.stderr
    acked = bed.lines(bed.acked)
    print(len(acked), "events in 8 MiB")
    assert len(acked) > 9600 and set(bed.lines(bed.got)) >= set(acked)


def scenario(bed, log, *options):
    """300 events under strace: four segments, some settled, all ended. Leaks cannot be looked for under
    ptrace."""
    argv = ["strace", "-f", "-qq", "-o", log, *options,
            *bed.command("put", "--events", 300, "--lanes", 1, "--rate", 3000, "--bytes", 1 << 20)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False,
                          env=environment(ASAN_OPTIONS="detect_leaks=0:exitcode=86"))
    assert not SANITIZER.search(done.stderr), done.stderr
    return done


# What fails, how, and whether from then on or once.
FAILURES = [("fdatasync", "EIO", ""), ("fsync", "EIO", ""), ("pwrite64", "EIO", ""),
            ("pwrite64", "ENOSPC", ""), ("pwrite64", "ENOSPC", "+"), ("fdatasync", "EIO", "+"),
            ("openat", "EMFILE", "")]


@pytest.mark.parametrize("call,error,more", FAILURES, ids=lambda value: value or "once")
def test_the_nth_call_that_fails_loses_nothing(tmp_path, rng, call, error, more):
    log = str(tmp_path / "strace")
    first = Bed(tmp_path)
    assert scenario(first, log, "-e", f"trace={call}").returncode == 0
    first.check_kept()
    with open(log, encoding="utf-8") as file:
        calls = sum(f" {call}(" in line for line in file)
    assert calls > 5
    places = range(1, calls + 1) if EVERY else sorted(rng.sample(range(1, calls + 1), 4))
    for number in places:
        directory = tmp_path / str(number)
        directory.mkdir()
        bed = Bed(directory)
        done = scenario(bed, log, "-e", f"trace={call}", "-e",
                        f"inject={call}:error={error}:when={number}{more}")
        acked = len(bed.lines(bed.acked))
        print(f"{call} {number}{more} of {calls}: {error}: exit {done.returncode}, {acked} acknowledged")
        # 1: some were undecided; 2: it could not even open, or the loader's own call failed.
        assert done.returncode == 0 and acked == 300 or done.returncode and acked < 300, done.stderr
        if acked:
            bed.check_kept()


def put_one_segment(bed, is_killed):
    """300 events and more; those of a killed program are in the log of changes. The segment's path."""
    if not is_killed:
        bed.put("--events", 300)
    else:
        child = process.spawn(bed.command("put", "--events", 100000, "--rate", 3000), env=environment(),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        process.wait_until(lambda: len(bed.lines(bed.acked)) > 300, 30, what="300 events kept")
        process.stop(child, signal.SIGKILL)
    (segment,) = [name for name in os.listdir(bed.directory) if name.endswith(".db")]
    return os.path.join(bed.directory, segment)


def run_striking(bed, call, error, paths, argv, code):
    """What came of argv, while this call of these files (of a thread: the ones that `error` says) fails."""
    words = [word for path in paths for word in ("-P", path)]
    done = bed.run(["strace", "-f", "-qq", "-o", os.path.join(bed.root, "strace"), *words, "-e", f"trace={call}", "-e",
                    f"inject={call}:error={error}", *argv], check=False, codes=(0, 1, 2),
                   ASAN_OPTIONS="detect_leaks=0:exitcode=86")
    assert done.returncode == code, done.stdout + done.stderr
    return done


def get_striking(bed, error, *names, code=0):
    """bench/spool get, while reads of these files of the spool fail."""
    paths = [os.path.join(bed.directory, name) for name in names]
    return run_striking(bed, "pread64", error, paths, bed.command("get"), code)


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("sound", [0, 30])
def test_reads_that_fail_for_seconds_are_waited_for(bed, suffix, sound):
    """A disk that is away for a while has not changed what is on it: whatever read is the first to fail."""
    segment = os.path.basename(put_one_segment(bed, is_killed=bool(suffix)))
    done = get_striking(bed, f"EIO:when={sound + 1}..{sound + 7}", segment + suffix)
    with open(os.path.join(bed.root, "strace"), encoding="utf-8") as file:
        assert file.read().count("(INJECTED)") >= 7, done.stderr
    assert numbers(done)["lost"] == 0 and set(bed.lines(bed.got)) >= set(bed.lines(bed.acked)), done.stderr


@pytest.mark.parametrize("when", ["1..8", "1..3+2", "2..3", "1..9+2"])
def test_a_start_waits_for_a_disk_that_does_not_read(bed, when):
    """What was acknowledged stands in the mark, and in the last segment: neither is taken for damaged at once."""
    segment = os.path.basename(put_one_segment(bed, is_killed=False))
    done = get_striking(bed, f"EIO:when={when}", segment, "acknowledged", "drained")
    assert numbers(done)["lost"] == 0, done.stdout + done.stderr
    assert sorted(bed.lines(bed.got)) == sorted(bed.lines(bed.acked)), done.stderr


def test_a_mark_that_never_reads_is_derived_from_the_last_segment(bed):
    put_one_segment(bed, is_killed=False)
    done = get_striking(bed, "EIO", "acknowledged", "drained")
    assert numbers(done)["lost"] == 0 and "was derived" in done.stderr, done.stdout + done.stderr
    assert sorted(bed.lines(bed.got)) == sorted(bed.lines(bed.acked)), done.stderr
    assert bed.put("--events", 1)["acknowledged"] == 301


def test_a_start_is_refused_where_nothing_tells_what_was_acknowledged(bed):
    segment = os.path.basename(put_one_segment(bed, is_killed=False))
    done = get_striking(bed, "EIO", segment, "acknowledged", code=2)
    assert f"{segment} tells what was acknowledged, and cannot be read" in done.stderr, done.stderr
    assert os.listdir(bed.directory).count(segment) == 1
    bed.check_kept()


def test_a_start_is_refused_where_numbers_would_begin_again(bed):
    """Nothing waits, and neither mark reads: a loss among numbers that were lost before would not be counted."""
    segment = put_one_segment(bed, is_killed=False)
    bed.check_kept()
    assert not os.path.exists(segment)
    done = get_striking(bed, "EIO", "acknowledged", "drained", code=2)
    assert "neither `acknowledged` nor `drained` can be read" in done.stderr, done.stderr
    assert bed.put("--events", 1)["acknowledged"] == 301


def test_a_directory_that_does_not_read_loses_nothing(bed):
    """It is not an empty one: nothing is opened, and nothing called lost."""
    put_one_segment(bed, is_killed=False)
    done = run_striking(bed, "getdents64", "EIO:when=1", [bed.directory], bed.command("get"), 2)
    assert "Input/output error" in done.stderr, done.stderr
    bed.check_kept()


def test_looking_ends_where_a_file_cannot_be_opened(bed, config):
    segment = put_one_segment(bed, is_killed=False)
    done = run_striking(bed, "openat", "EACCES", [segment], [BINARY, "spool", "export", "-c", config], 1)
    assert "Permission denied" in done.stderr and "300 of 300" in done.stderr, done.stderr
    bed.check_kept()


def test_a_disk_that_is_full_is_drained(bed):
    """To read a segment SQLite wants an index beside it. Where the segments fill the disk there is never room for one."""
    segment = put_one_segment(bed, is_killed=True)
    os.unlink(segment + "-shm")
    script = f"""
        cp -r {bed.directory} disk/spool
        : >disk/spool/lock # there is no room for who owns it either
        head -c 40m /dev/zero >disk/filler 2>/dev/null
        timeout 60 {" ".join(bed.command("get", directory="disk/spool"))}; echo "get gave $?"
    """
    done = on_small_disk(bed, 20, script)
    assert "get gave 0" in done.stdout, done.stdout + done.stderr
    assert set(bed.lines(bed.got)) >= set(bed.lines(bed.acked))


@pytest.mark.parametrize("kib", [3000, 5001, 9000])
def test_a_write_that_is_cut_short_loses_nothing(bed, kib):
    """The kernel's limit on the size of a file writes what fits of a call, then nothing: a true short write, which
    strace cannot inject. In KiB, so that it falls into the middle of a page, in the log of changes or in the file."""
    limit = ["prlimit", f"--fsize={kib * 1024 + 100}", "env", "--ignore-signal=XFSZ"]
    done = bed.run([*limit, *bed.command("put", "--events", 60000)], check=False)
    assert "disk I/O error" in done.stderr, "no write was cut short"
    assert numbers(done)["spooled"] > 0
    bed.check_kept()


def test_two_owners_are_refused(bed):
    first = process.spawn(bed.command("put", "--events", 100000, "--rate", 1000), env=environment(),
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert first.stdout.readline().startswith("open")
    second = subprocess.run(bed.command("put"), capture_output=True, text=True, check=False, env=environment())
    assert second.returncode == 2
    assert f"belongs to process {first.pid}; one owner at a time" in second.stderr
    process.stop(first, signal.SIGKILL)
    first.stdout.close()
    bed.put("--events", 10)  # a dead owner's lock is gone


def test_a_directory_in_memory_is_warned_of(tmp_path):
    directory = f"/dev/shm/oncehook-{os.getpid()}-{os.path.basename(tmp_path)}"
    bed = Bed(tmp_path)
    try:
        done = bed.run(bed.command("put", "--events", 1, directory=directory))
        warned = [json.loads(line) for line in done.stderr.splitlines() if "unfit" in line]
        assert [line["filesystem"] for line in warned] == ["tmpfs"]
    finally:
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)


def test_it_opens_at_once_whatever_it_holds(bed):
    bed.put("--events", 100000, timeout=120)
    said = [bed.run([SPOOL, "put", bed.directory, "--events", "1"]).stdout for _ in range(3)]
    seconds = [float(re.search(r"open seconds=([\d.]+)", text)[1]) for text in said]
    assert min(seconds) < 0.2, f"{seconds} s to open 100,000 records"  # the others wait for a busy disk


# ---- oncehook spool -------------------------------------------------------------------------------

@pytest.fixture
def config(bed, database):
    path = os.path.join(bed.root, "oncehook.yaml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"listen": {"http": "127.0.0.1:0"}, "database": {"url": database.gateway_url, "lanes": 2},
                   "outage": "spool", "spool": {"directory": bed.directory},
                   "sources": [{"name": "shop", "provider": "hmac", "secrets": ["s3cret-of-the-shop"],
                                "header": "X-Signature"}]}, file)
    return path


def status(config):
    return json.loads(oncehook("spool", "status", "--json", "-c", config).stdout)


def test_status_says_what_waits_also_while_it_is_owned(bed, config):
    bed.put("--events", 500)
    now = status(config)
    assert (now["waiting"], now["last_acknowledged"], now["lost"], now["owner"]) == (500, 500, 0, None)
    assert now["bytes"] > 300000 and now["segments"] == 1 and now["losses"] == []
    owner = process.spawn(bed.command("put", "--events", 100000, "--rate", 500), env=environment(),
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        owner.stdout.readline()
        assert status(config)["owner"] == owner.pid
        assert f"process {owner.pid}" in oncehook("spool", "status", "-c", config).stdout
        for action in ("export", "drain"):
            refused = oncehook("spool", action, "-c", config, check=False)
            assert refused.returncode == 2 and f"process {owner.pid} owns the spool" in refused.stderr
    finally:
        process.stop(owner, signal.SIGKILL)
        owner.stdout.close()


def test_status_says_what_the_disk_allows(bed, config):
    """A limit beyond what is free is no room: both are said, and which of them ends first."""
    bed.put("--events", 500)
    with open(config, encoding="utf-8") as file:
        text = json.load(file)
    free = os.statvfs(bed.directory)
    free = free.f_bavail * free.f_frsize
    for limit, ends in ((free // 2**20 // 4, "the limit"), (free // 2**20 * 4, "the disk")):
        text["spool"]["bytes"] = f"{limit}MiB"
        with open(config, "w", encoding="utf-8") as file:
            json.dump(text, file)
        now = status(config)
        assert abs(now["disk_free_bytes"] - free) < free / 4 and now["limit_bytes"] == limit << 20
        line = next(one for one in oncehook("spool", "status", "-c", config).stdout.splitlines() if one.startswith("size"))
        told = re.fullmatch(r"size {15}(\d+\.\d) MiB of (\d+)\.0 MiB, 1 segment; (\d+\.\d) MiB are free on the disk(.*)", line)
        assert told and int(told[2]) == limit, line
        assert told[4] == (", less than the limit" if ends == "the disk" else ""), line


def test_export_prints_every_record_and_changes_nothing(bed, config):
    bed.put("--events", 2500, "--lanes", 1)
    before = sorted(os.listdir(bed.directory))
    for _ in range(2):
        rows = [json.loads(line) for line in oncehook("spool", "export", "-c", config).stdout.splitlines()]
        assert [row["provider_event_id"] for row in rows] == [str(number) for number in range(2500)]
        assert json.loads(rows[7]["payload"])["id"] == 7
        assert {row["source"] for row in rows} == {"shop"} and rows[0]["key_scope"] == "source:shop"
    assert set(before) <= set(os.listdir(bed.directory))
    assert status(config)["waiting"] == 2500


def damage(bed):
    """Flips a byte in the middle of the first segment."""
    name = sorted(name for name in os.listdir(bed.directory) if name.startswith("spool-"))[0]
    with open(os.path.join(bed.directory, name), "r+b") as file:
        file.seek(0, 2)
        middle = file.tell() // 2
        file.seek(middle)
        byte = file.read(1)
        file.seek(middle)
        file.write(bytes([byte[0] ^ 0x40]))


def test_drain_brings_everything_to_the_database(bed, config, database):
    bed.put("--events", 3000)
    done = oncehook("spool", "drain", "-c", config)
    assert done.stdout == "3000 drained, 0 lost, 0 left\n"
    assert database.value("SELECT count(DISTINCT provider_event_id) FROM campaign_events") == 3000
    assert status(config)["waiting"] == 0
    again = oncehook("spool", "drain", "-c", config)
    assert again.stdout == "0 drained, 0 lost, 0 left\n"


def test_losses_are_told_everywhere(bed, config, database):
    bed.put("--events", 1000)
    damage(bed)
    exported = oncehook("spool", "export", "-c", config, check=False)
    drained = oncehook("spool", "drain", "-c", config, check=False)
    assert (exported.returncode, drained.returncode) == (1, 1)
    now = status(config)
    assert now["lost"] > 0 and now["waiting"] == 0
    kept = database.value("SELECT count(*) FROM campaign_events")
    assert kept + now["lost"] == 1000 and len(exported.stdout.splitlines()) == kept
    assert f"{kept} drained, {now['lost']} lost, 0 left" in drained.stdout
    assert sum(loss["last"] - loss["first"] + 1 for loss in now["losses"]) == now["lost"]
    assert any(name.startswith("damaged-spool-") for name in os.listdir(bed.directory))
    assert "records are lost" in drained.stderr


def test_drain_says_that_the_disk_does_not_read(bed, config):
    segment = put_one_segment(bed, is_killed=False)
    done = run_striking(bed, "pread64", "EIO", [segment],
                        ["timeout", "--preserve-status", "-s", "INT", "6", BINARY, "spool", "drain", "-c", config], 1)
    assert done.stdout == "0 drained, 0 lost, 300 left\n"
    assert "oncehook spool: a segment cannot be read: disk I/O error" in done.stderr, done.stderr
    assert oncehook("spool", "drain", "-c", config).stdout == "300 drained, 0 lost, 0 left\n"


@pytest.mark.parametrize("where", ["inside", "at its end"])
def test_a_damaged_stretch_is_one_line_of_the_log(bed, config, where):
    """Whatever it takes to read it: SQLite gives up at each record, and each is looked at twice."""
    bed.put("--events", 20000)
    path = os.path.join(bed.directory, sorted(name for name in os.listdir(bed.directory) if name.startswith("spool-"))[0])
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(size // 2 // 4096 * 4096 if where == "inside" else size - 4096 * 100)
        file.write(b"Z" * 4096 * 50 if where == "inside" else b"Z" * 4096 * 100)
    done = bed.run(bed.command("get"), check=False)
    told = [json.loads(line) for line in done.stderr.splitlines() if "records are lost" in line]
    now = status(config)
    assert now["lost"] > 100 and max(loss["last"] - loss["first"] for loss in now["losses"]) > 100, now
    assert [(one["first"], one["last"], one["reason"]) for one in told] == [
        (loss["first"], loss["last"], loss["what"].split()[0]) for loss in now["losses"]]


def test_a_stretch_that_was_lost_in_parts_is_told_as_one_range(bed, config):
    bed.put("--events", 10)
    with open(os.path.join(bed.directory, "losses"), "a", encoding="ascii") as file:
        for first, last, reason in ((1, 1, "unreadable"), (2, 4, "unreadable"), (5, 5, "missing"), (7, 8, "missing")):
            file.write(f"{first} {last} {reason} spool-00000000000000000001.db 2026-11-24T12:00:0{first}Z\n")
    now = status(config)
    assert [(one["first"], one["last"]) for one in now["losses"]] == [(1, 4), (5, 5), (7, 8)] and now["lost"] == 7


def test_a_word_that_is_no_action_is_said_before_what_else_is_missing():
    for argv, words in [(["spool", "nosuch"], "'nosuch' is none of status|export|drain"),
                        (["spool"], "status|export|drain is needed"),
                        (["spool", "status"], "--config is needed"), (["spool", "--json", "-c", "x"], "status|export|drain is needed"),
                        (["migrate", "nosuch"], "'nosuch' is none of up|down|status|lint|adopt")]:
        done = oncehook(*argv, check=False)
        assert (done.returncode, done.stdout) == (2, "") and words in done.stderr, done.stderr


def test_help_says_when_each_action_gives_1():
    said = " ".join(oncehook("spool", "--help").stdout.split())
    assert "1 records are left (drain), or cannot be read (export, drain)" in said, said


def test_drain_shows_its_progress_on_a_terminal(bed, config):
    bed.put("--events", 2000)
    primary, secondary = pty.openpty()
    done = subprocess.run([BINARY, "spool", "drain", "-c", config], stdout=subprocess.PIPE, stderr=secondary,
                          timeout=60, check=False, env=environment())
    os.close(secondary)
    shown = os.read(primary, 1 << 16).decode()
    os.close(primary)
    assert done.returncode == 0 and "2000/2000" in shown and "[####" in shown


def test_without_a_database_drain_says_what_is_left(bed, config):
    bed.put("--events", 10)
    with open(config, encoding="utf-8") as file:
        changed = json.load(file)
    changed["database"]["url"] = f"postgresql://nobody@127.0.0.1:{process.free_port()}/none"
    with open(config, "w", encoding="utf-8") as file:
        json.dump(changed, file)
    child = process.spawn([BINARY, "spool", "drain", "-c", config], env=environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 1 and out == "0 drained, 0 lost, 10 left\n", out + err
    assert status(config)["waiting"] == 10
