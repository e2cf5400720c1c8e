"""Handshakes that bring a secret: kept in the database before they are answered, taken only while the source is armed,
shared by gateways, bounded, shown by `providers --source`, and never in a log."""

import hashlib
import hmac
import json
import signal
import time
import uuid

from support import process, sign
from support.gateway import oncehook


def moment(offset_s):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + offset_s))


class Asana(sign.Source):
    provider = "asana"

    def __init__(self, name="asana", armed_s=600, **config):
        super().__init__(name, **config)
        self.config.pop("map")
        if armed_s is not None:
            self.config["handshake"] = {"arm_until": moment(armed_s)}


def handshake(gateway, secret, source="asana"):
    return gateway.request("POST", f"/in/{source}", {"X-Hook-Secret": secret}, b"", tls=False)


def deliver(gateway, secret, source="asana"):
    body = json.dumps({"events": [{"action": "added", "resource": {"gid": uuid.uuid4().hex, "resource_type": "task"},
                                   "created_at": "2026-01-01T00:00:00.000Z"}]}).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return gateway.request("POST", f"/in/{source}", {"X-Hook-Signature": signature}, body, tls=False).status


def arm(gateway, until):
    with open(gateway.config_path, encoding="utf-8") as file:
        config = json.load(file)
    config["sources"][0]["handshake"] = {"arm_until": until}
    if until is None:
        del config["sources"][0]["handshake"]
    with open(gateway.config_path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    reload(gateway)


def reload(gateway):
    def count():
        return sum(line["message"] == "secrets reloaded" for line in gateway.log_lines())
    before = count()
    gateway.child.send_signal(signal.SIGHUP)
    process.wait_until(lambda: count() > before, what="the reload")


def new_secret():
    return "asana-" + uuid.uuid4().hex


def test_a_secret_is_learned_while_armed_and_outlives_the_gateway(start_gateway, database):
    gateway = start_gateway(sources=[Asana(), sign.Hmac()])
    secret, second = new_secret(), new_secret()
    assert deliver(gateway, secret) == 401
    answer = handshake(gateway, secret)
    assert answer.status == 200 and answer.headers["x-hook-secret"] == secret and answer.body == b""
    assert database.sql("SELECT source, secret FROM learned_secrets") == [("asana", secret)]
    assert deliver(gateway, secret) == 200, "with the next request"
    assert handshake(gateway, secret).status == 200 and handshake(gateway, second).status == 200
    assert deliver(gateway, second) == 200 and deliver(gateway, secret) == 200
    assert database.value("SELECT count(*) FROM learned_secrets") == 2

    arm(gateway, None)
    assert handshake(gateway, new_secret()).status == 403
    assert deliver(gateway, secret) == 200 and deliver(gateway, second) == 200
    assert gateway.stop() == 0
    gateway.start()
    process.wait_until(lambda: deliver(gateway, secret) == 200, what="the secret after a restart")
    log = gateway.log_text()
    assert secret not in log and second not in log and "x-hook" not in log.lower()
    assert database.value("SELECT count(*) FROM quarantined_deliveries") == 0


def test_arming_ends_by_itself(start_gateway, database):
    gateway = start_gateway(sources=[Asana(armed_s=3)])
    first = new_secret()
    assert handshake(gateway, first).status == 200
    process.wait_until(lambda: handshake(gateway, first).status == 403, what="arm_until")
    assert handshake(gateway, new_secret()).status == 403
    assert database.value("SELECT count(*) FROM learned_secrets") == 1
    assert deliver(gateway, first) == 200


def test_another_gateway_learns_it_too(start_gateway, database):
    one, other = (start_gateway(sources=[Asana()]) for _ in range(2))
    secret = new_secret()
    assert handshake(one, secret).status == 200 and deliver(one, secret) == 200
    process.wait_until(lambda: deliver(other, secret) == 200, timeout=5, what="the other gateway")
    # And forgets it, once the owner has taken it away.
    database.sql("DELETE FROM learned_secrets")
    for gateway in (one, other):
        reload(gateway)
        process.wait_until(lambda: deliver(gateway, secret) == 401, what="the end")  # pylint: disable=cell-var-from-loop
    looks = [line for line in other.log_lines() if line["message"] == "learned secrets are in use"]
    assert len(looks) == 2, "a look that finds nothing new changes nothing"


def test_nothing_is_answered_before_it_is_kept(start_gateway, private_cluster):
    database = private_cluster.create_database()
    oncehook("migrate", "up", "--database", database.owner_url)
    gateway = start_gateway({"database": {"connect_timeout": "1s"}, "ack_deadline": "2s"}, sources=[Asana()],
                            database=database)
    secret = new_secret()
    private_cluster.stop()
    answer = handshake(gateway, secret)
    assert answer.status == 503 and "x-hook-secret" not in answer.headers and answer.headers["retry-after"] == "2"
    assert deliver(gateway, secret) in (401, 503)
    impatient = gateway.wire()
    impatient.send(f"POST /in/asana HTTP/1.1\r\nHost: x\r\nX-Hook-Secret: {secret}\r\nContent-Length: 0\r\n\r\n".encode())
    impatient.close()
    private_cluster.start()
    process.wait_until(lambda: handshake(gateway, secret).status == 200, timeout=20, what="the database")
    process.wait_until(lambda: deliver(gateway, secret) == 200, what="an event")
    # The end does not wait for a database that is away; who waits hears 503.
    private_cluster.stop()
    waiting = gateway.wire()
    waiting.send(f"POST /in/asana HTTP/1.1\r\nHost: x\r\nX-Hook-Secret: {secret}x\r\nContent-Length: 0\r\n\r\n".encode())
    time.sleep(0.2)
    assert gateway.stop() == 0
    assert waiting.answer().status == 503
    waiting.close()
    assert secret not in gateway.log_text()


def test_a_source_learns_32_and_none_gives_way(start_gateway, database):
    database.sql("INSERT INTO learned_secrets (source, secret) SELECT 'asana', 'known-' || i FROM generate_series(1, 32) i")
    gateway = start_gateway(sources=[Asana(), Asana("other", secrets=["configured"])])
    known = "known-1"
    process.wait_until(lambda: deliver(gateway, known) == 200)
    assert handshake(gateway, new_secret()).status == 403 and handshake(gateway, known).status == 200
    assert handshake(gateway, new_secret(), "other").status == 200
    assert deliver(gateway, known) == 200 and deliver(gateway, known, "other") == 401
    assert deliver(gateway, "configured", "other") == 200
    assert database.value("SELECT count(*) FROM learned_secrets WHERE source = 'asana'") == 32


def test_handshakes_in_a_crowd_are_all_kept_or_refused(start_gateway, database):
    """More at once than are kept waiting: each is either 200 and in the table, or 503 and may come again."""
    gateway = start_gateway(sources=[Asana(f"a{i}") for i in range(12)])
    wires = [(gateway.wire(), f"a{i % 12}", new_secret()) for i in range(120)]
    for wire, source, secret in wires:
        wire.send(f"POST /in/{source} HTTP/1.1\r\nHost: x\r\nX-Hook-Secret: {secret}\r\nContent-Length: 0\r\n\r\n".encode())
    kept = set()
    for wire, source, secret in wires:
        status = wire.answer().status
        assert status in (200, 503)
        if status == 200:
            kept.add((source, secret))
        wire.close()
    assert kept
    stored = {tuple(row) for row in database.sql("SELECT source, secret FROM learned_secrets")}
    assert kept <= stored
    for source, secret in sorted(kept)[:5]:
        assert deliver(gateway, secret, source) == 200


def test_providers_source_shows_evidence_and_no_secret(start_gateway, database):
    hmac_source = sign.Hmac()
    hmac_source.config["secrets"] = [{"value": "${EARLY}", "name": "early", "not_before": moment(3600)},
                                     hmac_source.secret, {"value": "ended", "not_after": moment(-3600)}]
    gateway = start_gateway(sources=[Asana(), hmac_source], env={"EARLY": "not-yet-4711"})
    secret = new_secret()
    assert handshake(gateway, secret).status == 200 and deliver(gateway, secret) == 200
    assert gateway.deliver("hmac", hmac_source.event()).status == 200
    admin = f"http://127.0.0.1:{gateway.admin_port}"

    def show(source, *more):
        return oncehook("providers", "--source", source, "-c", gateway.config_path, "--admin", admin, *more,
                        env={"EARLY": "not-yet-4711"})
    shown = json.loads(show("hmac", "--json").stdout)
    rows = {row["name"]: row for row in shown["secrets"]}
    assert {name: (row["from"], row["state"], row["loaded"], row["last_matched_at"] is not None)
            for name, row in rows.items()} == {"early": ("environment", "waits", True, False),
                                               "2": ("configuration", "live", True, True),
                                               "3": ("configuration", "ended", True, False)}
    shown = json.loads(show("asana", "--json").stdout)
    assert shown["is_armed"] and shown["handshake_brings_secret"] and len(shown["secrets"]) == 1
    learned = shown["secrets"][0]
    assert learned["name"].startswith("learned-") and learned["learned_at"][:10] == moment(0)[:10]
    assert learned["last_matched_at"] and "secret" not in learned
    text = show("asana").stdout
    assert learned["name"] in text and "armed until" in text and secret not in text
    for said in (show("hmac").stdout, show("hmac", "--json").stdout):
        assert not any(one in said for one in (hmac_source.secret, "not-yet-4711", "ended-"))
    assert secret in show("asana", "--reveal").stdout

    # A gateway that cannot be asked, and a source that is not there.
    done = oncehook("providers", "--source", "hmac", "-c", gateway.config_path, "--admin", "http://127.0.0.1:1",
                    env={"EARLY": "x"})
    assert "not known" in done.stdout and "no gateway answers" in done.stderr
    assert oncehook("providers", "--source", "none", "-c", gateway.config_path, check=False,
                    env={"EARLY": "x"}).returncode == 1
    assert oncehook("providers", "--source", "hmac", check=False).returncode == 2


def test_notion_is_learned_from_the_body(start_gateway, database):
    source = sign.Source("notion", provider="notion", handshake={"arm_until": moment(600)})
    source.config.pop("map")
    gateway = start_gateway(sources=[source])
    token = "secret_" + uuid.uuid4().hex
    answer = gateway.request("POST", "/in/notion", {"Content-Type": "application/json"},
                             json.dumps({"verification_token": token}).encode(), tls=False)
    assert answer.status == 200 and token.encode() not in answer.body
    body = json.dumps({"id": str(uuid.uuid4()), "type": "page.created", "timestamp": "2026-01-01T00:00:00.000Z"}).encode()
    signature = "sha256=" + hmac.new(token.encode(), body, hashlib.sha256).hexdigest()
    assert gateway.request("POST", "/in/notion", {"X-Notion-Signature": signature}, body, tls=False).status == 200
    # Letters that no token has are no token, armed or not.
    answer = gateway.request("POST", "/in/notion", {}, json.dumps({"verification_token": 'a"b'}).encode(), tls=False)
    assert answer.status == 400
    assert database.value("SELECT count(*) FROM learned_secrets") == 1
    assert token not in gateway.log_text()
