"""The recorded handshakes, played over HTTP against the real gateway: what a provider asks before it sends is
answered by the gateway itself, and nothing of it becomes an event."""

import json
import os
import re
import shlex
import time
import urllib.parse

from support import sign
from support.gateway import REPOSITORY, oncehook

with open(os.path.join(REPOSITORY, "tests", "data", "handshakes.json"), encoding="utf-8") as file:
    RECORDED = {one["id"]: one for one in json.load(file)}

# No source can be made of these: the catalog does not have the provider, or the certificate would have to be fetched.
NO_PROVIDER = {"msgraph-validation", "ebay-challenge", "adobe-sign-client-id"}
# These bring their secret: the source has none, and is armed.
LEARNED = {"asana-x-hook-secret", "notion-verification-token"}
CERTIFICATE = {"sns-subscription", "sns-basic-401"}
# Asked under a signature, which the recording leaves out.
SIGNED = {"slack-url-verification", "twitch-callback", "front-challenge", "discord-ping"}
PLAYED = sorted(set(RECORDED) - NO_PROVIDER - CERTIFICATE)


def secret_of(recorded, directory):
    if recorded["provider"] != "discord":
        return recorded["request"].get("secret", "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0")
    private = str(directory / "discord.pem")
    sign.openssl("genpkey", "-algorithm", "ED25519", "-out", private)
    public = sign.openssl("pkey", "-in", private, "-pubout", "-outform", "DER")
    return public[-32:].hex()


def moment(offset_s):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + offset_s))


def make_source(recorded, directory, armed=True):
    asked = recorded["request"]
    more = {name: asked[name] for name in ("verify_token", "public_key") if name in asked}
    if recorded["provider"] == "heygen":
        more["scheme"] = "heygen"
    source = sign.Source(recorded["id"], provider=recorded["provider"], secrets=[secret_of(recorded, directory)],
                         **more)
    source.config.pop("map")
    if armed and recorded["id"] in LEARNED:
        source.config.pop("secrets")
        source.config["handshake"] = {"arm_until": moment(3600)}
    return source


def secret_in(recorded):
    """What a handshake brings."""
    asked = recorded["request"]
    return asked.get("headers", {}).get("X-Hook-Secret") or json.loads(asked["body"])["verification_token"]


def start(start_gateway, directory, *idents):
    return start_gateway({"listen": {"public_url": "https://hooks.example.com"}},
                         sources=[*(make_source(RECORDED[ident], directory) for ident in idents), sign.Hmac()])


def signed(gateway, recorded, directory):
    """The headers that the provider would send with this body."""
    body = directory / "body"
    body.write_text(recorded["request"].get("body", "{}"))
    key = ["--key", str(directory / "discord.pem")] if recorded["provider"] == "discord" else []
    said = oncehook("send", "-c", gateway.config_path, "--source", recorded["id"], "--event", f"@{body}",
                    "--url", f"http://127.0.0.1:{gateway.http_port}", "--print-curl", *key).stdout
    words = shlex.split(said)
    pairs = [words[i + 1].split(":", 1) for i, word in enumerate(words) if word in ("-H", "--header")]
    return {name: value.strip() for name, value in pairs}, body.read_bytes()


def ask(gateway, recorded, headers=None, body=None):
    asked = recorded["request"]
    path = f"/in/{recorded['id']}"
    if "query" in asked:
        path += "?" + urllib.parse.quote(asked["query"], safe="=&%+.-_~")
    body = asked.get("body", "").encode() if body is None else body
    return gateway.request(asked["method"], path, {**(headers or {}), **asked.get("headers", {})},
                           body if asked["method"] == "POST" else None, tls=False)


def check(gateway, recorded, directory):
    signs = recorded["id"] in SIGNED
    headers, body = signed(gateway, recorded, directory) if signs else ({}, None)
    answer, wanted = ask(gateway, recorded, headers, body), recorded["response"]
    assert answer.status == wanted["status"], answer
    for name, value in wanted.get("headers", {}).items():
        assert answer.headers[name.lower()] == value
    if "body_json" in wanted:
        assert json.loads(answer.body) == wanted["body_json"]
    elif "body" in wanted and recorded["request"]["method"] != "HEAD":
        assert answer.body.decode() == wanted["body"]
    counted = sum(gateway.metric("oncehook_deliveries_total", source=recorded["id"], status=status)
                  for status in ("200", "400", "401", "403", "other"))
    assert counted == 1
    secret = (gateway.sources[recorded["id"]].config.get("secrets") or [secret_in(recorded)])[0]
    assert secret not in gateway.log_text() and secret.encode() not in answer.body
    if signs:
        assert ask(gateway, recorded).status == 401, "without its signature"


