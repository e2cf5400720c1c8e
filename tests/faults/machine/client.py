"""The load client, a process of its own: client.py, its settings as one JSON line on stdin.

It speaks HTTP over kept-alive connections, signs as the providers do, repeats deliveries while they are
under way and later, tries again what was not acknowledged, and writes each attempt to its journal before
it sends a byte of it. Commands come as further JSON lines on stdin, reports go to stdout likewise."""

import asyncio
import collections
import contextlib
import heapq
import itertools
import json
import os
import random
import ssl
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from machine import journal, traffic  # noqa: E402

ANSWER_TIMEOUT_S = 8
RETRIES_WAITING_MAX = 2000
REMEMBERED = 100_000  # acknowledged deliveries that may be sent again


class Connection:
    """One kept-alive connection; opened again when it broke."""

    def __init__(self, endpoints, rng, tls=None):
        self.endpoints, self.random, self.tls = endpoints, rng, tls
        self.reader = self.writer = None

    async def open(self):
        host, port = self.random.choice(self.endpoints)
        self.reader, self.writer = await asyncio.wait_for(asyncio.open_connection(host, port, ssl=self.tls), 3)

    def close(self):
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def post(self, source, headers, body):
        """(status, retry_after given, body); raises when the connection breaks or nobody answers."""
        self.writer.write(f"POST /in/{source} HTTP/1.1\r\nHost: faults\r\nContent-Type: application/json\r\n"
                          f"{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        lines = head.split("\r\n")
        fields = dict(line.split(":", 1) for line in lines[1:] if ":" in line)
        text = await self.reader.readexactly(int(fields.get("content-length", 0)))
        if fields.get("connection", "").strip() == "close":
            self.close()
        return int(lines[0].split()[1]), "retry-after" in fields, text


class Client:
    def __init__(self, settings):
        self.settings = settings
        self.random = random.Random(settings["seed"])
        self.maker = traffic.Maker(settings["seed"] + ":events", settings["prefix"], settings["secrets"],
                                   settings["campaign"])
        self.journal = journal.Writer(settings["journal"])
        self.expected = {tuple(pair) for pair in settings["expected"]}
        self.endpoints = [tuple(pair) for pair in settings["endpoints"]]
        # The tests' own certificate, of which nobody knows who signed it.
        self.tls = ssl._create_unverified_context() if settings["tls"] else None  # pylint: disable=protected-access
        self.retries, self.order = [], itertools.count()
        self.under_way = {}
        self.acked = collections.deque(maxlen=REMEMBERED)  # (when, delivery)
        self.stats = collections.Counter()
        self.odd = collections.Counter()  # answers that should not be
        self.watching, self.watching_after = None, 0  # which status, of attempts after which
        self.ending, self.stopping = False, False
        self.next_slot = 0.0

    def say(self, **fields):
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()

    # ---- what to send

    def choose(self, now):
        if self.retries and (self.retries[0][0] <= now or len(self.retries) > RETRIES_WAITING_MAX):
            return heapq.heappop(self.retries)[2]
        if self.ending:
            return None
        dice = self.random.random()
        if dice < 0.12 and self.under_way:
            return self.random.choice(list(self.under_way.values()))
        if dice < 0.30 and self.acked:
            return self.acked[-1 - self.random.randrange(min(len(self.acked), 3000))][1]
        return self.maker.delivery()

    def again(self, delivery):
        """Providers try again, a little later each time; now and then one gives up, but never on what
        somebody sends again because it was lost."""
        if self.stopping or (not delivery.is_recovered and self.random.random() < 0.02):
            self.stats["given_up"] += 1
            return
        delivery.tries += 1
        pause = min(0.3, 0.01 * 2 ** min(delivery.tries, 5)) * self.random.uniform(0.5, 1.5)
        heapq.heappush(self.retries, (asyncio.get_running_loop().time() + pause, next(self.order), delivery))

    # ---- one attempt

    async def attempt(self, connection, delivery):
        loop = asyncio.get_running_loop()
        if connection.writer is None or connection.writer.is_closing():
            try:
                await connection.open()
            except (OSError, asyncio.TimeoutError):
                connection.close()
                self.stats["refused"] += 1
                self.again(delivery)  # nothing was sent, so nothing is written down
                await asyncio.sleep(self.random.uniform(0.005, 0.03))
                return
        source, headers = self.maker.sign(delivery)
        number = await self.journal.attempt(source, delivery.scope, delivery.keys)
        self.under_way[number] = delivery
        try:
            status, retry_after, body = await asyncio.wait_for(
                connection.post(source, headers, delivery.body), ANSWER_TIMEOUT_S)
        except (OSError, EOFError, asyncio.TimeoutError, asyncio.LimitOverrunError, ValueError, IndexError):
            connection.close()
            status, retry_after, body = 0, True, b""
        del self.under_way[number]
        if self.random.random() < 0.02:
            connection.close()  # not every provider keeps a connection for ever
        self.note(number, delivery, status, retry_after, body, loop.time())
        if status not in (200, 202):
            self.again(delivery)

    def note(self, number, delivery, status, retry_after, body, now):
        counts = [0] * 5
        if status in (200, 202):
            try:
                answer = json.loads(body)
                counts = [int(answer[name]) for name in
                          ("captured", "duplicates", "orphans", "quarantined", "spooled")]
            except (ValueError, KeyError, TypeError):
                self.note_odd(f"{status} with the body {body[:200]!r}")
        elif status not in (0, 503) and (status, delivery.source) not in self.expected:
            self.note_odd(f"status {status} with the body {body[:200]!r}")
        if not retry_after and status == 503:
            self.note_odd("503 without Retry-After")
        when = journal.now_us()
        self.journal.outcome(number, journal.Answer(when, status, *counts))
        self.stats[str(status)] += 1
        self.stats["attempts"] += 1
        if status in (200, 202):
            self.stats["acked_events"] += len(delivery.keys)
            self.acked.append((now, delivery))
            # An answer to what was sent before may be that of the server that was lost since.
            if (self.watching is not None and number > self.watching_after and status == self.watching
                    and (counts[0] or status == 202)):
                self.say(first_us=when)
                self.watching = None

    def note_odd(self, what):
        self.odd[what] += 1

    # ---- the loops

    async def work(self):
        loop, connection = asyncio.get_running_loop(), Connection(self.endpoints, self.random, self.tls)
        gap = 1 / self.settings["deliveries_per_second"]
        while not self.stopping:
            now = loop.time()
            self.next_slot = max(self.next_slot + gap, now - 0.05)
            if self.next_slot > now:
                await asyncio.sleep(self.next_slot - now)
            delivery = self.choose(loop.time())
            if delivery is None:
                await asyncio.sleep(0.01)
            else:
                await self.attempt(connection, delivery)
        connection.close()

    async def report(self):
        while True:
            self.say(t_us=journal.now_us(), slowest_log_ms=self.journal.slowest_ms, **self.stats)
            await asyncio.sleep(0.1)

    async def storm(self, connections):
        """One delivery from so many connections to each endpoint at once; then what each was told."""
        delivery = self.maker.delivery_of_new()
        opened = [Connection([endpoint], self.random) for endpoint in self.endpoints for _ in range(connections)]
        results = collections.Counter()

        async def one(connection):
            for _ in range(50):  # as a provider: until it is acknowledged
                try:
                    if connection.writer is None:
                        await connection.open()
                    source, headers = self.maker.sign(delivery)
                    number = await self.journal.attempt(source, delivery.scope, delivery.keys)
                    status, retry_after, body = await asyncio.wait_for(
                        connection.post(source, headers, delivery.body), 3 * ANSWER_TIMEOUT_S)
                except (OSError, EOFError, asyncio.TimeoutError, ValueError, IndexError):
                    connection.close()
                    results["0"] += 1
                    await asyncio.sleep(self.random.uniform(0.05, 0.3))
                    continue
                self.note(number, delivery, status, retry_after, body, asyncio.get_running_loop().time())
                results[str(status)] += 1
                if status == 200:
                    results["captured"] += json.loads(body).get("captured", 0)
                if status in (200, 202):
                    break
                await asyncio.sleep(self.random.uniform(0.05, 0.3))
            connection.close()

        for connection in opened:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await connection.open()
        await asyncio.gather(*map(one, opened))
        self.say(storm={"connections": len(opened), "events": len({key for key, _ in delivery.keys}), **results})

    def redeliver(self, seconds):
        """The provider sends again what was acknowledged lately, as by hand after a failover."""
        loop = asyncio.get_running_loop()
        since = loop.time() - seconds
        lately = {id(delivery): delivery for when, delivery in self.acked if when >= since}
        for delivery in lately.values():
            delivery.is_recovered = True
            heapq.heappush(self.retries, (loop.time(), next(self.order), delivery))
        self.say(redelivering=len(lately))

    async def finish(self, workers, retry_s):
        """No new deliveries; what waits for another try gets it, for so long."""
        loop = asyncio.get_running_loop()
        deadline, self.ending = loop.time() + retry_s, True
        while self.retries and loop.time() < deadline:
            await asyncio.sleep(0.05)
        self.stopping = True
        await asyncio.gather(*workers)
        await self.journal.close()
        self.say(done=True, retries_left=len(self.retries), odd=[f"{count} answers: {what}" for what, count in self.odd.most_common(5)])

    async def run(self, commands):
        workers = [asyncio.create_task(self.work()) for _ in range(self.settings["connections"])]
        reporter = asyncio.create_task(self.report())
        tasks = []
        while True:
            line = await commands.readline()
            command = json.loads(line) if line else {"do": "finish", "retry_s": 0}
            if command["do"] == "watch":
                self.watching, self.watching_after = command["status"], self.journal.number
            elif command["do"] == "storm":
                tasks.append(asyncio.create_task(self.storm(command["connections"])))
            elif command["do"] == "redeliver":
                self.redeliver(command["seconds"])
            elif command["do"] == "finish":
                await asyncio.gather(*tasks)
                reporter.cancel()
                await self.finish(workers, command["retry_s"])
                return


async def main():
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    settings = json.loads(await commands.readline())
    await Client(settings).run(commands)


if __name__ == "__main__":
    asyncio.run(main())
