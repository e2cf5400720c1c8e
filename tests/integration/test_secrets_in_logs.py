"""No secret, signature or payload in any log or message. Marks are planted wherever such a thing can
stand; then every way to fail is walked, and all that the programs wrote is searched for the marks, as
they are and in the encodings that usually hide them."""

import base64
import contextlib
import json
import re
import secrets
import time
import urllib.parse

import pytest

from support import process, sign
from support.gateway import TOKEN, oncehook
from support.postgres import GATEWAY_PASSWORD, OWNER_PASSWORD


class Marks:
    """What must not be seen, by name."""

    def __init__(self):
        self.planted = {}

    def plant(self, name, value=None):
        value = value or f"m{secrets.token_hex(12)}"
        self.planted[name] = value
        return value

    @staticmethod
    def encodings(value):
        raw = value.encode()
        yield value
        yield urllib.parse.quote(value, safe="")
        yield raw.hex()
        for padding in range(3):  # base64 of a text that stands anywhere in a longer one
            inner = base64.b64encode(b"\0" * padding + raw).decode()
            yield inner[4 if padding else 0:-4]

    def found_in(self, text):
        return sorted(name for name, value in self.planted.items()
                      if any(form and form in text for form in self.encodings(value)))


def test_the_search_finds_what_is_planted():
    marks = Marks()
    value = marks.plant("mark")
    for text in (value, f"x{value}y", value.encode().hex(), urllib.parse.quote(f"?t={value}", safe=""),
                 *(base64.b64encode(b"abcde"[:n] + value.encode() + b"12345").decode() for n in range(6))):
        assert marks.found_in(f"a line with {text} in it") == ["mark"], text
    assert marks.found_in("a line with nothing in it") == []


def refuse_with_words(database, name, when):
    """A user's trigger whose message quotes the payload."""
    timing = "AFTER INSERT ON campaign_events DEFERRABLE INITIALLY DEFERRED" if when == "commit" else \
        "AFTER INSERT ON campaign_events"
    kind = "CONSTRAINT TRIGGER" if when == "commit" else "TRIGGER"
    database.sql(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
                 f" IF NEW.payload->>'fail' = '{when}' THEN"
                 " RAISE EXCEPTION 'a user''s words: %', NEW.payload; END IF; RETURN NULL; END$$")
    database.sql(f"CREATE {kind} {name} {timing} FOR EACH ROW EXECUTE FUNCTION {name}()")


def deliver_everything(gateway, database, marks):
    """Deliveries of every fate, each full of marks; the statuses that came back."""
    statuses = set()

    def post(source, body, headers, path=None, tls=True):
        for name, value in headers.items():
            if name.lower() not in ("content-type", "x-github-event", "x-github-delivery") and len(value) > 12:
                marks.plant(f"{source.name} {name} {len(marks.planted)}", value)
        headers = {**headers, "Authorization": f"Bearer {marks.plant(f'bearer {len(marks.planted)}')}",
                   "Cookie": f"session={marks.plant(f'cookie {len(marks.planted)}')}"}
        query = marks.plant(f"query {len(marks.planted)}")
        answer = gateway.request("POST", f"{path or '/in/' + source.name}?token={query}", headers, body, tls=tls)
        statuses.add(answer.status)
        assert not marks.found_in(answer.body.decode("utf-8", "replace")), "an answer repeats a mark"
        return answer

    for source in gateway.sources.values():
        mark = marks.plant(f"payload of {source.name}")
        body = source.encode(source.event(email=mark))
        assert post(source, body, source.sign(body)).status == 200
        post(source, body, source.sign(body))                       # a duplicate
        post(source, body + b" ", source.sign(body))                # tampered
        post(source, body, {"X-Other": marks.plant(f"other {source.name}")})
        post(source, body, source.sign(body, now=time.time() - 400 * 86400))
        for ugly in (f"not json {mark}", f'{{"email": "{mark}', f'["{mark}", {{"email": "{mark}"}}, 7]',
                     f'{{"id": "a\\u0000{mark}", "email": "{mark}\\ud800"}}',
                     "[" * 3000 + f'"{mark}"' + "]" * 3000, f'{{"id": 1e999999, "time": "{mark}"}}'):
            post(source, ugly.encode(), source.sign(ugly.encode()))
        rude = f'{{"email": "\xff{mark}"}}'.encode("latin-1")
        post(source, rude, source.sign(rude))
    hmac = gateway.sources["hmac"]
    body = hmac.encode(hmac.event(email=marks.plant("payload of nobody")))
    assert post(hmac, body, hmac.sign(body), path=f"/in/{marks.plant('source name')}").status == 404
    large = hmac.encode(hmac.event(email=marks.plant("payload too large") * 50000))
    assert post(hmac, large, hmac.sign(large), tls=False).status == 413
    for when in ("now", "commit"):
        refuse_with_words(database, f"refuse_{when}", when)
        failing = hmac.encode(hmac.event(email=marks.plant(f"payload that fails {when}"), fail=when))
        post(hmac, failing, hmac.sign(failing))
    return statuses


