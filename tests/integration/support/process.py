"""Child processes that cannot outlive the tests, and waiting without sleeping blindly."""

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import time


def spawn(argv, *, user=None, death_signal="SIGKILL", **options):
    """Starts argv so that the kernel sends it `death_signal` when this Python dies, however it dies.

    `user` drops root's rights first and is ignored where the tests do not run as root. The returned
    Popen's pid is the pid of argv itself (setpriv execs)."""
    if user and os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        options.update(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
    return subprocess.Popen(["setpriv", "--pdeathsig", death_signal, "--", *map(str, argv)], **options)


def run(argv, *, user=None, check=True, timeout=120, **options):
    """subprocess.run() with text output, as `user` where the tests run as root."""
    if user and os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        options.update(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=timeout, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{argv} gave {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def stop(child, signal_number=signal.SIGTERM, timeout=20):
    """Signals the child and returns its exit code; SIGKILL and an error when it does not leave."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal_number)
    try:
        return child.wait(timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        raise AssertionError(f"pid {child.pid} did not leave within {timeout} s of signal {signal_number}")


def wait_until(predicate, timeout=10, interval=0.02, what="the condition"):
    """Polls until predicate() is true and returns its value; an AssertionError after `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not come true within {timeout} s (last: {value!r})")
        time.sleep(interval)


def free_port():
    """A TCP port of 127.0.0.1 that was free a moment ago; callers retry when they lose the race."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
