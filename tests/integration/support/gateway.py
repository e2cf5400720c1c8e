"""The real binary: `oncehook serve` on free ports, its log, its metrics, its end."""

import json
import os
import re
import signal
import subprocess
import time

from support import process, wire

REPOSITORY = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
BINARY = os.path.abspath(os.environ.get("ONCEHOOK_BINARY", os.path.join(REPOSITORY, "build/asan/oncehook")))
TOKEN = "token-of-the-tests"

# A report of a sanitizer must end the process and thereby the test.
ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=86",
               "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:exitcode=86",
               "TSAN_OPTIONS": "halt_on_error=1:exitcode=86"}
SANITIZER = re.compile(r"(ERROR|WARNING): \w+Sanitizer|runtime error:")


def environment(**extra):
    return {**os.environ, **ENVIRONMENT, **extra}


def oncehook(*arguments, check=True, timeout=60, env=None, **options):
    """Runs a command of the binary to its end; .returncode .stdout .stderr. A sanitizer's report is
    an error whatever `check` says."""
    done = subprocess.run([BINARY, *map(str, arguments)], stdout=subprocess.PIPE,
                          stderr=options.pop("stderr", subprocess.PIPE), text=True, timeout=timeout, check=False,
                          env=environment(**(env or {})), **options)
    assert not SANITIZER.search(done.stderr or done.stdout), done.stderr
    if check:
        assert done.returncode == 0, f"oncehook {arguments} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def merge(base, changes):
    """A copy of `base` with `changes` over it; dicts are merged, None removes."""
    result = dict(base)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merge(result[name], value)
        else:
            result[name] = value
    return result


class Gateway:
    """One `oncehook serve`: start(), stop(), kill(). config: changes over the test's defaults (see
    `merge`)."""

    def __init__(self, directory, database_url, sources, certificate, config=None, env=None):
        self.directory, self.sources = str(directory), {source.name: source for source in sources}
        self.config_path = os.path.join(self.directory, "oncehook.yaml")
        self.log_path = os.path.join(self.directory, "serve.log")
        self.out_path = os.path.join(self.directory, "serve.out")
        defaults = {
            "listen": {"https": "127.0.0.1:0", "http": "127.0.0.1:0",
                       "tls": {"certificate": certificate[0], "key": certificate[1]}},
            "admin": {"listen": "127.0.0.1:0", "token": TOKEN},
            "database": {"url": database_url, "lanes": 2},
            "sources": [source.config for source in sources]}
        with open(self.config_path, "w", encoding="utf-8") as file:
            json.dump(merge(defaults, config or {}), file, indent=1)  # JSON is YAML
        self.env, self.child, self.expect_exit = env or {}, None, 0
        self.https_port = self.http_port = self.admin_port = 0

    def start(self, wait=True):
        """Starts (again); the ports are new ones."""
        with open(self.log_path, "ab") as log, open(self.out_path, "wb") as out:
            self.child = process.spawn([BINARY, "serve", "-c", self.config_path], stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=log, env=environment(**self.env))
        self.expect_exit = 0
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout=30):
        """Waits for the lines `listening https=PORT http=PORT admin=PORT` and `ready` on stdout."""
        def said():
            assert self.child.poll() is None, f"serve left with {self.child.returncode}\n{self.log_text()}"
            with open(self.out_path, encoding="utf-8") as out:
                lines = out.read().splitlines()
            return lines if "ready" in lines else None
        lines = process.wait_until(said, timeout, what="serve's `ready`")
        line = next(text for text in lines if text.startswith("listening "))
        ports = dict(word.split("=") for word in line.split()[1:])
        self.https_port, self.http_port = int(ports.get("https", 0)), int(ports.get("http", 0))
        self.admin_port = int(ports.get("admin", 0))

    # ---- its end

    def stop(self, timeout=15):
        """SIGTERM; the exit code."""
        return process.stop(self.child, signal.SIGTERM, timeout)

    def kill(self):
        """SIGKILL, as the world does it."""
        self.expect_exit = -signal.SIGKILL
        process.stop(self.child, signal.SIGKILL)

    def close(self):
        """For the fixture: stops it and fails the test when it left in any other way than expected."""
        if self.child is None:
            return
        code = self.stop()
        text = self.log_text()
        assert not SANITIZER.search(text), text[-8000:]
        assert code == self.expect_exit, f"serve left with {code}, not {self.expect_exit}\n{text[-8000:]}"

    # ---- talking to it

    def request(self, method, path, headers=None, body=None, *, tls=True, timeout=20):
        port = self.https_port if tls else self.http_port
        return wire.request(port, method, path, headers, body, tls=tls, timeout=timeout)

    def post(self, source, body, headers=None, *, tls=True, now=None, timeout=20):
        """A delivery of `source` (name) with this body; signed unless `headers` are given."""
        if headers is None:
            headers = self.sources[source].sign(body, now)
        return self.request("POST", f"/in/{source}", headers, body, tls=tls, timeout=timeout)

    def deliver(self, source, *events, tls=True, now=None):
        """Encodes and signs the events (dicts of source.event()) and posts them as one delivery."""
        return self.post(source, self.sources[source].encode(*events), tls=tls, now=now)

    def wire(self, *, tls=False, alpn=None, timeout=20):
        """A raw connection to the gateway's listener."""
        return wire.Wire(self.https_port if tls else self.http_port, tls=tls, alpn=alpn, timeout=timeout)

    def admin(self, path, *, token=None, method="GET", body=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return wire.request(self.admin_port, method, path, headers, body)

    # ---- looking at it

    def metrics(self):
        """{'name{label="value",…}': number} of /metrics, labels as printed."""
        answer = self.admin("/metrics")
        assert answer.status == 200, answer
        found = {}
        for line in answer.body.decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                found[name] = float(value)
        return found

    def metric(self, name, **labels):
        """The sum of the series of that name that carry these labels; 0 when there is none."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(value for series, value in self.metrics().items()
                   if series.split("{")[0] == name and all(text in series for text in wanted))

    def log_text(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def log_lines(self):
        """The log as dicts; a line that is not JSON is an error."""
        return [json.loads(line) for line in self.log_text().splitlines() if line]

    def rss_kib(self):
        with open(f"/proc/{self.child.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))

    def cpu_share(self, seconds=1.5):
        """Of one core, in the next `seconds`."""
        before, began = self._cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        return (self._cpu_seconds() - before) / (time.monotonic() - began)

    def _cpu_seconds(self):
        with open(f"/proc/{self.child.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