def knock_with_bad_framing(gateway, marks):
    for lines in ("Content-Length: 5\r\nContent-Length: 6", "Content-Length: 5\r\nTransfer-Encoding: chunked",
                  f"X-Folded: a\r\n {marks.plant('folded')}\r\nContent-Length: 0"):
        with gateway.wire() as raw:
            raw.send(f"POST /in/hmac?k={marks.plant('raw query ' + lines[:14])} HTTP/1.1\r\nHost: a\r\n"
                     f"X-Signature: {marks.plant('raw ' + lines[:30])}\r\n{lines}\r\n\r\nhello".encode())
            assert not marks.found_in(raw.read_to_end().decode("utf-8", "replace"))
    with contextlib.suppress(OSError), gateway.wire(tls=True) as raw:
        raw.send(f"{marks.plant('no http at all')}\r\n\r\n".encode())
        raw.read_to_end()


def test_a_gateway_through_good_and_bad_days(start_gateway, private_cluster):
    database = private_cluster.create_database()
    oncehook("migrate", "up", "--database", database.owner_url)
    marks = Marks()
    sources = [sign.Hmac(), sign.GitHub(), sign.Stripe(), sign.SendGrid()]
    for source in sources:
        if hasattr(source, "secret"):
            marks.plant(f"secret of {source.name}", source.secret)
    marks.plant("admin token", TOKEN)
    marks.plant("database password", GATEWAY_PASSWORD)
    gateway = start_gateway({"limits": {"body_bytes": "1MiB"}, "database": {"retries": 1, "lock_timeout": "200ms"}},
                            sources=sources, database=database)
    statuses = deliver_everything(gateway, database, marks)
    assert {200, 401, 404, 413} <= statuses, statuses
    knock_with_bad_framing(gateway, marks)
    for path in ("/v1/x", "/metrics", f"/{marks.plant('admin path')}"):
        gateway.admin(path, token=marks.plant(f"wrong token for {path[:4]}"))

    hmac = gateway.sources["hmac"]
    [(_, [enrollment])] = database.seed(1, 1)
    with contextlib.closing(database.connect()) as holder:  # the deadline passes
        holder.cursor().execute("BEGIN; SELECT 1 FROM campaign_instances FOR UPDATE")
        event = hmac.event(email=marks.plant("payload that waits"), enrollment_id=enrollment)
        assert gateway.deliver("hmac", event).status == 503
        holder.cursor().execute("ROLLBACK")
    private_cluster.crash()
    process.wait_until(lambda: gateway.admin("/readyz").status == 503, what="the outage")
    assert gateway.deliver("hmac", hmac.event(email=marks.plant("payload of the outage"))).status == 503
    pages = "".join(gateway.admin(path).body.decode() for path in ("/health", "/health/database", "/metrics"))
    private_cluster.start()
    process.wait_until(lambda: gateway.deliver("hmac", hmac.event(email=marks.plant("after"))).status == 200,
                       what="the database is back")
    database.sql("ALTER ROLE oncehook_gateway PASSWORD 'changed'")  # every new connection is refused
    database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'oncehook_gateway'")
    process.wait_until(lambda: "28P01" in gateway.log_text() or "password authentication" in gateway.log_text(),
                       what="a refused login in the log")
    assert gateway.stop() == 0

    # What was planted went all the way: it stands in the database.
    stored = json.dumps(database.sql("SELECT payload::text FROM campaign_events"))
    assert "payload of hmac" in marks.found_in(stored) and "payload of stripe" in marks.found_in(stored)
    log = gateway.log_text()
    assert len(gateway.log_lines()) > 10, log
    for words in ("delivery refused", "connection to PostgreSQL lost", "stopped"):
        assert words in log, f"the log does not say: {words}"
    with open(gateway.out_path, encoding="utf-8") as out:
        log += out.read()
    found = marks.found_in(log)
    lines = [line for line in log.splitlines() if marks.found_in(line)]
    assert not found, f"{found} in:\n" + "\n".join(lines)
    assert not marks.found_in(pages), marks.found_in(pages)


