"""All that runs during a measurement, and one measurement at a time."""

import base64
import json
import os
import re
import time

from . import peers
from .base import ROOT, Failed, Server, output, say
from .postgres import Postgres, check_against_database
from .rows import LATER, ROWS

PEER_WARMUP = 4  # seconds at least: a JIT compiler needs them


def release(build):
    """Builds the release and returns its directory; `build` names one that is built already."""
    if build:
        return os.path.abspath(build)
    say("building the release", stays=False)
    made = os.path.join(ROOT, "build", "release")
    output("cmake", "--preset", "release", "-DONCEHOOK_BENCH=ON", cwd=ROOT)
    output("cmake", "--build", "--preset", "release", cwd=ROOT)
    return made


def commit():
    try:
        return output("git", "describe", "--always", "--dirty", cwd=ROOT).strip()
    except (Failed, OSError):
        return "unknown"


def make_certificate(directory):
    certificate, key = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
    output("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
           "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
           "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    return certificate, key


def sendgrid_source(directory):
    """A source whose deliveries are signed by ECDSA; the private half is where bench/load looks for it."""
    private, public = os.path.join(directory, "keys", "sendgrid.pem"), os.path.join(directory, "keys", "public.der")
    os.mkdir(os.path.dirname(private), 0o700)
    output("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", private)
    output("openssl", "pkey", "-in", private, "-pubout", "-outform", "DER", "-out", public)
    with open(public, "rb") as file:
        return {"name": "sendgrid", "provider": "sendgrid", "secrets": [base64.b64encode(file.read()).decode()],
                "map": {"enrollment_id": "/enrollment_id", "instance_id": "/instance_id"}}


def write_config(directory, certificate, key, database_url, *, name="oncehook.yaml", more_sources=(), **more):
    """The gateway's configuration, tuning left as it is by default. JSON is YAML."""
    config = {
        "listen": {"https": "127.0.0.1:0", "http": "127.0.0.1:0",
                   "tls": {"certificate": certificate, "key": key}},
        "admin": {"listen": "127.0.0.1:0"},
        "database": {"url": database_url},
        "sources": [{"name": "bench", "provider": "hmac", "header": "x-signature",
                     "secrets": [os.urandom(16).hex()], "event_id": "/id", "event_type": "/type",
                     "occurred_at": "/occurred_at",
                     "map": {"enrollment_id": "/enrollment_id", "instance_id": "/instance_id"}}, *more_sources],
        **more}
    path = os.path.join(directory, name)
    with open(path, "w", encoding="utf-8", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
        json.dump(config, file, indent=1)
    return path


def secret_of(config):
    with open(config, encoding="utf-8") as file:
        return json.load(file)["sources"][0]["secrets"][0]


def rss_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024


class Bench:
    """The servers, and measure()."""

    def __init__(self, options, directory):
        self.options, self.directory, self.servers, self.rss_idle = options, directory, [], None
        self.commit = commit()  # of what is built now: the tree may change meanwhile
        self.build = release(options.build)
        self.oncehook = os.path.join(self.build, "oncehook")
        self.peers = peers.install() if any(ROWS[name].server == "peer" for name in options.rows) else None
        self.certificate, self.key = make_certificate(directory)
        say("starting PostgreSQL and filling in campaigns", stays=False)
        self.postgres = Postgres(os.path.join(directory, "pg"))

    def start(self):
        self.postgres.start()
        self.postgres.fill(self.oncehook, old_wal=self.options.seconds >= 1)
        self.config = self.write_config("oncehook.yaml", more_sources=[sendgrid_source(self.directory)])
        kinds = {ROWS[name].server for name in self.options.rows}
        if "noop" in kinds:
            self.noop = self.start_server([os.path.join(self.build, "bench", "noop"), "--http", "127.0.0.1:0",
                                           "--https", "127.0.0.1:0", "--certificate", self.certificate,
                                           "--key", self.key])
        if "gateway" in kinds:
            self.gateway = self.start_gateway(self.config)
            time.sleep(1)
            self.rss_idle = rss_mib(self.gateway.pid)
        if self.peers and "peer_seed" in self.options.rows:
            self.postgres.fill_seed()
            self.seed_config = self.write_config("seed.yaml", database="seed")

    def write_config(self, name, database="bench", **more):
        return write_config(self.directory, self.certificate, self.key,
                            self.postgres.url("oncehook_gateway", database), name=name, **more)

    def start_gateway(self, config):
        return self.start_server([self.oncehook, "serve", "-c", config])

    def start_server(self, argv, env=None):
        server = Server(argv, os.path.join(self.directory, os.path.basename(argv[0]) + ".log"), env=env)
        self.servers.append(server)
        said = " ".join(server.lines_until_ready())
        # `listening https=PORT http=PORT …` of the gateway and of peers, `http PORT` of noop
        server.ports = {name: int(port) for name, port in re.findall(r"\b(https?)[= ](\d+)", said)}
        return server

    def stop_server(self, server):
        server.check_alive()
        server.stop()
        self.servers.remove(server)

    def stop(self):
        for server in self.servers:
            server.stop()
        self.postgres.stop()

    def load(self, name, server, listener, *arguments, config=None):
        """bench/load against a server of ours: the object that it wrote."""
        return self.client("load", name, "-c", config or self.config,
                           "--url", f"{listener}://127.0.0.1:{server.ports[listener]}", "--ca", self.certificate,
                           "--watch", f"gateway={server.pid}", *arguments)

    def client(self, program, name, *arguments):
        target = os.path.join(self.directory, "result.json")
        try:
            output(os.path.join(self.build, "bench", program), "--source", "bench", "--name", name, "--json", target,
                   *arguments, cwd="/")
        finally:
            for server in self.servers:
                server.check_alive()
        with open(target, encoding="utf-8") as file:
            return json.load(file)["results"][0]

    def measure(self, name, how=("--max",), empty=True):
        """One run of one row."""
        row = ROWS.get(name) or LATER[name]
        database = "seed" if name == "peer_seed" else "bench"
        config = self.seed_config if name == "peer_seed" else self.config
        arguments = ["--seconds", self.options.seconds, "--warmup", self.options.warmup]
        if row.server == "noop":
            return self.load(name, self.noop, row.listener, *how, *self.connections(), *row.extra, *arguments)
        if empty:
            self.postgres.empty(database)
        watch = ["--watch", f"postgres={self.postgres.server.pid}"]
        server = self.gateway if row.server == "gateway" else None
        if row.server == "peer":
            server = self.start_server(*peers.command(self, name, secret_of(config), database))
            if self.options.seconds >= PEER_WARMUP:
                arguments[-1] = max(PEER_WARMUP, self.options.warmup)
            arguments += ["--timeout", 60]  # what is slow is slow, and not lost
        before = self.postgres.counted(database)
        if row.server == "direct":
            result = self.client("pg_direct", name, "-c", config, *watch, *arguments, *row.extra)
        else:
            result = self.load(name, server, row.listener, *how, *self.connections(), *watch, *arguments,
                               *row.extra, config=config)
        grown = check_against_database(name, row.writes, result["totals"], before, self.postgres.counted(database))
        others = {status: number for status, number in result["totals"].get("statuses", {}).items() if status != "200"}
        if others:
            say(f"{name}: answers other than 200: {others}")
        if not result["totals"]["duplicates"]:
            for what in ("wal", "disk"):
                result[f"{what}_bytes_per_event"] = round(grown[f"{what}_bytes"] / result["totals"]["captured"], 1)
        if row.server == "peer":
            self.stop_server(server)
        return result

    def connections(self):
        return ["--connections", self.options.connections]
