"""Requests signed as the providers do, in Python and the openssl program: a second opinion on the
gateway's own verification and signing, sharing no code with them."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import tempfile
import time
import uuid


class Source:
    """A source of the configuration and the client's half of its secret. sign(body, now) gives the
    headers of a delivery; `config` is its entry under `sources:`."""

    provider = None

    def __init__(self, name=None, **config):
        self.name = name or self.provider
        self.config = {"name": self.name, "provider": self.provider,
                       "map": {"enrollment_id": "/enrollment_id", "instance_id": "/instance_id"}, **config}

    def sign(self, body, now=None):
        raise NotImplementedError

    def event(self, event_id=None, event_type="opened", **fields):
        """An event in the provider's own form, as a dict: serialise it with encode()."""
        raise NotImplementedError

    def encode(self, *events):
        """The body of a delivery with these events."""
        return json.dumps(events[0] if len(events) == 1 else list(events)).encode()


class Hmac(Source):
    """`provider: hmac` with its recipe in the source: id, type and time are /id, /type, /time."""

    provider = "hmac"

    def __init__(self, name=None, **config):
        self.secret = os.urandom(24).hex()
        super().__init__(name, **{"secrets": [self.secret], "header": "X-Signature", "algorithm": "sha256",
                                  "encoding": "hex", "event_id": "/id", "event_type": "/type",
                                  "occurred_at": "/time", **config})

    def sign(self, body, now=None):
        return {"X-Signature": hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest(),
                "Content-Type": "application/json"}

    def event(self, event_id=None, event_type="opened", **fields):
        return {"id": event_id or str(uuid.uuid4()), "type": event_type, "time": int(time.time()), **fields}


class GitHub(Source):
    """X-Hub-Signature-256 over the body; the id is the header X-GitHub-Delivery."""

    provider = "github"

    def __init__(self, name=None, **config):
        self.secret = os.urandom(24).hex()
        super().__init__(name, secrets=[self.secret], **config)

    def sign(self, body, now=None, delivery=None, event="push"):
        digest = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        return {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": event,
                "X-GitHub-Delivery": delivery or str(uuid.uuid4()), "Content-Type": "application/json"}

    def event(self, event_id=None, event_type="opened", **fields):
        return {"action": event_type, **fields}


class Stripe(Source):
    """Stripe-Signature: t=UNIX,v1=HEX over "t.body"."""

    provider = "stripe"

    def __init__(self, name=None, **config):
        self.secret = "whsec_" + os.urandom(24).hex()
        super().__init__(name, secrets=[self.secret], **config)

    def sign(self, body, now=None):
        stamp = str(int(time.time() if now is None else now))
        digest = hmac.new(self.secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        return {"Stripe-Signature": f"t={stamp},v1={digest}", "Content-Type": "application/json"}

    def event(self, event_id=None, event_type="invoice.paid", **fields):
        return {"id": event_id or "evt_" + uuid.uuid4().hex, "object": "event", "type": event_type,
                "created": int(time.time()), **fields}


class SendGrid(Source):
    """ECDSA P-256 over timestamp + body; the body is an array of events."""

    provider = "sendgrid"

    def __init__(self, name=None, **config):
        self.private = openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout")
        public = openssl("pkey", "-pubout", "-outform", "DER", stdin=self.private)
        super().__init__(name, secrets=[base64.b64encode(public).decode()], **config)

    def sign(self, body, now=None):
        stamp = str(int(time.time() if now is None else now))
        with tempfile.NamedTemporaryFile() as key:
            key.write(self.private)
            key.flush()
            signature = openssl("dgst", "-sha256", "-sign", key.name, stdin=stamp.encode() + body)
        return {"X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
                "X-Twilio-Email-Event-Webhook-Timestamp": stamp, "Content-Type": "application/json"}

    def event(self, event_id=None, event_type="open", **fields):
        return {"sg_event_id": event_id or base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("="),
                "sg_message_id": uuid.uuid4().hex, "email": "someone@example.com", "event": event_type,
                "timestamp": int(time.time()), **fields}

    def encode(self, *events):
        return json.dumps(list(events)).encode()


def openssl(*arguments, stdin=b""):
    done = subprocess.run(["openssl", *arguments], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def self_signed(directory):
    """A certificate for localhost and 127.0.0.1: (certificate path, key path)."""
    certificate, key = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-out", certificate, "-keyout", key)
    return certificate, key