def test_every_recorded_handshake_gets_the_recorded_answer(start_gateway, tmp_path, database):
    gateway = start(start_gateway, tmp_path, *PLAYED)
    assert len(PLAYED) == len(RECORDED) - 5 and len(RECORDED) >= 28
    for ident in PLAYED:
        print(ident)
        check(gateway, RECORDED[ident], tmp_path)
    assert database.value("SELECT (SELECT count(*) FROM campaign_events) + (SELECT count(*) FROM "
                          "quarantined_deliveries)") == 0


def test_a_secret_that_arrives_unasked_is_refused(start_gateway, tmp_path, database):
    gateway = start_gateway(sources=[make_source(RECORDED[ident], tmp_path, armed=False) for ident in LEARNED])
    for ident in LEARNED:
        assert ask(gateway, RECORDED[ident]).status == 403
        assert secret_in(RECORDED[ident]) not in gateway.log_text()
    assert database.value("SELECT count(*) FROM learned_secrets") == 0


def test_what_is_no_handshake_is_still_an_event(start_gateway, tmp_path, database):
    gateway = start(start_gateway, tmp_path, "slack-url-verification")
    event = {"id": "slack-url-verification", "request": {"method": "POST", "body": json.dumps(
        {"type": "event_callback", "event_id": "Ev1", "event": {"type": "message"}})}, "provider": "slack"}
    headers, body = signed(gateway, event, tmp_path)
    answer = ask(gateway, event, headers, body)
    assert answer.status == 200 and json.loads(answer.body)["captured"] == 1
    assert database.value("SELECT count(*) FROM campaign_events") == 1


def test_a_method_is_taken_only_where_the_provider_asks_with_it(start_gateway, tmp_path):
    gateway = start(start_gateway, tmp_path, "meta-ok")
    for method, path, allow in (("GET", "/in/hmac", "POST"), ("HEAD", "/in/meta-ok", "POST, GET"),
                                ("PUT", "/in/meta-ok", "POST, GET"), ("OPTIONS", "/in/hmac", "POST")):
        answer = gateway.request(method, path, tls=False)
        assert answer.status == 405 and answer.headers["allow"] == allow
    assert gateway.request("GET", "/in/meta-ok?hub.mode=other", tls=False).status == 400


def test_an_address_that_is_not_allowed_gets_no_answer_to_a_handshake(start_gateway, tmp_path):
    source = make_source(RECORDED["meta-ok"], tmp_path)
    source.config["allow"] = ["192.0.2.0/24"]
    gateway = start_gateway({"listen": {"trusted_proxies": ["127.0.0.1/32"]}}, sources=[source])
    assert ask(gateway, RECORDED["meta-ok"]).status == 401


def test_words_that_a_provider_demands(start_gateway, tmp_path, database):
    """Recipes with `answer:`. Captured, and as the provider wants it; xero demands that there is no body."""
    sources = [sign.Source(name, provider=name, secrets=["c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"])
               for name in ("airtable", "xero")]
    for source in sources:
        source.config.pop("map")
    gateway = start_gateway(sources=sources)
    bodies = {"airtable": {"base": {"id": "b"}, "webhook": {"id": "w"}, "timestamp": "2026-01-01T00:00:00.000Z"},
              "xero": {"events": [{"resourceId": "r", "eventType": "UPDATE", "eventDateUtc": "2026-01-01T00:00:00",
                                   "eventCategory": "INVOICE", "tenantId": "t"}], "lastEventSequence": 1}}
    for name, status in (("airtable", 204), ("xero", 200)):
        event = {"id": name, "provider": name, "request": {"method": "POST", "body": json.dumps(bodies[name])}}
        headers, body = signed(gateway, event, tmp_path)
        answer = ask(gateway, event, headers, body)
        assert (answer.status, answer.body) == (status, b""), (answer, gateway.log_text())
        assert database.value("SELECT count(*) FROM campaign_events WHERE source = %s", name) == 1
        if status == 204:  # RFC 9110, 8.6
            assert "content-length" not in answer.headers and "transfer-encoding" not in answer.headers


def test_the_catalog_has_no_provider_whose_handshake_is_not_played():
    providers = oncehook("providers", "--json").stdout
    for ident in NO_PROVIDER:
        assert not re.search(rf'"{RECORDED[ident]["provider"]}"', providers)
