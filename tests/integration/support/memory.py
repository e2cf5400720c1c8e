"""Directories in memory. A process that is killed, a server or a gateway, leaves there what it leaves on a
disk; only what a power cut would lose is not to be seen, and no test here cuts the power. tests/faults
has its servers on a disk."""

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile

MEMORY, ROOM_BYTES = "/dev/shm", 4 << 30
locks = {}  # directory -> descriptor; the kernel lets go of the lock when this process dies


def make_directory(prefix, mode=0o755):
    """A new directory: in memory where there is room, else in /tmp."""
    sweep(prefix)
    place = "/tmp"
    with contextlib.suppress(OSError):
        room = os.statvfs(MEMORY)
        place = MEMORY if room.f_bavail * room.f_frsize >= ROOM_BYTES else place
    made = tempfile.mkdtemp(prefix="new-", dir=place)
    held = lock(made)
    os.chmod(made, mode)
    path = os.path.join(place, prefix + os.path.basename(made).removeprefix("new-"))
    os.rename(made, path)  # no sweep sees it before it is locked
    locks[path] = held
    return path


def remove_directory(path):
    shutil.rmtree(path, ignore_errors=True)
    os.close(locks.pop(path))


def lock(path):
    """A descriptor that holds the directory, or None where another process does."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def sweep(prefix):
    """Removes what killed tests left in memory."""
    for path in glob.glob(f"{MEMORY}/{prefix}*"):
        with contextlib.suppress(OSError):
            if (descriptor := lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)
