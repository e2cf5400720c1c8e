"""Retries after an outage, in the gateway itself: a provider that sends the very request of an hour ago again is
believed, one that signs each try anew has to, and whatever comes twice counts once. Every recipe's own schedule is
played in tests/unit/test_retries.c, where the clock is an argument."""

import hashlib
import hmac
import json
import time

import pytest

from support.sign import Source, Stripe

HOUR = 3600


class Stamped(Source):
    """HMAC of "v0:TIME:body" under two headers: Slack, Zoom."""

    def __init__(self, provider, signature, stamp, **config):
        self.provider, self.signature, self.stamp, self.secret = provider, signature, stamp, "s3cret-of-the-tests"
        super().__init__(provider, secrets=[self.secret], **config)

    def sign(self, body, now=None):
        stamp = str(int(time.time() if now is None else now))
        digest = hmac.new(self.secret.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
        return {self.signature: f"v0={digest}", self.stamp: stamp, "Content-Type": "application/json"}


@pytest.fixture(name="sources")
def sources_fixture():
    return [Stamped("slack", "X-Slack-Signature", "X-Slack-Request-Timestamp"),
            Stamped("zoom", "X-Zm-Signature", "X-Zm-Request-Timestamp"), Stripe()]


def bodies():
    return {"slack": json.dumps({"type": "event_callback", "event_id": "Ev1", "event": {"type": "message"}}),
            "zoom": json.dumps({"event": "meeting.ended", "event_ts": 1, "payload": {"object": {"uuid": "u"}}})}


def test_the_request_of_an_hour_ago_is_taken_once_from_who_sends_it_again(gateway, database):
    for source, body in bodies().items():
        old = gateway.sources[source].sign(body.encode(), time.time() - HOUR + 60)
        answers = [gateway.post(source, body.encode(), old) for _ in range(3)]
        assert [a.status for a in answers] == [200, 200, 200], (source, answers[0])
        counts = [a.json for a in answers]
        assert [c["captured"] for c in counts] == [1, 0, 0] and [c["duplicates"] for c in counts] == [0, 1, 1]
        fresh = gateway.post(source, body.encode(), gateway.sources[source].sign(body.encode()))
        assert fresh.json["duplicates"] == 1  # signed anew it is the same event
        ancient = gateway.sources[source].sign(body.encode(), time.time() - 8 * 86400)
        assert gateway.post(source, body.encode(), ancient).status == 401
    assert database.value("SELECT count(*) FROM campaign_events") == 2
    assert gateway.metric("oncehook_rejects_total", source="zoom", reason="stale") == 1


def test_who_signs_every_try_anew_has_to(gateway, database):
    stripe = gateway.sources["stripe"]
    body = stripe.encode(stripe.event())
    old = gateway.post("stripe", body, stripe.sign(body, time.time() - HOUR))
    assert old.status == 401
    assert gateway.post("stripe", body, stripe.sign(body)).json["captured"] == 1
    assert gateway.post("stripe", body, stripe.sign(body, time.time() - 200)).json["duplicates"] == 1
    assert database.value("SELECT count(*) FROM campaign_events") == 1
