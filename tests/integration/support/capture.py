"""capture_v1 by plain SQL: what a gateway sends, without the gateway."""

import contextlib
import itertools
import uuid

import psycopg2
from psycopg2.extras import Json

COUNTED = ["sent", "delivered", "opened", "clicked", "replied", "bounced", "unsubscribed", "completed"]
TYPES = COUNTED + ["complained", "failed", "connected", "viewed", "other"]

# Argument of capture_v1 -> its array's type, in the function's order.
ARGUMENTS = {"source": "text", "provider": "text", "id": "text", "scope": "text", "grade": "text",
             "type": "text", "provider_type": "text", "channel": "text", "enrollment": "uuid",
             "instance": "uuid", "at": "timestamptz", "delivery": "uuid", "payload": "jsonb", "bytes": "bytea"}
CALL = "capture_v1(" + ", ".join(f"%s::{kind}[]" for kind in ARGUMENTS.values()) + ")"

serial = itertools.count(1)


def event(**changes):
    """One event with a key of its own, that names nobody."""
    return {"source": "test", "provider": "hmac", "id": f"evt_{next(serial)}_{uuid.uuid4()}",
            "scope": "source:test", "grade": "id", "type": "delivered", "provider_type": "email.delivered",
            "channel": "email", "enrollment": None, "instance": None, "at": "2024-05-01T12:00:00Z",
            "delivery": str(uuid.uuid4()), "payload": {"k": 1}, "bytes": None, **changes}


def arrays(events):
    """The events as the arguments of CALL."""
    columns = [[one[name] for one in events] for name in ARGUMENTS]
    place = list(ARGUMENTS).index("payload")
    columns[place] = [None if value is None else Json(value) for value in columns[place]]
    return columns


def call(cursor, *events, schema="public", function="capture_v1"):
    """Captures on a cursor, in its transaction; the letters."""
    cursor.execute(f'SELECT "{schema}".{CALL.replace("capture_v1", function)}', arrays(events))
    return cursor.fetchone()[0]


def connect(url):
    """A connection of its own, autocommit; the caller closes it."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    return connection


def capture(url, *events, schema="public"):
    """Captures in one transaction on a new connection; the letters."""
    with contextlib.closing(connect(url)) as connection, connection.cursor() as cursor:
        return call(cursor, *events, schema=schema)
