"""`oncehook send` against a receiver of the tests' own, which checks signatures in Python and with the
openssl program: what is sent, what is printed, and what the exit code says."""

import base64
import http.server
import json
import os
import re
import ssl
import subprocess
import threading
import time

import pytest

from support import sign
from support.gateway import oncehook


class Receiver:
    """A stand-in for the gateway on HTTPS: it accepts what is signed rightly and fresh, and says
    duplicate for a body that it has seen."""

    def __init__(self, certificate, sources):
        self.sources = {source.name: source for source in sources}
        self.requests, self.seen, self.lock = [], set(), threading.Lock()
        self.status = None  # a status to answer with, whatever comes
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = receiver.decide(self.path, self.headers, body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def decide(self, path, headers, body):
        with self.lock:
            self.requests.append((path, headers, body))
            if self.status:
                return self.status, {"title": "as told"}
            source = self.sources.get(path.removeprefix("/in/"))
            if source is None:
                return 404, {"title": "no such source"}
            if not signature_is_right(source, headers, body):
                return 401, {"title": "refused"}
            events = json.loads(body)
            count = len(events) if isinstance(events, list) else 1
            duplicate = count if body in self.seen else 0
            self.seen.add(body)
            return 200, {"captured": count - duplicate, "duplicates": duplicate, "orphans": 0,
                         "quarantined": 0, "spooled": 0}


def signature_is_right(source, headers, body):
    """What the provider's own library would say; a second opinion on `send`."""
    if isinstance(source, sign.SendGrid):
        return sendgrid_is_right(source, headers, body)
    stamp = None
    if isinstance(source, sign.Stripe):
        found = re.fullmatch(r"t=(\d+),v1=[0-9a-f]{64}", headers.get("Stripe-Signature", ""))
        if not found or abs(time.time() - int(found.group(1))) > 300:
            return False
        stamp = int(found.group(1))
    wanted = source.sign(body, stamp)
    name = next(name for name in wanted if "signature" in name.lower())
    return headers.get(name) == wanted[name]


def sendgrid_is_right(source, headers, body):
    stamp = headers.get("X-Twilio-Email-Event-Webhook-Timestamp", "")
    signature = headers.get("X-Twilio-Email-Event-Webhook-Signature", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > 7 * 86400:
        return False
    public = sign.openssl("pkey", "-pubout", stdin=source.private)
    directory = os.environ["PYTEST_CURRENT_DIRECTORY"]
    paths = [os.path.join(directory, name) for name in ("public.pem", "signature.der")]
    for path, data in zip(paths, (public, base64.b64decode(signature, validate=True))):
        with open(path, "wb") as file:
            file.write(data)
    done = subprocess.run(["openssl", "dgst", "-sha256", "-verify", paths[0], "-signature", paths[1]],
                          input=stamp.encode() + body, capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def receiver(certificate, sources, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_CURRENT_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("ONCEHOOK_CA", raising=False)
    made = Receiver(certificate, sources)
    yield made
    made.close()


@pytest.fixture
def config(tmp_path, certificate, sources, receiver):
    """The configuration of a gateway that listens where the receiver does; SendGrid's private half
    is where `dev` puts it."""
    port = receiver.server.server_address[1]
    path = tmp_path / "oncehook.yaml"
    path.write_text(json.dumps({
        "listen": {"https": f"127.0.0.1:{port}", "tls": {"certificate": certificate[0], "key": certificate[1]}},
        "database": {"url": "postgresql://nobody@127.0.0.1:1/none"},
        "sources": [source.config for source in sources]}))
    (tmp_path / "keys").mkdir()
    for source in sources:
        if isinstance(source, sign.SendGrid):
            (tmp_path / "keys" / f"{source.name}.pem").write_bytes(source.private)
    return path


def send(config, source, *arguments, check=True, **options):
    return oncehook("send", "-c", config, "--source", source, *arguments, check=check, **options)


PROVIDERS = ["hmac", "github", "stripe", "sendgrid"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_sample_is_signed_as_the_provider_signs(receiver, config, provider):
    done = send(config, provider)
    assert re.fullmatch(r'200 \{"captured": 1, "duplicates": 0, .*\} \d+\.\d ms\n', done.stdout)
    (path, headers, body), = receiver.requests
    assert path == f"/in/{provider}"
    assert headers["Content-Type"] == "application/json"
    assert isinstance(json.loads(body), list) == (provider == "sendgrid")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_each_sample_has_an_id_of_its_own(receiver, config, provider):
    send(config, provider, "--count", "12")
    ids = {headers["X-GitHub-Delivery"] if provider == "github" else
           json.loads(body)[0]["sg_event_id"] if provider == "sendgrid" else json.loads(body)["id"]
           for _, headers, body in receiver.requests}
    assert len(ids) == len(receiver.requests) == 12


def test_duplicates_are_the_same_bytes_and_said_so(receiver, config):
    done = send(config, "stripe", "--duplicate", "--count", "2")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["200"] * 4
    bodies = [body for _, _, body in receiver.requests]
    assert bodies[0] == bodies[1] != bodies[2] == bodies[3]


def test_a_duplicate_that_is_captured_again_is_the_answer_no(receiver, config):
    receiver.seen = frozenset()  # the receiver forgets everything

    class Forgetful(set):
        def add(self, _):
            pass
    receiver.seen = Forgetful()
    done = send(config, "stripe", "--duplicate", check=False)
    assert done.returncode == 1
    assert "captured 1 and duplicates 1" in done.stderr


@pytest.mark.parametrize("provider", PROVIDERS)
def test_tampering_changes_one_byte_after_signing(receiver, config, provider):
    done = send(config, provider, "--tamper")
    assert done.stdout.startswith("401 ")
    _, headers, body = receiver.requests[0]
    assert not signature_is_right(receiver.sources[provider], headers, body)


@pytest.mark.parametrize("provider", ["stripe", "sendgrid"])
def test_a_stale_time_is_signed_rightly_but_old(receiver, config, provider):
    done = send(config, provider, "--stale")
    assert done.stdout.startswith("401 ")
    _, headers, body = receiver.requests[0]
    if provider == "stripe":
        stamp = int(re.match(r"t=(\d+),", headers["Stripe-Signature"]).group(1))
        assert headers["Stripe-Signature"] == receiver.sources[provider].sign(body, stamp)["Stripe-Signature"]
    else:
        stamp = int(headers["X-Twilio-Email-Event-Webhook-Timestamp"])
    assert time.time() - stamp > 300


@pytest.mark.parametrize("option", ["--tamper", "--stale"])
def test_a_spoilt_delivery_that_is_accepted_is_the_answer_no(receiver, config, option):
    receiver.status = 200
    done = send(config, "stripe", option, check=False)
    assert done.returncode == 1
    assert "not refused with 401" in done.stderr


def test_a_scheme_without_a_time_cannot_be_stale(receiver, config):
    done = send(config, "github", "--stale", check=False)
    assert done.returncode == 2
    assert "signs no time" in done.stderr
    assert not receiver.requests


UNBOUND = ["adyen", "auth0", "mailgun", "monday", "plivo_v2", "postmark", "smartlead"]


@pytest.mark.parametrize("scheme", [*UNBOUND, "dialpad"])
def test_what_a_scheme_does_not_bind_cannot_be_spoilt(config, scheme):
    made = json.loads(config.read_text())
    secrets = ["a:b"] if scheme == "postmark" else ["ab" * 32]
    provider = scheme.split("_")[0]
    made["listen"]["public_url"] = "https://hooks.example.com"
    made["sources"] = [{"name": "one", "provider": provider, "scheme": scheme, "secrets": secrets}]
    config.write_text(json.dumps(made))
    option, words = ("--stale", "signs no time") if scheme == "dialpad" else ("--tamper", "does not sign the body")
    done = send(config, "one", option, check=False)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert send(config, "one", "--tamper", "--print-curl", check=False).returncode == (0 if scheme == "dialpad" else 2)


@pytest.mark.parametrize("status", [401, 404, 503])
def test_an_answer_that_is_not_acceptance_is_the_answer_no(receiver, config, status):
    receiver.status = status
    done = send(config, "hmac", check=False)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{status} ")


def test_many_are_summed_up(receiver, config):
    done = send(config, "hmac", "--count", "100", "--duplicate", check=False)
    assert done.returncode == 0, done.stderr
    assert re.match(r"200 deliveries in \d+\.\d\d s \(\d+/s\): 200 x 200\n", done.stdout)
    assert "captured 100, duplicates 100, orphans 0, quarantined 0, spooled 0\n" in done.stdout
    assert len(receiver.requests) == 200


@pytest.mark.parametrize("body", ['{"id":"a"}', "", "not JSON", '{"quote":"it\'s"}', '{"é":"ü"}', "@"])
def test_an_event_given_is_sent_byte_for_byte(receiver, config, tmp_path, body):
    receiver.status = 200
    file = tmp_path / "event"
    file.write_bytes(body.encode())
    send(config, "hmac", "--event", f"@{file}")
    if not body.startswith("@"):
        send(config, "hmac", "--event", body)
    assert {sent for _, _, sent in receiver.requests} == {body.encode()}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("body", ids=["sample", "shell", "at", "control", "text"], argvalues=[
    None, b"it's $HOME `id` \"!\" \\n %s", b"@/etc/hostname", b"tab \t, line\nend\n", "\u00e9\u2713".encode()])
def test_print_curl_is_a_command_that_sends_the_same(receiver, config, tmp_path, provider, body):
    arguments = []
    if body is not None:
        (tmp_path / "event").write_bytes(body)
        arguments = ["--event", f"@{tmp_path}/event"]
    done = send(config, provider, "--print-curl", *arguments)
    assert not receiver.requests
    # Bodies that are no JSON cannot be counted by the receiver: it only has to see them signed.
    if body is not None:
        receiver.decide = lambda path, headers, sent: (
            receiver.requests.append((path, headers, sent)) or
            (200 if signature_is_right(receiver.sources[provider], headers, sent) else 401, {}))
    (tmp_path / "command").write_text(done.stdout.rstrip("\n") + " -w '%{http_code}'\n")
    ran = subprocess.run(["sh", "command"], capture_output=True, check=False, cwd=tmp_path, timeout=60)
    assert ran.returncode == 0 and ran.stdout.endswith(b"200"), (done.stdout[:2000], ran)
    (_, _, sent), = receiver.requests
    assert body is None or sent == body


@pytest.mark.parametrize("body", ids=["nul", "long"], argvalues=[b"nul \0", b"x" * 200_000])
def test_print_curl_refuses_what_no_argument_can_hold(receiver, config, tmp_path, body):
    (tmp_path / "event").write_bytes(body)
    done = send(config, "hmac", "--print-curl", "--event", f"@{tmp_path}/event", check=False)
    assert done.returncode == 2 and done.stdout == "" and "needs a file" in done.stderr
    assert not receiver.requests


def test_the_private_key_can_be_another(receiver, config, tmp_path):
    other = sign.SendGrid()
    (tmp_path / "other.pem").write_bytes(other.private)
    done = send(config, "sendgrid", "--key", tmp_path / "other.pem", check=False)
    assert done.returncode == 1 and done.stdout.startswith("401 ")
    receiver.sources["sendgrid"] = other
    send(config, "sendgrid", "--key", tmp_path / "other.pem")


def test_no_secret_is_printed(receiver, config, tmp_path):
    (tmp_path / "bad.pem").write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    shown = ""
    for arguments in (["hmac"], ["github", "--print-curl"], ["sendgrid", "--key", tmp_path / "bad.pem"]):
        done = send(config, *arguments, check=False)
        shown += done.stdout + done.stderr
    for source in receiver.sources.values():
        for secret in (getattr(source, "secret", None), "c2VjcmV0"):
            assert not secret or secret not in shown


def test_a_certificate_that_is_not_the_gateways_is_refused(receiver, config, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    certificate, _ = sign.self_signed(str(other))
    done = send(config, "hmac", "--ca", certificate, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("no answer: ")
    done = send(config, "hmac", check=False, env={"ONCEHOOK_CA": certificate})
    assert done.returncode == 1
    assert not receiver.requests


def test_the_url_can_be_another(receiver, config):
    text = config.read_text().replace(f":{receiver.server.server_address[1]}", ":0")
    config.write_text(text)
    done = send(config, "hmac", check=False)
    assert done.returncode == 2 and "--url" in done.stderr
    send(config, "hmac", "--url", receiver.url + "/")
    assert receiver.requests[0][0] == "/in/hmac"


def test_nobody_there_is_the_answer_no(config, receiver):
    receiver.server.shutdown()
    receiver.server.server_close()
    done = send(config, "hmac", check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("no answer: ")


@pytest.mark.parametrize("arguments, words", [
    ([], "--source"), (["--source", "nobody"], "no source 'nobody'"), (["--source", "hmac", "--count", "0"], "--count"),
    (["--source", "hmac", "--count", "1x"], "--count"), (["--source", "hmac", "more"], "no argument"),
    (["--source", "hmac", "--event", "@/no/such"], "/no/such"),
    (["--source", "hmac", "--event", "", "--tamper"], "empty body"),
    (["--source", "sendgrid", "--key", "/no/such"], "/no/such")])
def test_usage(config, receiver, arguments, words):
    done = oncehook("send", "-c", config, *arguments, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert not receiver.requests


def test_a_configuration_with_mistakes_is_told_with_its_line(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("listen:\n  nonsense: 1\n")
    done = oncehook("send", "-c", path, "--source", "hmac", check=False)
    assert done.returncode == 2
    assert f"{path}:2:" in done.stderr


def test_help_names_every_option():
    done = oncehook("send", "--help")
    for option in ("--source", "--event", "--count", "--duplicate", "--tamper", "--stale", "--key",
                   "--print-curl", "--url", "--ca"):
        assert option in done.stdout
