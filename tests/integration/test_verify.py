"""`oncehook verify` and `oncehook providers`: the recorded requests of each provider agree, and no
request that was accepted stays so when one byte of its body, signature or secret changes."""

import base64
import copy
import json
import os
import pathlib
import pty
import re
import subprocess

import pytest

from support.gateway import BINARY, SANITIZER, environment, oncehook

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
PROVIDERS = ["github", "sendgrid", "stripe"]
SIGNATURE_HEADER = {
    "github": "x-hub-signature-256",
    "sendgrid": "x-twilio-email-event-webhook-signature",
    "stripe": "stripe-signature",
}
BASE64_SYMBOLS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


ALL_VECTORS = json.loads((DATA / "vectors.json").read_text())


def vectors(provider):
    return [request for request in ALL_VECTORS if request["provider"] == provider]


def run(tmp_path, requests, *options):
    """(exit code, {id: (verdict, reason, ok)}, last line) of `oncehook verify`."""
    path = tmp_path / "requests.json"
    path.write_text(json.dumps(requests))
    done = oncehook("verify", *options, path, check=False)
    *lines, last = done.stdout.splitlines()
    rows = [line.split("\t") for line in lines]
    assert [row[0] for row in rows] == [request["id"] for request in requests]
    return done.returncode, {row[0]: tuple(row[1:]) for row in rows}, last


def test_every_recorded_request_agrees(tmp_path):
    """All providers at once; the number is written down so that none gets lost."""
    code, rows, last = run(tmp_path, ALL_VECTORS)
    assert [i for i, row in rows.items() if row[2] != "ok"] == []
    assert last == "973 requests, 0 mismatches"
    assert code == 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_recorded_requests_agree(tmp_path, provider):
    requests = vectors(provider)
    code, rows, last = run(tmp_path, requests)
    assert last == f"{len(requests)} requests, 0 mismatches"
    assert code == 0
    for request in requests:
        verdict, reason, ok = rows[request["id"]]
        assert (verdict, ok) == (request["expect"], "ok")
        assert (reason == "-") == (verdict == "accept")
        assert reason in {"-", "signature_missing", "signature_wrong", "stale"}


def test_reasons_are_those_of_the_metrics(tmp_path):
    wanted = {
        "gen-stripe-stale": "stale",
        "gen-stripe-tampered-body": "signature_wrong",
        "gen-stripe-empty-signature": "signature_missing",
        "gen-stripe-empty-secret": "signature_wrong",
        "gen-sendgrid-missing-timestamp": "signature_missing",
        "gen-github-upper-hex": "signature_wrong",
    }
    requests = [r for p in PROVIDERS for r in vectors(p) if r["id"] in wanted]
    _, rows, _ = run(tmp_path, requests)
    assert {id: row[1] for id, row in rows.items()} == wanted


def body_of(request):
    if "body" in request:
        return request["body"].encode()
    return base64.b64decode(request["body_base64"])


def with_body(request, body):
    changed = copy.deepcopy(request)
    changed.pop("body", None)
    changed["body_base64"] = base64.b64encode(body).decode()
    return changed


def altered_bodies(request, rng):
    """Each byte changed; of long bodies some; one more, one less, and none."""
    body = body_of(request)
    for at in rng.sample(range(len(body)), min(len(body), 60)):
        changed = bytearray(body)
        changed[at] ^= 1 << rng.randrange(8)
        yield f"body byte {at}", with_body(request, bytes(changed))
    yield "body byte more", with_body(request, body + b"\n")
    yield "body byte less", with_body(request, body[:-1])
    if len(body) > 1:
        yield "body gone", with_body(request, b"")


def altered_signatures(request, rng):
    """Each character of the signature's header changed."""
    name = next(n for n in request["headers"] if n.lower() == SIGNATURE_HEADER[request["provider"]])
    value = request["headers"][name]
    # A signature of zeros, which no secret gave, is ignored beside a right one: it may change.
    ignored = re.search("v1=0{64},", value)
    for at, old in enumerate(value):
        if ignored and ignored.start() <= at < ignored.end():
            continue
        changed = copy.deepcopy(request)
        new = rng.choice([c for c in "0123456789abcdef" + BASE64_SYMBOLS + "=,;" if c != old])
        changed["headers"][name] = value[:at] + new + value[at + 1:]
        yield f"signature character {at}", changed


