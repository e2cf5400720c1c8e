"""Words on the terminal, commands, and children that end with this process."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


class Failed(Exception):
    """What ends the run, in words."""


def say(text, stays=True):
    """A line of progress; one that does not stay is written over on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K" + text + ("\n" if stays else ""))
    elif stays:
        sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Progress:
    """Step k of n, and how long the rest will take: `seconds` is what each step was thought to take, and
    what the steps until now really took corrects it."""

    def __init__(self, seconds):
        self.left, self.count, self.number = list(seconds), len(seconds), 0
        self.thought = self.took = 0.0
        self.began = None

    def step(self, what):
        self.end_step()
        self.number += 1
        self.began = time.monotonic()
        seconds = sum(self.left) * (self.took / self.thought if self.thought else 1)
        left = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        say(f"step {self.number} of {self.count}, about {left} left: {what}", stays=False)

    def end_step(self):
        if self.began is not None:
            self.took += time.monotonic() - self.began
            self.thought += self.left.pop(0)
            self.began = None


def bound(argv, end=signal.SIGKILL):
    """The command as one that the kernel ends with the thread that starts it, whatever ends that."""
    return ["setpriv", "--pdeathsig", end.name, "--", *map(str, argv)]


def output(*argv, **options):
    """What a command prints; Failed with its errors when it fails."""
    done = subprocess.run(bound(argv), capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, argv[:4]))} … gave {done.returncode}:\n{done.stderr}{done.stdout}")
    return done.stdout


@contextlib.contextmanager
def new_directory(where, name):
    """A directory below `where`, on a disk, that the user postgres can pass through. It is gone in the end."""
    directory = tempfile.mkdtemp(prefix=f"oncehook-{name}-", dir=where)
    try:
        os.chmod(directory, 0o755)
        if output("stat", "-f", "-c", "%T", directory).strip() in ("tmpfs", "ramfs"):
            raise Failed(f"{where} is in memory: --dir must name a directory on a disk")
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def check_options(parser, options, outputs=()):
    """What a run would fail of, said before it has begun: it may take half an hour. `outputs`: files it will write."""
    for name in ("seconds", "rounds", "connections", "idle_connections", "large"):
        value = getattr(options, name, None)
        if value is not None and not value > 0:
            parser.error(f"--{name.replace('_', '-')}: more than 0")
    if options.build and not os.access(os.path.join(options.build, "oncehook"), os.X_OK):
        parser.error(f"--build {options.build}: no program oncehook in it")
    if not os.path.isdir(options.dir):
        parser.error(f"--dir {options.dir}: no such directory")
    for path in filter(None, outputs):
        if os.path.isdir(path) or not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
            parser.error(f"{path}: cannot be written")


class Server:
    """A child that ends with this process, whatever ends it."""

    def __init__(self, argv, log, user=None, end=signal.SIGTERM, env=None):
        entry = pwd.getpwnam(user) if user else None
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []} if entry else {}
        self.name, self.log, self.end = os.path.basename(argv[0]), log, end
        self.child = subprocess.Popen(bound(argv, end), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                      stderr=open(log, "ab"), cwd="/", env=env, start_new_session=True, **identity)
        self.pid = self.child.pid

    def lines_until_ready(self):
        """The lines it prints before the line `ready`."""
        lines = []
        for line in self.child.stdout:
            if line.strip() == "ready":
                return lines
            lines.append(line.strip())
        raise Failed(f"{self.name} did not start:\n{self.end_of_log()}")

    def end_of_log(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()[-4000:]

    def check_alive(self):
        if self.child.poll() is not None:
            raise Failed(f"{self.name} ended with {self.child.returncode}:\n{self.end_of_log()}")

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(self.end)
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.child.stdout.close()
