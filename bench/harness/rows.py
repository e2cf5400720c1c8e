"""What is measured and what it should reach, as data. Names are the contract's."""

import collections

Row = collections.namedtuple("Row", "what server listener extra quick writes", defaults=(
    (),     # extra: further options of the client, bench/load or bench/pg_direct
    False,  # quick: a part of --quick
    ("events", "keys", "enrolled", "counted")))  # writes: what of Postgres.counted() has to grow

# About 3,000 events on their way, as many as two lanes can gather while two batches commit: with more the oldest
# wait for longer than queue.age, and what is refused is measured too.
E10 = ("--events-per-delivery", "10", "--connections", "256")
E100 = ("--events-per-delivery", "100", "--connections", "32")
# A handshake for each delivery keeps a core busy for about 0.3 ms: with fewer connections none waits for long.
NEW = ("--new-connections", "--connections", "256")

ROWS = {
    "noop_http": Row("libh2o doing nothing, HTTP", "noop", "http", quick=True),
    "noop_https": Row("libh2o doing nothing, HTTPS kept alive", "noop", "https", quick=True),
    "noop_https_new": Row("libh2o doing nothing, a new connection and TLS handshake for each delivery", "noop",
                          "https", NEW),
    "pg_direct": Row("PostgreSQL fed by capture_v1() in full batches, no HTTP", "direct", None, quick=True),
    "pg_copy": Row("PostgreSQL: the same rows by COPY, no ledger, no counters", "direct", None,
                   ("--feed", "copy"), True, ("events",)),
    "pg_keys": Row("PostgreSQL: the same keys by INSERT into the ledger alone", "direct", None,
                   ("--feed", "keys"), True, ("keys",)),
    "gateway_http_1": Row("oncehook, HTTP, 1 event a delivery", "gateway", "http", quick=True),
    "gateway_https_1": Row("oncehook, HTTPS kept alive, 1 event a delivery", "gateway", "https", quick=True),
    "gateway_https_10": Row("oncehook, HTTPS, 10 events a delivery", "gateway", "https", E10),
    "gateway_https_100": Row("oncehook, HTTPS, 100 events a delivery", "gateway", "https", E100),
    "gateway_https_1_new": Row("oncehook, a new connection and TLS handshake for each delivery", "gateway", "https",
                               NEW),
    "gateway_https_100_ecdsa": Row("oncehook, HTTPS, 100 events a delivery, ECDSA (SendGrid's form)", "gateway",
                                   "https", (*E100, "--source", "sendgrid")),
    "gateway_http_duplicates": Row("oncehook, HTTP, every delivery a repeated one", "gateway", "http",
                                   ("--duplicates", "100")),
    "gateway_http_1_hot": Row("oncehook, HTTP, every event about one instance", "gateway", "http",
                              ("--instances", "1")),
    "peer_seed": Row("Express + Sequelize, as the seed's report has it, on its own tables", "peer", "http",
                     writes=("events", "counted")),
    "peer_fastify": Row("Fastify + postgres.js, one statement a request, on our tables", "peer", "http"),
    "peer_fastify_batch": Row("Fastify + postgres.js, batches made by hand, on our tables", "peer", "http"),
}
PEERS = [name for name, row in ROWS.items() if row.server == "peer"]

# Measured after the others: they need a result of theirs.
HALF, SMALL, LARGE = "gateway_https_1_half", "gateway_https_1_small", "gateway_https_1_large"
LATER = {
    HALF: Row("gateway_https_1 in an open loop, at half the rate of the closed one", "gateway", "https"),
    SMALL: Row("gateway_https_1, by turns with the next one", "gateway", "https"),
    LARGE: Row("gateway_https_1 beside millions of events and keys, for minutes", "gateway", "https"),
}

# name: what it is
RATIOS = {
    "https_of_parts": "CPU an event: (noop_https + PostgreSQL of pg_direct) / all of gateway_https_1",
    "http_of_parts": "the same over HTTP",
    "https_of_parts_rate": "events/s: gateway_https_1 / (1 / (1/noop_https + 1/pg_direct))",
    "http_of_parts_rate": "the same over HTTP",
    "batch100_of_direct": "events/s: gateway_https_100 / pg_direct",
    "direct_of_parts": "events/s: pg_direct / (1 / (1/pg_copy + 1/pg_keys))",
    "new_of_noop": "deliveries/s: gateway_https_1_new / noop_https_new",
    "http_of_best_node": "events/s: gateway_http_1 / the best peer",
    "http_of_seed": "events/s: gateway_http_1 / peer_seed",
    "duplicates_of_fresh": "events/s: gateway_http_duplicates / gateway_http_1",
    "cpu_over_noop_us": "gateway's CPU µs an event in gateway_https_1 beyond libh2o's in noop_https",
    "hot_of_spread": "events/s: gateway_http_1_hot / gateway_http_1",
    "large_of_none": "events/s: gateway_https_1 beside millions of events and keys / with none",
}
# Ratios of two rows' rates that need no more words.
RATE_RATIOS = {
    "batch100_of_direct": ("gateway_https_100", "pg_direct"),
    "new_of_noop": ("gateway_https_1_new", "noop_https_new"),
    "http_of_seed": ("gateway_http_1", "peer_seed"),
    "duplicates_of_fresh": ("gateway_http_duplicates", "gateway_http_1"),
    "hot_of_spread": ("gateway_http_1_hot", "gateway_http_1"),
    "large_of_none": (LARGE, SMALL),
}

# name: what it is
FIGURES = {
    "half_p50_ms": "latency at half the maximum, open loop: p50",
    "half_p99_ms": "p99",
    "half_p999_ms": "p99.9",
    "rss_full_load_mib": "gateway's memory at full load, the most of any row",
    "rss_idle_tls_mib": "gateway's memory with 4,096 idle TLS connections",
    "rss_idle_mib": "gateway's memory one second after its start",
    "start_to_ready_ms": "start to ready with a healthy database, median of 5",
    "disk_bytes_per_event": "disk an event takes: events, ledger, their indexes (gateway_https_1)",
    "wal_bytes_per_event": "WAL an event takes (gateway_https_1)",
}

# The targets of 2 cores shared by PostgreSQL, gateway and load: ratio or figure, and at least (+) or at most (-).
TARGETS = [
    ("https_of_parts", "+", 0.90),
    ("http_of_parts", "+", 0.90),
    ("batch100_of_direct", "+", 0.90),
    ("direct_of_parts", "+", 0.80),
    ("new_of_noop", "+", 0.90),
    ("http_of_best_node", "+", 1.6),
    ("http_of_seed", "+", 30),
    ("duplicates_of_fresh", "+", 2.0),
    ("cpu_over_noop_us", "-", 9),
    ("half_p50_ms", "-", 3),
    ("half_p99_ms", "-", 15),
    ("half_p999_ms", "-", 50),
    ("large_of_none", "+", 0.85),
    ("rss_full_load_mib", "-", 128),
    ("rss_idle_tls_mib", "-", 256),
    ("start_to_ready_ms", "-", 200),
]
