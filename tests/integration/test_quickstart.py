"""deploy/quickstart as a newcomer runs it, but for free ports and another directory."""

import os
import re
import subprocess

import pytest

from support import process
from support.gateway import REPOSITORY
from support.memory import make_directory, remove_directory
from test_demo import check_report

PORTS = ["--port", "0", "--http-port", "0", "--admin-port", "0"]


@pytest.fixture
def directory():
    root = make_directory("oh-quick-")
    yield f"{root}/d"
    remove_directory(root)


def servers():
    """Command lines of the PostgreSQL servers that run."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                argv = file.read().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if argv[0].endswith(b"/postgres") and b"-D" in argv:
            found.add(argv[argv.index(b"-D") + 1].decode())
    return found


@pytest.mark.long
def test_quickstart_once_builds_runs_the_demo_and_leaves_nothing(directory):
    child = process.spawn([f"{REPOSITORY}/deploy/quickstart", "--once", "--dir", directory, *PORTS], cwd="/", death_signal="SIGTERM",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = child.communicate(timeout=500)
    assert child.returncode == 0, out + err
    assert re.findall(r"^\[(\d/\d)\]", err, re.MULTILINE) == ["1/3", "2/3", "3/3"]
    # At full speed: libh2o's own free lists are hidden from sanitizers, and slow runs do not race.
    assert out.startswith("ready\n") and len(out.splitlines()) > 10
    check_report(out, 0)
    assert not [data for data in servers() if data.startswith(os.path.realpath(directory))]


def test_every_listed_package_has_a_group_that_a_script_asks_for():
    with open(f"{REPOSITORY}/deploy/packages.txt", encoding="utf-8") as file:
        rows = [line.split() for line in file if line.strip() and not line.startswith("#")]
    assert all(len(row) == 2 for row in rows)
    assert {group for group, _ in rows} == {"build", "run", "test"}
    assert len({package for _, package in rows}) == len(rows)


def test_install_packages_needs_nothing_where_nothing_is_missing(tmp_path):
    """apt-get must not even be called: the path holds one that fails."""
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\nexit 9\n")
    apt.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process.run([f"{REPOSITORY}/deploy/install-packages", "build", "run"], env=env)
    done = process.run([f"{REPOSITORY}/deploy/install-packages", "nonsense"], env=env, check=False)
    assert done.returncode == 2 and "no group" in done.stderr