# ---- messages about a configuration -------------------------------------------------------------------

CONFIGURATION = """\
listen: {{http: "127.0.0.1:0"}}
admin: {{listen: "127.0.0.1:0", token: {token}}}
database: {{url: "postgresql://oncehook_gateway:{password}@127.0.0.1:1/none"}}
sources:
  - name: one
    provider: hmac
    header: X-Signature
    algorithm: sha256
    encoding: hex
    event_id: /id
    secrets: [{secret}]
"""

# Each puts a mark where it does not belong, or a mistake where a mark stands.
MISTAKES = {
    "tab": ("    secrets: [{secret}]", "\tsecrets: [{secret}]"),
    "unclosed list": ("[{secret}]", "[{secret}"),
    "unclosed quote": ("[{secret}]", '["{secret}]'),
    "secret as key": ("    secrets: [{secret}]", "    {secret}: 1"),
    "secret as mapping": ("[{secret}]", "[{{{secret}: 1}}]"),
    "secret as scheme": ("    encoding: hex", "    encoding: {secret}"),
    "secret as provider": ("provider: hmac", "provider: {secret}"),
    "secret as pointer": ("event_id: /id", "event_id: {secret}"),
    "secret beside the list": ("[{secret}]", "{secret} {secret}"),
    "secret in a missing file": ("[{secret}]", "[{{file: /nowhere/{secret}, other: {secret}}}]"),
    "secret twice": ("[{secret}]", "[{secret}]\n    secrets: [{secret}]"),
    "token as list": ("token: {token}", "token: [{token}]"),
    "token at the top": ("sources:", "{token}: 1\nsources:"),
    "token as port": ('listen: "127.0.0.1:0", token', 'listen: "127.0.0.1:{token}", token'),
    "password with a bad percent": ("{password}@", "{password}%zz@"),
    "password in an open bracket": ("@127.0.0.1:1", "@[{password}"),
    "password as parameter": ("/none", "/none?{password}=1"),
    "keyword form": ('"postgresql://oncehook_gateway:{password}@127.0.0.1:1/none"', '"password={password} host"'),
    "variable that is not set": ("[{secret}]", "['${{NOT_SET}}', {secret}, '${{']"),
    "limits": ("sources:", "limits: {{body_bytes: {secret}, connections: {token}}}\nsources:"),
    "not UTF-8": ("[{secret}]", "[{secret}\udcff]"),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("command", ["check", "serve"])
def test_what_is_said_of_a_configuration_repeats_no_secret(tmp_path, command, name):
    marks = Marks()
    good, bad = MISTAKES[name]
    assert good in CONFIGURATION
    text = CONFIGURATION.replace(good, bad).format(secret=marks.plant("secret"), token=marks.plant("token"),
                                                   password=marks.plant("password"))
    path = tmp_path / "bad.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = oncehook(command, "-c", path, check=False, timeout=20)
    said = done.stdout + done.stderr
    assert done.returncode == 2, f"{name}: {done.returncode}\n{said}"
    assert re.search(rf"^{re.escape(str(path))}:\d+: \S", said, re.M), said
    assert not marks.found_in(said), f"{marks.found_in(said)}\n{said}"


def test_a_variable_of_the_environment_is_named_and_not_shown(tmp_path):
    marks = Marks()
    path = tmp_path / "bad.yaml"
    path.write_text(CONFIGURATION.replace("[{secret}]", "[]").replace("event_id: /id", "event_id: ${{PLANTED}}")
                    .format(token=marks.plant("token"), password="p"), encoding="utf-8")
    done = oncehook("check", "-c", path, check=False, env={"PLANTED": marks.plant("variable")})
    assert done.returncode == 2
    assert not marks.found_in(done.stdout + done.stderr), done.stderr


# ---- messages of the commands ---------------------------------------------------------------------------


def test_commands_that_cannot_reach_their_database_repeat_no_password(cluster, tmp_path):
    marks = Marks()
    password = marks.plant("password")
    marks.plant("owner's password", OWNER_PASSWORD)
    for url in (f"postgresql://oncehook_owner:{password}@127.0.0.1:{cluster.port}/postgres",
                f"postgresql://oncehook_owner:{password}@127.0.0.1:1/postgres",
                f"postgresql://oncehook_owner:{password}%zz@127.0.0.1:1/postgres",
                f"postgresql://oncehook_owner:{OWNER_PASSWORD}@127.0.0.1:{cluster.port}/nothing",
                f"password={password} host"):
        for command in (("migrate", "status"), ("migrate", "up"), ("audit",)):
            done = oncehook(*command, "--database", url, check=False, timeout=30)
            said = done.stdout + done.stderr
            assert done.returncode in (1, 2) and said.strip(), (command, url, said)
            assert not marks.found_in(said), f"{command} {url}\n{said}"


def test_send_and_verify_repeat_no_secret(tmp_path):
    marks = Marks()
    path = tmp_path / "send.yaml"
    path.write_text(CONFIGURATION.format(secret=marks.plant("secret"), token=marks.plant("token"),
                                         password=marks.plant("password"))
                    .replace('"127.0.0.1:0"', '"127.0.0.1:1"', 1), encoding="utf-8")
    done = oncehook("send", "-c", path, "--source", "one", "--event",
                    json.dumps({"id": "1", "email": marks.plant("payload")}), check=False, timeout=30)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).strip() and not marks.found_in(done.stdout + done.stderr), done
    record = {"id": "r1", "provider": "github", "method": "POST", "url": "https://a.example/in/github",
              "headers": {"X-Hub-Signature-256": "sha256=" + marks.plant("signature", secrets.token_hex(32))},
              "body": json.dumps({"email": marks.plant("recorded payload")}),
              "secret": marks.plant("recorded secret"), "now": int(time.time()), "expect": "accept"}
    recorded = tmp_path / "recorded.json"
    for records in ([record], [{**record, "provider": marks.plant("provider")}], [{**record, "now": "x"}], [record, 7]):
        recorded.write_text(json.dumps(records), encoding="utf-8")
        done = oncehook("verify", recorded, check=False)
        said = done.stdout + done.stderr
        assert done.returncode in (1, 2) and said.strip()
        seen = [name for name in marks.found_in(said) if name != "provider"]
        assert not seen, f"{seen}\n{said}"


@pytest.mark.parametrize("provider,scheme,place", [("aircall", "aircall", "token"), ("lemlist", "lemlist", "secret"),
                                                   ("smartlead", "smartlead", "secret_key")])
def test_a_token_in_the_body_is_not_kept(start_gateway, database, provider, scheme, place):
    marks = Marks()
    source = sign.Source("one", provider=provider, scheme=scheme, secrets=[marks.plant("token")])
    gateway = start_gateway(sources=[source])
    body = json.dumps({"event": "a", "type": "b", "data": {"id": 1}, place: marks.planted["token"], "n": 1.50}).encode()
    for outcome in ("captured", "duplicates"):
        answer = gateway.request("POST", "/in/one", {"Content-Type": "application/json"}, body, tls=False)
        assert (answer.status, json.loads(answer.body)[outcome]) == (200, 1)
    assert database.value("SELECT payload ->> %s FROM campaign_events", place) == "*" * len(marks.planted["token"])
    broken = body + b" }"  # no JSON, so there is no token in it
    assert gateway.request("POST", "/in/one", {}, broken, tls=False).status == 401
    assert marks.found_in(str(database.sql("SELECT * FROM campaign_events"))) == []
