"""The ten providers without recorded requests: what they send is written here a second time, after their
pages and SDKs, and each kind of request that the recorded ones have of other providers is made of it.
Behind them: what other providers send and no recorded request has."""

import base64
import hashlib
import hmac
import json

import pytest

from support import sign
from support.gateway import oncehook

NOW = 1766000000
ISO = "2025-12-17T19:33:20"  # NOW
SECRET = "a secret 0f ours"
HEX_KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0" * 2
BODY = '{"event":"made","id":"e-1","text":"J\\u00f6rg & \u00fc","webhookTimestamp":1766000000000}'


def mac(key, text, digest=hashlib.sha256):
    key = key if isinstance(key, bytes) else key.encode()
    return hmac.new(key, text.encode(), digest).digest()


def base64_of(octets):
    return base64.b64encode(octets).decode()


# provider -> (headers of a body at a time, seconds that it may be old, how a time is written)
def calendly(body, ts, key=SECRET):
    return {"Calendly-Webhook-Signature": f"t={ts},v1={mac(key, f'{ts}.{body}').hex()}"}


def close(body, ts, key=HEX_KEY):
    return {"close-sig-hash": mac(bytes.fromhex(key), f"{ts}{body}").hex(), "close-sig-timestamp": ts}


def intercom(body, ts, key=SECRET):
    return {"X-Hub-Signature": "sha1=" + mac(key, body, hashlib.sha1).hex()}


def linear(body, ts, key=SECRET):
    return {"Linear-Signature": mac(key, body).hex(), "Linear-Delivery": "d-1"}


def paddle(body, ts, key=SECRET):
    return {"Paddle-Signature": f"ts={ts};h1={mac(key, f'{ts}:{body}').hex()}"}


def razorpay(body, ts, key=SECRET):
    return {"X-Razorpay-Signature": mac(key, body).hex()}


def twitch(body, ts, key=SECRET):
    return {"Twitch-Eventsub-Message-Id": "m-1", "Twitch-Eventsub-Message-Timestamp": ts,
            "Twitch-Eventsub-Message-Signature": "sha256=" + mac(key, f"m-1{ts}{body}").hex()}


def typeform(body, ts, key=SECRET):
    return {"Typeform-Signature": "sha256=" + base64_of(mac(key, body))}


def zendesk(body, ts, key=SECRET):
    return {"X-Zendesk-Webhook-Signature": base64_of(mac(key, f"{ts}{body}")),
            "X-Zendesk-Webhook-Signature-Timestamp": ts}


SECONDS, NANOS, ZULU = str(NOW), ISO + ".634234626Z", ISO + "Z"
SIGNERS = {calendly: (180, SECONDS), close: (300, SECONDS), intercom: (None, ""), linear: (60, ""),
           paddle: (5, SECONDS), razorpay: (None, ""), twitch: (600, NANOS), typeform: (None, ""),
           zendesk: (300, ZULU)}


