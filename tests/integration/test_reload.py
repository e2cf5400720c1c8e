"""SIGHUP: secrets change while requests go on. Nothing is dropped, nothing that a live secret signed is refused,
a configuration with mistakes changes nothing, and what waits for a restart is said."""

import hashlib
import hmac
import json
import os
import re
import signal
import threading
import time

from support import process, sign
from support.gateway import REPOSITORY

LAST_MATCH = "oncehook_secret_last_match_timestamp_seconds"


def change(gateway, edit):
    """Rewrites the configuration, as an editor would."""
    with open(gateway.config_path, encoding="utf-8") as file:
        config = json.load(file)
    edit(config)
    with open(gateway.config_path + ".new", "w", encoding="utf-8") as file:
        json.dump(config, file)
    os.replace(gateway.config_path + ".new", gateway.config_path)


def said(gateway, message):
    return [line for line in gateway.log_lines() if line["message"] == message]


def hup(gateway, message="secrets reloaded"):
    """SIGHUP; returns once the log says what became of it."""
    before = len(said(gateway, message))
    gateway.child.send_signal(signal.SIGHUP)
    process.wait_until(lambda: len(said(gateway, message)) > before, what=f"`{message}`")
    return said(gateway, message)[-1]


def deliver(gateway, source, secret, **fields):
    body = source.encode(source.event(**fields))
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return gateway.post(source.name, body, {"X-Signature": signature}, tls=False).status


def match(gateway, source, secret):
    return gateway.metrics()[f'{LAST_MATCH}{{source="{source}",secret="{secret}"}}']


def test_rotation_under_a_stream_of_requests_drops_and_refuses_nothing(start_gateway, database, rng):
    """The old and the new secret sign in turns while the file changes from [old] over both to [new] and back, dozens of
    times. A secret is only used while every configuration between two reloads has it."""
    source = sign.Hmac()
    gateway = start_gateway(sources=[source])
    old, new = source.secret, "the-next-" + os.urandom(16).hex()
    usable, lock, stop = {old}, threading.Lock(), threading.Event()
    statuses, problems = {old: 0, new: 0}, []

    inflight = {}

    def send(number):
        turn = number
        while not stop.is_set():
            with lock:
                secret = sorted(usable)[turn % len(usable)]
                inflight[number] = secret
            try:
                status = deliver(gateway, source, secret)
            except OSError as problem:
                status = repr(problem)
            with lock:
                del inflight[number]
                statuses[secret] += 1
                if status != 200:
                    problems.append((status, "old" if secret == old else "new"))
            turn += 1

    def await_end(secrets):
        def none_left():
            with lock:
                return not secrets & set(inflight.values())
        process.wait_until(none_left)

    threads = [threading.Thread(target=send, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            for live in ([new, old], [new], [old, new], [old]):
                with lock:
                    usable.intersection_update(live)
                await_end({old, new} - set(live))
                change(gateway, lambda config, live=live: config["sources"][0].update(secrets=live))
                hup(gateway)
                with lock:
                    usable.update(live)
                time.sleep(rng.uniform(0, 0.03))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not problems, problems[:10]
    assert min(statuses.values()) > 10, statuses
    assert database.value("SELECT count(*) FROM campaign_events") == sum(statuses.values())
    assert gateway.metric("oncehook_reload_failures_total") == 0
    assert old not in gateway.log_text() and new not in gateway.log_text()


def test_signals_in_a_burst_are_one_reload_or_more(start_gateway):
    gateway = start_gateway()
    for _ in range(50):
        gateway.child.send_signal(signal.SIGHUP)
    process.wait_until(lambda: said(gateway, "secrets reloaded"))
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 200


def test_a_file_is_read_again_and_says_when_each_secret_last_matched(start_gateway, tmp_path):
    source = sign.Hmac()
    path = tmp_path / "secret"
    path.write_text("first\n")
    source.config["secrets"] = [{"file": str(path), "name": "of-file"}, {"value": "second", "name": "fixed"}]
    gateway = start_gateway(sources=[source])
    begun = time.time()
    assert deliver(gateway, source, "first") == 200
    matched = match(gateway, "hmac", "of-file")
    assert begun - 1 <= matched <= time.time() and match(gateway, "hmac", "fixed") == 0
    path.write_text("third\n")
    assert deliver(gateway, source, "third") == 401, "until SIGHUP it is the old one"
    loaded = gateway.metric("oncehook_configuration_loaded_timestamp_seconds")
    hup(gateway)
    assert gateway.metric("oncehook_configuration_loaded_timestamp_seconds") >= loaded
    assert deliver(gateway, source, "first") == 401 and match(gateway, "hmac", "of-file") == 0
    assert deliver(gateway, source, "third") == 200 and match(gateway, "hmac", "of-file") > 0
    # In another place and under another name it is still the same secret.
    change(gateway, lambda config: config["sources"][0].update(secrets=["second", "third"]))
    seen = match(gateway, "hmac", "of-file")
    hup(gateway)
    assert match(gateway, "hmac", "2") == seen and match(gateway, "hmac", "1") == 0


def test_not_before_and_not_after_hold_without_a_reload(start_gateway):
    def moment(offset):
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + offset))
    source = sign.Hmac()
    source.config["secrets"] = ["always", {"value": "early", "not_before": moment(3600)},
                                {"value": "late", "not_after": moment(-3600)},
                                {"value": "soon", "name": "soon", "not_after": moment(4)}]
    gateway = start_gateway(sources=[source])
    assert [deliver(gateway, source, secret) for secret in ("always", "early", "late")] == [200, 401, 401]
    reasons = {line["reason"] for line in said(gateway, "delivery refused")}
    assert reasons == {"only a secret outside its not_before and not_after gives this signature"}
    process.wait_until(lambda: deliver(gateway, source, "soon") == 401, what="not_after")
    assert match(gateway, "hmac", "2") == match(gateway, "hmac", "3") == 0