def altered_secrets(request):
    """Each character of each secret that can be the right one changed, in all of them at once."""
    key = next(k for k in ("secret", "secrets", "public_key") if k in request)
    values = request[key] if key == "secrets" else [request[key]]
    for at in range(max(map(len, values))):
        changed = copy.deepcopy(request)
        others = [v[:at] + ("B" if v[at:at + 1] != "B" else "C") + v[at + 1:] for v in values]
        changed[key] = others if key == "secrets" else others[0]
        yield f"secret character {at}", changed


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nothing_altered_is_accepted(tmp_path, rng, provider):
    accepted = [r for r in vectors(provider) if r["expect"] == "accept"]
    assert accepted
    requests = []
    for request in accepted:
        for kind in (altered_bodies(request, rng), altered_signatures(request, rng),
                     altered_secrets(request)):
            for what, changed in kind:
                changed["id"] = f"{request['id']}: {what}"
                changed["expect"] = "reject"
                requests.append(changed)
    code, rows, last = run(tmp_path, requests)
    wrong = [id for id, row in rows.items() if row[0] != "reject"]
    assert wrong == []
    assert (code, last) == (0, f"{len(requests)} requests, 0 mismatches")


def test_mismatch_is_told_and_exits_1(tmp_path):
    request = dict(next(r for r in vectors("github") if r["expect"] == "accept"))
    request["expect"] = "reject"
    assert run(tmp_path, [request]) == (
        1, {request["id"]: ("accept", "-", "MISMATCH")}, "1 requests, 1 mismatches")


@pytest.mark.parametrize("expect", ["accept", "reject"])
def test_provider_without_recipe_is_a_mismatch_whatever_was_expected(tmp_path, expect):
    request = dict(vectors("github")[0], provider="nobody", scheme="nobody", expect=expect)
    assert run(tmp_path, [request]) == (
        1, {request["id"]: ("reject", "-", "MISMATCH")}, "1 requests, 1 mismatches")


