"""What the client sends: events, deliveries and signatures, made without any code of the gateway's."""

import hashlib
import hmac
import json
import random
import time
import uuid

from machine.journal import HASH_DIGITS, QUARANTINED

# (name, provider, scope of its ids, share of the deliveries). The two shops are doors to one account.
SOURCES = [
    ("mail", "hmac", "source:mail", 60),
    ("shop-eu", "hmac", "name:shop", 12),
    ("shop-us", "hmac", "name:shop", 12),
    ("stripe", "stripe", "provider:stripe", 8),
    ("github", "github", "provider:github", 8),
]
SCOPES = {name: scope for name, _, scope, _ in SOURCES}
PROVIDERS = {name: provider for name, provider, _, _ in SOURCES}
DOORS = {"shop-eu": ["shop-eu", "shop-us"], "shop-us": ["shop-eu", "shop-us"]}
TYPES = ("sent delivered opened clicked replied bounced unsubscribed completed complained "
         "viewed other").split()


def configuration(secrets):
    """The gateway's `sources:`; secrets: {name: text}."""
    made = []
    for name, provider, scope, _ in SOURCES:
        source = {"name": name, "provider": provider, "secrets": [secrets[name]]}
        if provider == "hmac":
            source.update(header="X-Signature", algorithm="sha256", encoding="hex", event_id="/id",
                          event_type="/type", map={"enrollment_id": "/enrollment_id",
                                                   "instance_id": "/instance_id"})
        if scope.startswith("name:"):
            source["dedup_scope"] = scope.removeprefix("name:")
        made.append(source)
    return made


def jsonb_text(value):
    """How PostgreSQL prints a jsonb: keys by length, then bytes; `: ` and `, ` between."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return "{" + ", ".join(f"{jsonb_text(key)}: {jsonb_text(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(jsonb_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def digest(data):
    return hashlib.sha256(data).hexdigest()[:HASH_DIGITS]


class Event:
    """One event: its id, its bytes as sent, and the hash of what must be stored."""

    __slots__ = ("key", "raw", "hash")

    def __init__(self, key, value):
        self.key, self.raw = key, json.dumps(value, separators=(",", ":"))
        stored_as_sent = "\\u0000" in self.raw  # jsonb cannot hold it
        self.hash = digest((self.raw if stored_as_sent else jsonb_text(value)).encode())


class Delivery:
    """What one request carries. It may be sent again, at any of its doors."""

    __slots__ = ("source", "body", "keys", "tries", "is_recovered")

    def __init__(self, source, body, keys):
        self.source, self.body, self.keys, self.tries, self.is_recovered = source, body, keys, 0, False

    @property
    def scope(self):
        return SCOPES[self.source]


class Maker:
    """Deliveries from a seed. campaign: {"known": [enrollment …], "late": […], "instances": […],
    "named": whether events name any of them}."""

    def __init__(self, seed, prefix, secrets, campaign):
        self.random, self.prefix, self.secrets, self.campaign = random.Random(seed), prefix, secrets, campaign
        self.serial = 0
        self.names = [name for name, *_ in SOURCES]
        self.weights = [weight for *_, weight in SOURCES]
        self.lately = {name: [] for name in self.names}  # events that another delivery may repeat

    def key(self):
        self.serial += 1
        return f"{self.prefix}-{self.serial}"

    def owner(self):
        """Whom an event names: mostly a known enrollment; nobody where the round has no campaigns."""
        if not self.campaign["named"]:
            return {}
        dice = self.random.random()
        if dice < 0.70:
            return {"enrollment_id": self.random.choice(self.campaign["known"])}
        if dice < 0.80:
            return {"instance_id": self.random.choice(self.campaign["instances"])}
        if dice < 0.88:
            return {"enrollment_id": self.random.choice(self.campaign["late"]),
                    "instance_id": self.random.choice(self.campaign["instances"])}  # a claim, not used
        if dice < 0.94:
            return {"enrollment_id": str(uuid.UUID(int=self.random.getrandbits(128)))}
        return {}

    def event(self):
        value = {"id": self.key(), "type": self.random.choice(TYPES), **self.owner(),
                 "text": "é" * self.random.randrange(3) + "x" * self.random.randrange(200),
                 "n": self.random.randrange(1 << 40)}
        if self.random.random() < 0.01:
            value["text"] += "\0"
        return Event(value["id"], value)

    def delivery(self):
        source = self.random.choices(self.names, self.weights)[0]
        kind = PROVIDERS[source]
        if kind == "stripe":
            value = {"id": self.key(), "object": "event", "type": "invoice.paid", "created": int(time.time()),
                     "data": {"object": {"metadata": self.owner()}}}
            event = Event(value["id"], value)
            return Delivery(source, event.raw.encode(), [(event.key, event.hash)])
        if kind == "github":
            value = {"action": "opened", "number": self.random.randrange(1 << 30)}
            event = Event(self.key(), value)
            return Delivery(source, event.raw.encode(), [(event.key, event.hash)])
        if self.random.random() < 0.005:
            body = f"no event at all: {self.key()}".encode()
            return Delivery(source, body, [(QUARANTINED + hashlib.sha256(body).hexdigest(), digest(body))])
        events = [self.event() for _ in range(self.random.choice((1, 1, 2, 3, 5, 8)))]
        if len(events) > 1 and self.random.random() < 0.05:
            events.append(self.random.choice(events))
        pool = self.lately[DOORS.get(source, [source])[0]]
        if len(events) > 1 and pool and self.random.random() < 0.2:
            events.append(self.random.choice(pool))
        pool.append(events[0])
        del pool[:-200]
        raw = [event.raw for event in events]
        body = raw[0] if len(raw) == 1 else "[" + ",".join(raw) + "]"
        return Delivery(source, body.encode(), [(event.key, event.hash) for event in events])

    def delivery_of_new(self):
        """One whose events were not sent before, are in it once, and come in no other delivery."""
        while True:
            before = self.serial
            made = self.delivery()
            keys = [key for key, _ in made.keys]
            for pool in self.lately.values():
                pool[:] = [event for event in pool if event.key not in keys]
            if len(set(keys)) == len(keys) == self.serial - before and not keys[0].startswith(QUARANTINED):
                return made

    def sign(self, delivery):
        """(source, headers) of one attempt; its door is chosen anew."""
        source = delivery.source
        if not delivery.keys[0][0].startswith(QUARANTINED):  # bytes without an event have no shared id
            source = self.random.choice(DOORS.get(source, [source]))
        secret, kind = self.secrets[source].encode(), PROVIDERS[source]
        if kind == "stripe":
            stamp = str(int(time.time()))
            made = hmac.new(secret, stamp.encode() + b"." + delivery.body, hashlib.sha256).hexdigest()
            return source, f"Stripe-Signature: t={stamp},v1={made}\r\n"
        made = hmac.new(secret, delivery.body, hashlib.sha256).hexdigest()
        if kind == "github":
            return source, (f"X-Hub-Signature-256: sha256={made}\r\nX-GitHub-Event: push\r\n"
                            f"X-GitHub-Delivery: {delivery.keys[0][0]}\r\n")
        return source, f"X-Signature: {made}\r\n"