def test_a_configuration_with_mistakes_changes_nothing(start_gateway):
    source = sign.Hmac()
    gateway = start_gateway(sources=[source])
    with open(gateway.config_path, encoding="utf-8") as file:
        good = file.read()
    for text, reason in (("listen: [", ""), (good.replace('"sha256"', '"md5"'), "sources[].algorithm"),
                         (good.replace("X-Signature", "X-Signature").replace(source.secret, "${NOT_SET_4711}"),
                          "NOT_SET_4711 is not set")):
        failures = gateway.metric("oncehook_reload_failures_total")
        with open(gateway.config_path, "w", encoding="utf-8") as file:
            file.write(text)
        line = hup(gateway, "configuration not reloaded: the old one stays in use")
        assert line["mistakes"] >= 1 and line["level"] == "error"
        assert any(reason in told["reason"] and told["line"] > 0 for told in said(gateway, "a mistake in the configuration"))
        assert gateway.metric("oncehook_reload_failures_total") == failures + 1
        assert deliver(gateway, source, source.secret) == 200
    os.unlink(gateway.config_path)
    hup(gateway, "configuration not reloaded: the old one stays in use")
    assert deliver(gateway, source, source.secret) == 200
    with open(gateway.config_path, "w", encoding="utf-8") as file:
        file.write(good)
    hup(gateway)
    assert deliver(gateway, source, source.secret) == 200


def test_what_waits_for_a_restart_is_named(start_gateway):
    gateway = start_gateway()
    def edit(config):
        config["listen"]["http"] = "127.0.0.1:1"
        config["database"]["lanes"] = 3
        config["sources"][0]["secrets"] = ["changed"]
        config["sources"].append({"name": "more", "provider": "stripe", "secrets": ["x"]})
    change(gateway, edit)
    hup(gateway)
    line = process.wait_until(lambda: said(gateway, "changes that wait for a restart"))[-1]
    assert line["options"] == "listen.http, database.lanes, source more is new"
    assert gateway.request("POST", "/in/more", {}, b"{}", tls=False).status == 404
    assert deliver(gateway, gateway.sources["hmac"], "changed") == 200


def test_the_unit_reloads():
    with open(os.path.join(REPOSITORY, "deploy", "oncehook.service"), encoding="utf-8") as file:
        unit = file.read()
    assert re.search(r"^ExecReload=/bin/kill -HUP \$MAINPID$", unit, re.M)
    assert re.search(r"^ExecStart=\S+/oncehook serve -c ", unit, re.M)