def test_further_recipe_is_taken_from_a_file(tmp_path):
    recipe = tmp_path / "acme.yaml"
    recipe.write_text("""\
provider: acme
title: Acme
confidence: low
proof: unconfirmed
id_scope: source
ack_budget: unknown
retries: {schedule: not known, horizon: unknown}
schemes:
  - id: acme
    algorithm: hmac-sha256
    key: utf8
    signature: {in: header, name: x-hub-signature-256, parse: plain, prefix: "sha256=", encoding: hex}
    message: [body]
events: {id: /id}
""")
    requests = [dict(r, provider="acme", scheme="acme") for r in vectors("github")]
    code, _, last = run(tmp_path, requests, "--recipe", recipe)
    assert (code, last) == (0, f"{len(requests)} requests, 0 mismatches")
    recipe.write_text(recipe.read_text().replace("hmac-sha256", "hmac-md5"))
    done = oncehook("verify", "--recipe", recipe, tmp_path / "requests.json", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{recipe}:10: `algorithm`")


def test_documented_recipe_is_taken(tmp_path):
    text = (DATA.parent.parent / "docs" / "providers.md").read_text()
    blocks = [b for b in re.findall(r"```yaml\n(.*?)```", text, re.S) if "schemes:" in b]
    assert len(blocks) == 1
    recipe = tmp_path / "acme.yaml"
    recipe.write_text(blocks[0])
    request = dict(vectors("stripe")[0], provider="acme", scheme="acme", expect="reject")
    code, rows, _ = run(tmp_path, [request], "--recipe", recipe)
    assert (code, rows[request["id"]]) == (0, ("reject", "signature_missing", "ok"))
    (shown,) = re.findall(r"```json\n(.*?)```", text, re.S)
    code, rows, _ = run(tmp_path, json.loads(shown), "--recipe", recipe)
    assert (code, rows["opened"]) == (0, ("accept", "-", "ok"))


BROKEN = [
    "", "{", "{}", "null", "[1]", '[{"id":1}]', "[[]]",
    json.dumps([{"id": "a\tb"}]),
]


@pytest.mark.parametrize("text", BROKEN)
def test_unreadable_file_exits_2(tmp_path, text):
    path = tmp_path / "requests.json"
    path.write_text(text)
    done = oncehook("verify", path, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert str(path) in done.stderr


@pytest.mark.parametrize("change", [
    {"id": None}, {"provider": None}, {"now": "1766000000"}, {"now": -1}, {"now": 1e300},
    {"expect": "maybe"}, {"headers": []}, {"headers": {"a": 1}}, {"headers": {"a": [1]}},
    {"body": None}, {"body": 7}, {"body_base64": "eA=="}, {"headers": {"a": ["b"] * 300}},
])
def test_malformed_request_exits_2(tmp_path, change):
    request = dict(vectors("github")[0], **change)
    path = tmp_path / "requests.json"
    path.write_text(json.dumps([request]))
    done = oncehook("verify", path, check=False)
    assert done.returncode == 2
    assert "request 1: " in done.stderr


def test_usage_errors_exit_2(tmp_path):
    assert oncehook("verify", check=False).returncode == 2
    assert oncehook("verify", tmp_path / "missing.json", check=False).returncode == 2
    assert oncehook("verify", "--nonsense", "a.json", check=False).returncode == 2
    assert oncehook("verify", "--help").returncode == 0


def test_no_secret_is_repeated(tmp_path):
    requests = [r for p in PROVIDERS for r in vectors(p)]
    path = tmp_path / "requests.json"
    path.write_text(json.dumps(requests))
    done = oncehook("verify", "--explain", path)
    said = done.stdout + done.stderr
    for request in requests:
        for secret in [request.get("secret"), request.get("public_key"), *request.get("secrets", [])]:
            assert not secret or len(secret) < 4 or secret not in said
    assert "gen-stripe-stale: timestamp outside the window" in done.stderr


def explain(tmp_path, requests, *options):
    """{id: lines} of --explain on a pipe."""
    path = tmp_path / "requests.json"
    path.write_text(json.dumps(requests))
    told, at = {}, None
    for line in oncehook("verify", "--explain", *options, path, check=False).stderr.splitlines():
        if not line.startswith("  "):
            at, because = line.split(": ", 1)
            told[at] = [because]
        else:
            told[at].append(line.strip())
    return told


def test_a_refusal_is_explained_to_whom_must_fix_it(tmp_path):
    chosen = {r["id"]: r for r in ALL_VECTORS}
    two = dict(chosen["gen-github-upper-hex"], id="two", secrets=["first of them", ""])
    two.pop("secret")
    told = explain(tmp_path, [chosen[i] for i in (
        "gen-stripe-stale", "gen-sendgrid-missing-timestamp", "gen-hubspot_v3-future", "gen-svix-missing-signature",
        "gen-aws_sns-other-topic", "gen-github-upper-hex")] + [two])
    age = chosen["gen-stripe-stale"]["now"] - int(re.search("t=([0-9]+)", json.dumps(
        chosen["gen-stripe-stale"]["headers"]))[1])
    stripe = told["gen-stripe-stale"]
    assert stripe[0] == "timestamp outside the window"
    assert f", {age} s" in stripe[1] and "allowed: 300 s" in stripe[1] and "before the request came" in stripe[1]
    assert "signature: right, by secret 1" in stripe
    assert "after the request came; allowed: 300 s" in told["gen-hubspot_v3-future"][1]
    assert told["gen-sendgrid-missing-timestamp"][1] == "missing: header x-twilio-email-event-webhook-timestamp"
    assert told["gen-svix-missing-signature"][1].startswith("missing: header svix-signature")
    assert told["gen-aws_sns-other-topic"][0] == "the topic that the body names is none of the secrets"
    assert "secrets: secret" in told["gen-github-upper-hex"]
    assert "secrets: secret 1, secret 2 (unusable: the secret is empty)" in told["two"]
    signed = len(body_of(two))
    assert f"signed: {signed} bytes (they are shown on a terminal only)" in told["two"]


def on_a_terminal(*arguments):
    """What `oncehook` writes when stderr is a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen([BINARY, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=follower,
                               env=environment())
    os.close(follower)
    said = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other side is closed
            break
        said += piece
    os.close(leader)
    process.wait()
    assert not SANITIZER.search(said.decode())
    return said.decode().replace("\r\n", "\n")


def test_the_exact_bytes_are_shown_on_a_terminal_only_and_without_the_secret(tmp_path):
    chosen = {r["id"]: r for r in ALL_VECTORS}
    stripe, hubspot = chosen["gen-stripe-stale"], chosen["gen-hubspot_v1-bitflip"]
    steering = dict(chosen["gen-github-upper-hex"], id="steering", body='{"a":"\x1b[2J\u00e9"}\r\n')
    path = tmp_path / "requests.json"
    path.write_text(json.dumps([stripe, hubspot, steering]))
    said = on_a_terminal("verify", "--explain", path)
    time = re.search("t=([0-9]+)", json.dumps(stripe["headers"]))[1]

    def shown(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert shown(f"{time}.{stripe['body']}") in said
    assert shown("****" + hubspot["body"]) in said and hubspot["secret"] not in said
    assert '"{\\"a\\":\\"\\x1b[2J\\xc3\\xa9\\"}\\r\\n"' in said and "\x1b" not in said


def test_a_source_s_secrets_are_named_and_its_window_is_used(tmp_path):
    chosen = {r["id"]: r for r in ALL_VECTORS}
    stripe = chosen["gen-stripe-stale"]
    config = tmp_path / "oncehook.yaml"
    config.write_text(json.dumps({
        "listen": {"http": "127.0.0.1:0"}, "database": {"url": "postgresql:///nowhere"},
        "sources": [{"name": "pay", "provider": "stripe", "tolerance": "10d",
                     "secrets": [stripe["secret"]]},
                    {"name": "other", "provider": "stripe", "secrets": ["whsec_one", "whsec_two"]}]}))
    asked = {k: v for k, v in stripe.items() if k not in ("provider", "scheme", "secret")}
    path = tmp_path / "requests.json"
    path.write_text(json.dumps([asked]))
    done = oncehook("verify", "-c", config, "--source", "pay", path, check=False)
    assert done.stdout.splitlines()[0] == "gen-stripe-stale\taccept\t-\tMISMATCH"
    told = explain(tmp_path, [asked], "-c", config, "--source", "other")
    assert "secrets: 1, 2" in told["gen-stripe-stale"]
    assert oncehook("verify", path, check=False).returncode == 2
    assert oncehook("verify", "--source", "pay", path, check=False).returncode == 2
    nobody = oncehook("verify", "-c", config, "--source", "nobody", path, check=False)
    assert nobody.returncode == 2 and "no source 'nobody'" in nobody.stderr


def test_every_provider_says_where_to_click_and_what_to_copy():
    listed = json.loads(oncehook("providers", "--json").stdout)
    for entry in listed:
        assert entry["secret_form"]
        if entry["provider"] != "hmac":
            assert 20 < len(entry["setup"]) <= 200 and entry["setup"][-1] != " ", entry["provider"]
    lines = oncehook("providers", "stripe").stdout.splitlines()
    assert any(re.match("setup +.*Signing secret", line) for line in lines)
    assert any(re.match("secret_form +the text exactly", line) for line in lines)


def test_providers_as_a_table_and_as_json():
    table = oncehook("providers").stdout.splitlines()
    assert table[0].split() == ["PROVIDER", "SCHEME", "ALGORITHM", "ID", "SCOPE", "KEY", "GRADE",
                                "CONFIDENCE", "PROOF", "HANDSHAKE", "RETRIES"]
    listed = json.loads(oncehook("providers", "--json").stdout)
    assert [line.split()[:3] for line in table[1:]] == [
        [p["provider"], p["scheme"], p["algorithm"]] for p in listed]
    assert {p["provider"] for p in listed} >= set(PROVIDERS)
    for entry in listed:
        assert entry["confidence"] in {"low", "medium", "high"}
        assert entry["id_scope"] in {"source", "provider"}
        assert entry["key_grade"] in {"id", "composite", "hash"}
        assert (entry["retry_horizon_s"] is None or entry["retries_signed_anew"]
                or entry["serve_tolerance_s"] is None
                or entry["serve_tolerance_s"] >= entry["retry_horizon_s"])


def test_the_catalog_page_is_that_of_the_data():
    page = (DATA.parent.parent / "docs" / "provider-catalog.md").read_text(encoding="utf-8")
    assert page == oncehook("providers", "--markdown").stdout


def test_proof_is_claimed_only_where_a_recorded_request_gives_it():
    published = {r["provider"] for r in ALL_VECTORS if r.get("published") and r["expect"] == "accept"}
    checked = {r["provider"] for r in ALL_VECTORS if r.get("sdk_checked") == "agrees"}
    checked |= set(re.findall('provider: "([a-z_]+)"', (DATA.parent / "sdk" / "sdks.mjs").read_text()))
    for entry in json.loads(oncehook("providers", "--json").stdout):
        if entry["proof"] == "published":
            assert entry["provider"] in published
        if entry["proof"] == "sdk":
            assert entry["provider"] in checked | published


def test_one_provider_is_told_in_full():
    one = json.loads(oncehook("providers", "stripe", "--json").stdout)
    assert [p["scheme"] for p in one] == ["stripe"]
    assert one[0]["serve_tolerance_s"] == 300 and one[0]["retries_signed_anew"] is True
    assert "hmac-sha256" in oncehook("providers", "stripe").stdout
    missing = oncehook("providers", "nobody", check=False)
    assert missing.returncode == 1 and "nobody" in missing.stderr
    assert oncehook("providers", "a", "b", check=False).returncode == 2


def test_hmac_has_its_recipe_in_the_record(tmp_path):
    """`provider: hmac` stands in the source: a record may carry the same options."""
    import base64
    import hashlib
    import hmac as mac
    body, secret = '{"id":"h1"}', "a secret of ours"
    plain = mac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()
    other = base64.b64encode(mac.new(secret.encode(), body.encode(), hashlib.sha512).digest()).decode()
    record = {"provider": "hmac", "method": "POST", "url": "https://hooks.example.com/in/own", "body": body,
              "secret": secret, "now": 1766000000, "expect": "accept"}
    records = [{**record, "id": "usual", "headers": {"X-Signature": plain}},
               {**record, "id": "own", "headers": {"X-Own": "sha512=" + other},
                "hmac": {"header": "X-Own", "algorithm": "sha512", "encoding": "base64", "prefix": "sha512="}},
               {**record, "id": "tampered", "body": body + " ", "headers": {"X-Signature": plain}, "expect": "reject"}]
    path = tmp_path / "hmac.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    done = oncehook("verify", path)
    assert done.stdout == ("usual\taccept\t-\tok\nown\taccept\t-\tok\ntampered\treject\tsignature_wrong\tok\n"
                           "3 requests, 0 mismatches\n")


def test_providers_lists_this_release_s_recipes():
    names = [line.split()[0] for line in oncehook("providers").stdout.splitlines()[1:]]
    assert names == sorted(names[:-1]) + ["hmac"]
    assert set(names) >= {request["provider"] for request in ALL_VECTORS}
    # Ten have a recipe and no recorded request.
    assert set(names) - {request["provider"] for request in ALL_VECTORS} == {
        "hmac", "aircall", "calendly", "close", "intercom", "linear", "paddle", "razorpay", "twitch",
        "typeform", "zendesk"}
