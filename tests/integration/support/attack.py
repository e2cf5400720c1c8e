"""Clients that hold memory, as a process of its own: many connections that send almost everything,
or read nothing, and come again when they are closed.

    attack.py PORT KIND CONNECTIONS SECONDS [--tls] [--bytes N]

KIND: body (all of a body but its last byte), head (a head that never ends), drip (the same, a line
every second), answers (request after request, no answer read), idle. Prints one JSON line at its end:
connections opened and closed by the other side, bytes sent. SIGTERM ends it early."""

import argparse
import contextlib
import errno
import json
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import time

from support import process

DRIP_S = 1


class Client:
    """One connection and what it still wants to send."""

    def __init__(self, address, content, context, endless):
        self.content, self.at, self.endless = memoryview(content), 0, endless
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)
        self.socket.connect_ex(address)
        if context:
            self.socket = context.wrap_socket(self.socket, do_handshake_on_connect=False)
        self.shaken = context is None
        self.reads = not endless

    def push(self):
        """Sends what goes; the bytes. OSError when the other side has closed."""
        if not self.shaken:
            self.socket.do_handshake()
            self.shaken = True
        sent = 0
        while self.at < len(self.content):
            try:
                count = self.socket.send(self.content[self.at:self.at + 65536])
            except (BlockingIOError, ssl.SSLWantWriteError):
                break
            sent += count
            self.at += count
            if self.endless and self.at == len(self.content):
                self.at = 0
        return sent

    @property
    def is_done(self):
        return self.shaken and self.at >= len(self.content)


def content_of(kind, size):
    request = b"POST /in/nobody HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    lines = b"".join(b"X-%d: %s\r\n" % (i, b"a" * 4096) for i in range(size // 4096))
    return {"body": request + b"x" * (size - 1), "head": b"GET / HTTP/1.1\r\n" + lines, "idle": b"",
            "drip": b"GET / HTTP/1.1\r\n", "answers": request + b"x" * size}[kind]


def attack(port, kind, count, seconds, tls, size):
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    content = content_of(kind, size)
    told = {"opened": 0, "closed": 0, "sent": 0, "held": 0}
    selector, stop = selectors.DefaultSelector(), []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    clients = set()

    def open_one():
        client = Client(("127.0.0.1", port), content, context, kind == "answers")
        selector.register(client.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, client)
        clients.add(client)
        told["opened"] += 1

    def lose(client):
        selector.unregister(client.socket)
        client.socket.close()
        clients.discard(client)
        told["closed"] += 1

    def serve(client, events):
        try:
            told["sent"] += client.push()
            if client.reads and events & selectors.EVENT_READ and client.shaken:
                with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                    if client.socket.recv(4096) == b"":
                        raise ConnectionResetError
            wanted = selectors.EVENT_WRITE if client.shaken and not client.is_done else 0
            if client.reads or not client.shaken:
                wanted |= selectors.EVENT_READ
            selector.modify(client.socket, wanted, client)
        except (ssl.SSLWantReadError, BlockingIOError):
            selector.modify(client.socket, selectors.EVENT_READ, client)
        except ssl.SSLWantWriteError:
            selector.modify(client.socket, selectors.EVENT_WRITE, client)
        except OSError as problem:
            if problem.errno != errno.ENOTCONN:  # the connect is under way
                lose(client)

    deadline, next_drip = time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < deadline and not stop:
        for _ in range(min(64, count - len(clients))):
            open_one()
        for key, events in selector.select(0.05):
            serve(key.data, events)
        if kind == "drip" and time.monotonic() >= next_drip:
            next_drip += DRIP_S
            for client in list(clients):
                if client.is_done:
                    client.content, client.at = memoryview(b"X-Drip: 1\r\n"), 0
                    selector.modify(client.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, client)
    told["held"] = sum(client.is_done for client in clients)
    for client in clients:
        client.socket.close()
    print(json.dumps(told), flush=True)


@contextlib.contextmanager
def running(port, kind, count, *, tls=False, size=1 << 20, seconds=300):
    """The attack beside a `with` block; yields a dict that holds what it told once it is over."""
    argv = [sys.executable, "-m", "support.attack", port, kind, count, seconds, "--bytes", size] + ["--tls"] * tls
    child = process.spawn(argv, stdout=subprocess.PIPE, cwd=__file__.rsplit("/", 2)[0])
    told = {}
    try:
        yield told
    finally:
        child.send_signal(signal.SIGTERM)
        told.update(json.loads(child.communicate(timeout=60)[0] or "{}"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("kind")
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--bytes", type=int, default=1 << 20)
    given = parser.parse_args()
    attack(given.port, given.kind, given.connections, given.seconds, given.tls, given.bytes)


if __name__ == "__main__":
    main()
