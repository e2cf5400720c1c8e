"""A TCP proxy that misbehaves on demand: proxy.py PORT TARGET_PORT …, commands as JSON lines on stdin.

  {"do": "pass"}            forwards; what was held back goes on
  {"do": "delay", "ms": N}  forwards each piece N ms late
  {"do": "stall"}           reads and forwards nothing, keeps all connections, accepts new ones
  {"do": "cut"}             resets every connection, both sides, wherever they are; takes new ones
  {"do": "refuse"}          like cut, and resets new ones at once
  {"do": "half_open"}       the target's side is reset, the client's side hears nothing any more; new
                            connections are accepted and hear nothing either
  {"do": "lose_answers"}    what the client says still arrives, what it should hear is thrown away
Each command is answered with a line once it holds. Several pairs of ports may be given."""

import asyncio
import json
import socket
import struct
import sys

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close() sends RST


class Pair:
    """One connection through the proxy."""

    def __init__(self, proxy, client):
        self.proxy, self.client, self.target = proxy, client, None

    @staticmethod
    def reset(writer):
        if writer is None:
            return
        raw = writer.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()

    def cut(self):
        self.reset(self.client)
        self.reset(self.target)

    async def pump(self, reader, writer, is_answer):
        proxy = self.proxy
        try:
            while data := await reader.read(65536):
                await proxy.flowing.wait()
                if proxy.mode == "delay":
                    await asyncio.sleep(proxy.delay_s)
                if proxy.mode == "half_open" or (proxy.mode == "lose_answers" and is_answer):
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        if proxy.mode != "half_open":
            self.cut()


class Proxy:
    def __init__(self):
        self.mode, self.delay_s, self.pairs = "pass", 0.0, set()
        self.flowing = asyncio.Event()
        self.flowing.set()

    def serve(self, target_port):
        async def accept(reader, writer):
            pair = Pair(self, writer)
            self.pairs.add(pair)
            try:
                if self.mode == "refuse":
                    return
                while self.mode == "half_open":
                    await asyncio.sleep(0.02)
                    if writer.is_closing():
                        return
                await self.flowing.wait()
                back, pair.target = await asyncio.open_connection("127.0.0.1", target_port)
                await asyncio.gather(pair.pump(reader, pair.target, False), pair.pump(back, writer, True))
            except OSError:
                pass
            finally:
                pair.cut()
                self.pairs.discard(pair)
        return accept

    def command(self, command):
        before, self.mode = self.mode, command["do"]
        self.delay_s = command.get("ms", 0) / 1000
        if self.mode == "cut" or (before in ("half_open", "lose_answers") and self.mode == "pass"):
            for pair in list(self.pairs):
                pair.cut()
            self.mode = "pass"
        elif self.mode == "refuse":
            for pair in list(self.pairs):
                pair.cut()
        elif self.mode == "half_open":
            for pair in self.pairs:
                pair.reset(pair.target)
        if self.mode == "stall":
            self.flowing.clear()
        else:
            self.flowing.set()


async def main():
    proxy, loop = Proxy(), asyncio.get_running_loop()
    ports = list(map(int, sys.argv[1:]))
    for port, target in zip(ports[::2], ports[1::2]):
        await asyncio.start_server(proxy.serve(target), "127.0.0.1", port, backlog=2048)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print("{}", flush=True)
    while line := await commands.readline():
        proxy.command(json.loads(line))
        print("{}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
