"""The client's own log: what it was about to send, on disk before it was sent, and what came of it.

One line a record, fields separated by tabs:
  A number time_us source scope key=hash[,key=hash …]     an attempt, fdatasync'd before it is sent
  O number time_us status captured duplicates orphans quarantined spooled     its outcome
Times are CLOCK_MONOTONIC, which all processes of a machine share. A key is the provider's id; one that
starts with `body:` stands for bytes that hold no event, and names their SHA-256. The hash is the first
half of the SHA-256 of what PostgreSQL must print for the payload. Status 0 is unknown: the connection
broke, or nobody answered in time. An attempt without an outcome is unknown too."""

import asyncio
import collections
import os
import time

HASH_DIGITS = 32
QUARANTINED = "body:"

Answer = collections.namedtuple("Answer", "time_us status captured duplicates orphans quarantined spooled")
Attempt = collections.namedtuple("Attempt", "number time_us source scope keys")  # keys: [(id, hash), …]


def now_us():
    return time.monotonic_ns() // 1000


class Writer:
    """Appends records; attempts of one moment share one fdatasync."""

    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.pending, self.group, self.flusher, self.number = [], None, None, 0
        self.slowest_ms = 0  # write: a disk that stalls must not look like a gateway that does

    def _put(self, line):
        self.pending.append(line)
        if self.group is None:
            self.group = asyncio.get_running_loop().create_future()
        if self.flusher is None:
            self.flusher = asyncio.get_running_loop().create_task(self._flush())
        return self.group

    async def _flush(self):
        loop = asyncio.get_running_loop()
        while self.pending:
            lines, group = self.pending, self.group
            self.pending, self.group = [], None
            await loop.run_in_executor(None, self._write, "".join(lines).encode())
            group.set_result(None)
        self.flusher = None

    def _write(self, data):
        began_us = now_us()
        while data:
            data = data[os.write(self.file, data):]
        os.fdatasync(self.file)
        self.slowest_ms = max(self.slowest_ms, (now_us() - began_us) // 1000)

    async def attempt(self, source, scope, keys):
        """The number of a new attempt, which is on disk by then."""
        self.number += 1
        number = self.number
        pairs = ",".join(f"{key}={digest}" for key, digest in keys)
        await asyncio.shield(self._put(f"A\t{number}\t{now_us()}\t{source}\t{scope}\t{pairs}\n"))
        return number

    def outcome(self, number, answer):
        self._put("\t".join(map(str, ("O", number, *answer))) + "\n")

    async def close(self):
        while self.flusher is not None:
            await asyncio.shield(self.flusher)
        os.close(self.file)


def read(path):
    """[(Attempt, Answer or None), …] of one client's log, in its order."""
    attempts, answers = [], {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if fields[0] == "A":
                pairs = [tuple(pair.rsplit("=", 1)) for pair in fields[5].split(",") if pair]
                attempts.append(Attempt(int(fields[1]), int(fields[2]), fields[3], fields[4], pairs))
            else:
                answers[int(fields[1])] = Answer(*map(int, fields[2:]))
    return [(attempt, answers.get(attempt.number)) for attempt in attempts]