def cases(signer, window, ts):
    """(name, changes to the record, expected) of every kind."""
    key = HEX_KEY if signer is close else SECRET
    right = signer(BODY, ts)
    name = next(n for n in right if "ignature" in n and "imestamp" not in n or n.endswith("hash"))
    value = right[name]
    digest = value.split("=", 1)[1] if signer in (intercom, twitch, typeform) else value.split("1=")[-1]

    def signed(text):
        return {"headers": {**right, name: text}}

    def other(text):
        return signed(value.replace(digest, text))

    is_hex = not digest.endswith("=")
    octets = bytes.fromhex(digest) if is_hex else base64.b64decode(digest)
    yield "accept", {}, "accept"
    yield "header-names", {"headers": {n.upper(): v for n, v in right.items()}}, "accept"
    yield "blanks", signed(f" {value}\t"), "accept"
    yield "rotation-second", {"secrets": ["00ff" * 8, key], "secret": None}, "accept"
    yield "tampered-body", {"body": BODY + " "}, "reject"
    yield "bom", {"body": "\ufeff" + BODY}, "reject"
    yield "empty-body", {"body": ""}, "reject"
    yield "wrong-secret", {"secret": "00ff" * 8}, "reject"
    yield "empty-secret", {"secret": ""}, "reject"
    yield "missing-signature", {"headers": {n: v for n, v in right.items() if n != name}}, "reject"
    yield "empty-signature", signed(""), "reject"
    yield "trailing-newline", signed(value + "\n"), "reject"
    yield "duplicate-header", signed([value, value]), "reject"
    yield "bitflip", other(("0" if digest[0] != "0" else "1") + digest[1:]), "reject"
    yield "truncated", other(digest[:-2]), "reject"
    yield "other-encoding", other(base64_of(octets) if is_hex else octets.hex()), "reject"
    yield ("upper-hex", other(digest.upper()), "reject") if is_hex else (
        "no-padding", other(digest.rstrip("=")), "reject")
    if signer in (intercom, twitch, typeform):
        yield "no-prefix", signed(digest), "reject"
        yield "other-prefix", signed("md5=" + digest), "reject"
    if signer in (calendly, paddle):
        head, mark, _ = value.rpartition("1=")
        between = value[value.index(ts) + len(ts)]
        last = f"{head.rsplit(between, 1)[1]}{mark}"
        yield "one-good", signed(f"{head}{mark}{'0' * 64}{between}{last}{digest}"), "accept"
        yield "none-good", signed(f"{head}{mark}{'0' * 64}{between}{last}{'f' * 64}"), "reject"
        yield "unknown-only", signed(f"{head}0={digest}"), "reject"
        yield "missing-time", signed(value.replace(ts, "")), "reject"
    if signer is twitch:
        yield "other-id", {"headers": {**right, "Twitch-Eventsub-Message-Id": "m-2"}}, "reject"
        yield "no-id", {"headers": {n: v for n, v in right.items() if not n.endswith("Id")}}, "reject"
    if window:
        fraction = 1 if signer is twitch else 0  # what is 0.63 s younger than NOW
        yield "edge-past", {"now": NOW + window}, "accept"
        yield "stale", {"now": NOW + window + fraction + 1}, "reject"
        yield "edge-future", {"now": NOW - window + fraction}, "accept"
        yield "future", {"now": NOW - window - 1}, "reject"
    if ts and signer is not linear:
        for what, text in {"text": "yesterday", "overflow": "9" * 30, "negative": "-" + ts}.items():
            yield f"{what}-time", {"headers": signer(BODY, text)}, "reject"
        later = ts.replace(ts[:4], "2026" if ts is not SECONDS else "1767")
        yield "swapped-time", {"headers": {n: v.replace(ts, later) for n, v in right.items()}}, "reject"


def judge(tmp_path, records):
    path = tmp_path / "requests.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    done = oncehook("verify", path, check=False)
    wrong = [line for line in done.stdout.splitlines() if line.endswith("MISMATCH")]
    assert (wrong, done.returncode) == ([], 0), done.stdout


@pytest.mark.parametrize("signer", SIGNERS, ids=lambda signer: signer.__name__)
def test_every_kind_of_request_gets_its_verdict(tmp_path, signer):
    window, ts = SIGNERS[signer]
    records = []
    for name, changes, expected in cases(signer, window, ts):
        record = {"id": f"{signer.__name__}-{name}", "provider": signer.__name__, "method": "POST",
                  "url": "https://hooks.example.com/in/x", "headers": signer(BODY, ts), "body": BODY,
                  "secret": HEX_KEY if signer is close else SECRET, "now": NOW, "expect": expected, **changes}
        records.append({name: value for name, value in record.items() if value is not None})
    assert len(records) > 16
    judge(tmp_path, records)


def test_aircall_s_token_stands_in_the_body(tmp_path):
    rows = {"accept": (SECRET, "accept"), "case": (SECRET.upper(), "reject"), "prefix": (SECRET[:-1], "reject"),
            "longer": (SECRET + "x", "reject"), "empty": ("", "reject"), "number": (5, "reject")}
    bodies = {name: (json.dumps({"event": "call.created", "token": token}), expected)
              for name, (token, expected) in rows.items()}
    bodies["missing"] = ('{"event":"call.created"}', "reject")
    bodies["no-json"] = (f"token={SECRET}", "reject")
    bodies["elsewhere"] = (json.dumps({"data": {"token": SECRET}}), "reject")
    judge(tmp_path, [{"id": name, "provider": "aircall", "method": "POST", "url": "https://h.example.com/in/a",
                      "headers": {"Content-Type": "application/json"}, "body": body, "secret": SECRET, "now": NOW,
                      "expect": expected} for name, (body, expected) in bodies.items()])


def record(provider, name, headers, expected, body=BODY, key=SECRET, **more):
    return {"id": f"{provider}-{name}", "provider": provider, "method": "POST", "url": "https://hooks.example.com/in/x",
            "headers": headers, "body": body, "now": NOW, "expect": expected,
            **({} if "public_key" in more else {"secret": key}), **more}


