"""Bytes on the wire as a hostile or clumsy client sends them, and the answer as it came."""

import contextlib
import functools
import json
import socket
import ssl


class Answer:
    """One HTTP answer: status, headers (names in lower case), body."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:400]!r}>"


@functools.cache
def client_context(alpn=()):
    """Trusts everybody, and so reads none of the machine's hundred authorities, which takes 30 ms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class Wire:
    """A connection that sends exactly what it is told. alpn: protocols to offer; with tls=False
    plain TCP."""

    def __init__(self, port, *, tls=False, alpn=None, timeout=20):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.buffer = b""
        if tls:
            context = client_context(tuple(alpn or ()))
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except BrokenPipeError:
            pass  # refused before its end was sent (413): the answer is there to read

    def more(self):
        """Reads once; False when the other side has closed or reset."""
        try:
            data = self.socket.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError, BrokenPipeError):
            return False
        self.buffer += data
        return bool(data)

    def read_to_end(self):
        """Everything until the gateway closes; a timeout is an error."""
        while self.more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def closed(self):
        """True when the gateway has closed; waits for it up to the timeout."""
        return not self.more()

    def answer(self, head=False):
        """The next answer. head: it answers a HEAD request and has no body."""
        while b"\r\n\r\n" not in self.buffer:
            assert self.more(), f"closed before a full head: {self.buffer!r}"
        raw, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = raw.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            headers[name.strip().lower()] = value.strip()
        if status in (100, 204, 304) or head:
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Answer(status, headers, self._chunked())
        if "content-length" in headers:
            return Answer(status, headers, self._exactly(int(headers["content-length"])))
        return Answer(status, headers, self.read_to_end())

    def _exactly(self, length):
        while len(self.buffer) < length:
            assert self.more(), "closed inside a body"
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return body

    def _line(self):
        while b"\r\n" not in self.buffer:
            assert self.more(), "closed inside a chunk line"
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def _chunked(self):
        body = b""
        while True:
            size = int(self._line().split(b";")[0], 16)
            body += self._exactly(size)
            self._line()
            if size == 0:
                return body


def request_bytes(method, path, headers=None, body=None):
    """A plain HTTP/1.1 request; Host and Content-Length are added where they are not given."""
    lines = {"Host": "localhost", **(headers or {})}
    if body is not None and not any(name.lower() == "content-length" for name in lines):
        lines["Content-Length"] = str(len(body))
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines.items()) + "\r\n"
    return head.encode("latin-1") + (body or b"")


def request(port, method, path, headers=None, body=None, *, tls=False, timeout=20):
    """One request on a connection of its own."""
    with Wire(port, tls=tls, timeout=timeout) as wire:
        wire.send(request_bytes(method, path, headers, body))
        return wire.answer(head=method == "HEAD")
