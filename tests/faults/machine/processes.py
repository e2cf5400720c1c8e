"""The processes around PostgreSQL: gateways, load clients, the proxy."""

import collections
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

from machine.journal import now_us
from support.gateway import SANITIZER, environment
from support.process import free_port, spawn
from support.sign import self_signed

HERE = os.path.dirname(os.path.abspath(__file__))
TOKEN = "token-of-the-faults"


class Gateway:
    """One `oncehook serve` on a port that stays the same."""

    def __init__(self, root, binary, name="gateway", tls=False):
        self.root, self.binary, self.name = root, binary, name
        self.port, self.admin_port, self.tls_port = free_port(), free_port(), free_port() if tls else 0
        self.spool = os.path.join(root, f"{name}-spool")
        self.config_path, self.log_path = os.path.join(root, f"{name}.yaml"), os.path.join(root, f"{name}.log")
        self.child, self.env, self.prefix = None, {}, []

    def configure(self, database_url, sources, outage, spool_bytes):
        config = {"listen": {"http": f"127.0.0.1:{self.port}"},
                  "admin": {"listen": f"127.0.0.1:{self.admin_port}", "token": TOKEN},
                  "database": {"url": database_url, "lanes": 2, "connect_timeout": "2s"},
                  "ack_deadline": "2s", "outage": outage, "sources": sources,
                  "spool": {"directory": self.spool, "bytes": spool_bytes}}
        if self.tls_port:
            certificate, key = self_signed(self.root)
            config["listen"].update(https=f"127.0.0.1:{self.tls_port}", tls={"certificate": certificate, "key": key})
        with open(self.config_path, "w", encoding="utf-8") as file:
            json.dump(config, file, indent=1)  # JSON is YAML

    def launch(self):
        with open(self.log_path, "ab") as log:
            self.child = spawn([*self.prefix, self.binary, "serve", "-c", self.config_path],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                               env=environment(**self.env))

    def start(self, timeout=60):
        """Starts; milliseconds until /readyz says 200."""
        started = time.monotonic()
        self.launch()
        self.wait_ready(timeout)
        return (time.monotonic() - started) * 1000

    def wait_ready(self, timeout=60):
        deadline = time.monotonic() + timeout
        while self.get("/readyz") != 200:
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the gateway is not ready (exit {self.child.poll()}):\n{self.log()[-3000:]}")
            time.sleep(0.002)

    def get(self, path):
        """The status of a GET, 0 when nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as wire:
                wire.sendall(f"GET {path} HTTP/1.1\r\nHost: faults\r\nConnection: close\r\n\r\n".encode())
                return int(wire.recv(64).split()[1])
        except (OSError, ValueError, IndexError):
            return 0

    def metric(self, name):
        """The sum of a metric's series; None when it cannot be read."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=3) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return None
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    @property
    def is_running(self):
        return self.child is not None and self.child.poll() is None

    def signal(self, number):
        self.child.send_signal(number)

    def kill(self):
        self.child.kill()
        self.child.wait(30)
        self.child = None

    def stop(self, timeout=40):
        """SIGTERM; None, or what was wrong with its end."""
        if self.child is None:
            return None
        child, self.child = self.child, None
        if child.poll() is None:
            child.send_signal(signal.SIGCONT)
            child.send_signal(signal.SIGTERM)
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return f"the gateway did not leave within {timeout} s of SIGTERM"
        return f"the gateway left with {code}: {self.log()[-2000:]}" if code else None

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def sanitizer_report(self):
        found = SANITIZER.search(self.log())
        return self.log()[found.start():found.start() + 3000] if found else None


class Talker:
    """A child that takes JSON lines and answers with them; a thread reads."""

    def __init__(self, argv):
        # A session of its own: Ctrl-C is for the machine, which then ends its children itself.
        self.child = spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                           start_new_session=True)
        self.replies = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            self.heard(json.loads(line))

    def heard(self, reply):
        self.replies.put(reply)

    def tell(self, **command):
        self.child.stdin.write(json.dumps(command) + "\n")
        self.child.stdin.flush()

    def ask(self, timeout=10, **command):
        self.tell(**command)
        return self.replies.get(timeout=timeout)

    def end(self):
        self.child.kill()
        self.child.wait()


class Proxy(Talker):
    def __init__(self, *ports):
        super().__init__([sys.executable, os.path.join(HERE, "proxy.py"), *ports])
        self.replies.get(timeout=10)

    def set(self, mode, **more):
        self.ask(do=mode, **more)


class Client(Talker):
    """One load client; .latest is its newest report."""

    def __init__(self, settings, heard):
        self.latest, self.on_report = {}, heard
        super().__init__([sys.executable, os.path.join(HERE, "client.py")])
        self.child.stdin.write(json.dumps(settings) + "\n")

    def heard(self, reply):
        if "t_us" in reply:
            self.latest = reply
            self.on_report(reply)
        else:
            self.replies.put(reply)


class Clients:
    """All load clients of a round. .timeline: (time_us, acknowledged events so far) of every report."""

    def __init__(self, count, make_settings):
        self.timeline, self.lock, self.totals = [], threading.Lock(), {}
        self.paths = []
        self.all = []
        for number in range(count):
            settings = make_settings(number)
            self.paths.append(settings["journal"])
            self.all.append(Client(settings, lambda report, number=number: self._note(number, report)))

    def _note(self, number, report):
        with self.lock:
            self.totals[number] = report.get("acked_events", 0)
            self.timeline.append((report["t_us"], sum(self.totals.values())))

    def say_state(self):
        """What the clients see, for a person who looks at a failure."""
        return "; ".join(str({name: value for name, value in client.latest.items() if name != "t_us"})
                         for client in self.all)

    def sums(self):
        total = collections.Counter()
        for client in self.all:
            total.update({name: value for name, value in client.latest.items() if name != "t_us"})
        return total

    def watch(self, status=200):
        """From now on the clients look for an event that is committed for the first time."""
        for client in self.all:
            while not client.replies.empty():
                client.replies.get()
            client.tell(do="watch", status=status)

    def first_us(self, timeout):
        """When the first of them saw one since watch(); None when nobody did in time."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for client in self.all:
                try:
                    reply = client.replies.get(timeout=0.005)
                except queue.Empty:
                    continue
                if "first_us" in reply:
                    return reply["first_us"]
        return None

    def storm(self, connections, timeout=120):
        first = self.all[0]
        first.tell(do="storm", connections=connections)
        deadline = now_us() + timeout * 1000000
        while now_us() < deadline:
            reply = first.replies.get(timeout=timeout)
            if "storm" in reply:
                return reply["storm"]
        raise AssertionError("the storm did not end")

    def redeliver(self, seconds):
        return sum(client.ask(do="redeliver", seconds=seconds).get("redelivering", 0) for client in self.all)

    def finish(self, retry_s=20):
        """Ends the load; [what was odd, …] in their answers."""
        for client in self.all:
            client.tell(do="finish", retry_s=retry_s)
        odd, left = [], 0
        for client in self.all:
            while True:
                reply = client.replies.get(timeout=retry_s + 60)
                if reply.get("done"):
                    break
            odd += reply["odd"]
            left += reply["retries_left"]
            client.child.wait(30)
        if left:
            odd.append(f"{left} deliveries were not acknowledged within {retry_s} s after the last fault")
        return odd

    def end(self):
        for client in self.all:
            client.end()