def test_klaviyo_writes_the_date_of_http(tmp_path):
    times = {"http": "Wed, 17 Dec 2025 19:33:20 GMT", "iso": "2025-12-17T19:33:20.101159+00:00", "s": str(NOW),
             "ms": f"{NOW}000", "text": "yesterday", "day": "Wed, 32 Dec 2025 19:33:20 GMT", "empty": "",
             "negative": f"-{NOW}", "overflow": "9" * 30}
    judge(tmp_path, [record("klaviyo", name, {"Klaviyo-Timestamp": ts, "Klaviyo-Signature": mac(SECRET, BODY + ts).hex()},
                            "accept" if name in ("http", "iso", "s", "ms") else "reject")
                     for name, ts in times.items()] +
          [record("klaviyo", "swapped", {"Klaviyo-Timestamp": times["iso"],
                                         "Klaviyo-Signature": mac(SECRET, BODY + times["http"]).hex()}, "reject")])


def test_svix_calls_its_headers_by_either_name(tmp_path):
    key, signature = b"k" * 24, "v1," + base64_of(mac(b"k" * 24, f"m-1.{NOW}.{BODY}"))
    names = {name: {f"{name}-id": "m-1", f"{name}-timestamp": str(NOW), f"{name}-signature": signature}
             for name in ("svix", "webhook")}
    rows = {"svix": (names["svix"], "accept"), "webhook": (names["webhook"], "accept"),
            "both": (names["svix"] | names["webhook"], "accept"),
            "another-id": (names["webhook"] | {"svix-id": "m-2"}, "reject"),
            "no-id": ({k: v for k, v in names["webhook"].items() if k != "webhook-id"}, "reject")}
    judge(tmp_path, [record("svix", name, headers, expected, key="whsec_" + base64_of(key))
                     for name, (headers, expected) in rows.items()])


@pytest.mark.parametrize("version", ["V2", "V3"])
def test_plivo_signs_with_several_tokens(tmp_path, version):
    url, nonce, wrong = "https://hooks.example.com/in/x", "n-1", base64_of(bytes(32))
    text = url + nonce if version == "V2" else f"{url}?From1To2.{nonce}"
    right, name, main = base64_of(mac(SECRET, text)), f"X-Plivo-Signature-{version}", f"X-Plivo-Signature-Ma-{version}"
    rows = {"one": ({name: right}, "accept"), "second": ({name: f"{wrong},{right}"}, "accept"),
            "first": ({name: f"{right}, {wrong}"}, "accept"), "none": ({name: f"{wrong},{wrong}"}, "reject"),
            "main": ({main: right}, "accept"), "both": ({name: wrong, main: right}, "accept"),
            "twice": ({name: [right, right]}, "reject"), "empty": ({name: ","}, "reject"), "missing": ({}, "reject")}
    judge(tmp_path, [record("plivo", f"{version}-{name}", {
        "Content-Type": "application/x-www-form-urlencoded", f"X-Plivo-Signature-{version}-Nonce": nonce, **headers},
        expected, body="To=2&From=1", scheme=f"plivo_{version.lower()}") for name, (headers, expected) in rows.items()])


def test_recurly_counts_milliseconds(tmp_path):
    def at(ts):
        return {"recurly-signature": f"{ts},{mac(SECRET, f'{ts}.{BODY}').hex()}"}

    rows = {"s": (str(NOW), "accept"), "ms": (f"{NOW}000", "accept"), "edge": (f"{NOW - 300}000", "accept"),
            "stale": (f"{NOW - 301}999", "reject"), "older": (f"{NOW - 301}000", "reject"),
            "future": (f"{NOW + 300}001", "reject"), "stale-s": (str(NOW - 301), "reject"), "text": ("x", "reject")}
    judge(tmp_path, [record("recurly", name, at(ts), expected) for name, (ts, expected) in rows.items()])


def test_highlevel_signs_with_ed25519(tmp_path):
    key, body = tmp_path / "key.pem", tmp_path / "body"
    sign.openssl("genpkey", "-algorithm", "ED25519", "-out", key)
    body.write_text(BODY)
    signature = base64_of(sign.openssl("pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", body))
    public = base64_of(sign.openssl("pkey", "-in", key, "-pubout", "-outform", "DER"))
    pem = sign.openssl("pkey", "-in", key, "-pubout").decode()
    rows = {"accept": ("X-GHL-Signature", public, BODY, "accept"), "pem": ("X-GHL-Signature", pem, BODY, "accept"),
            "old-header": ("X-WH-Signature", public, BODY, "reject"),
            "tampered": ("X-GHL-Signature", public, BODY + " ", "reject")}
    judge(tmp_path, [record("highlevel", name, {header: signature}, expected, text, public_key=given,
                            scheme="highlevel_ed25519") for name, (header, given, text, expected) in rows.items()])
