"""Certificates that providers sign with (Amazon SNS, PayPal): fetched from the provider's own hosts by a thread
of its own, judged, kept; and what is not right is never used. The provider's servers are a TLS server here, which
the gateway reaches through `certificates.proxy`: the names in URLs and certificates are the real ones."""

import base64
import http.server
import json
import os
import re
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
import time
import uuid
import zlib

import pytest

from support import process
from support.gateway import BINARY, environment
from support.sign import Source, openssl

SNS, PAYPAL, OTHER = "sns.us-east-1.amazonaws.com", "api.paypal.com", "evil.example.com"
TOPIC, WEBHOOK = "arn:aws:sns:us-east-1:123456789012:events", "4JH86294D6297924G"


class Authority:
    """A root, and what it issues: issue() gives (key file, PEM)."""

    def __init__(self, directory, name="root"):
        self.directory, self.count = directory, 0
        self.key = os.path.join(directory, f"{name}.key")
        self.file = os.path.join(directory, f"{name}.pem")
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-out", self.file, "-days",
                "2", "-subj", f"/CN=tests {name}", "-addext", "basicConstraints=critical,CA:TRUE")

    def issue(self, *names, end="20990101000000Z", authority=False):
        self.count += 1
        stem = os.path.join(self.directory, f"{os.path.basename(self.file)}-{self.count}")
        with open(stem + ".cnf", "w", encoding="utf-8") as file:
            file.write(f"[x]\nbasicConstraints=critical,CA:{'TRUE' if authority else 'FALSE'}\n"
                       f"subjectAltName={','.join('DNS:' + n for n in names)}\n"
                       f"[ca]\ndefault_ca=d\n[d]\ndatabase={stem}.db\nnew_certs_dir={self.directory}\n"
                       f"rand_serial=yes\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n")
        with open(stem + ".db", "w", encoding="utf-8"):
            pass
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", stem + ".key", "-out", stem + ".csr",
                "-subj", f"/CN={names[0]}")
        openssl("ca", "-batch", "-notext", "-config", stem + ".cnf", "-extensions", "x", "-cert", self.file,
                "-keyfile", self.key, "-in", stem + ".csr", "-out", stem + ".pem", "-startdate", "20200101000000Z",
                "-enddate", end)
        with open(stem + ".pem", encoding="utf-8") as file:
            return stem + ".key", file.read()


class Site:
    """The provider's server under all its names: pages[path] is what it answers. Behind a proxy, whose
    `asked` are the hosts that somebody wanted to reach."""

    def __init__(self, key, pem):
        self.pages, self.hits, self.asked, site = {}, [], [], self

        class Pages(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.hits.append(self.path)
                status, headers, body = site.pages.get(self.path, (404, {}, b"nothing"))
                if status == 0:  # never
                    time.sleep(20)
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    pass  # it has read enough

            def log_message(self, *_):
                pass

        class Proxy(socketserver.StreamRequestHandler):
            def handle(self):
                line = self.rfile.readline().decode()
                while self.rfile.readline() not in (b"\r\n", b""):
                    pass
                site.asked.append(line.split()[1])
                with socket.create_connection(site.tls.server_address) as there:
                    self.request.sendall(b"HTTP/1.1 200 yes\r\n\r\n")
                    back = threading.Thread(target=self.copy, args=(there, self.request), daemon=True)
                    back.start()
                    self.copy(self.request, there)
                    back.join(20)

            @staticmethod
            def copy(source, to):
                try:
                    while data := source.recv(65536):
                        to.sendall(data)
                    to.shutdown(socket.SHUT_WR)
                except OSError:
                    pass

        self.tls = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        self.tls.daemon_threads = True
        self.wear(key, pem)
        self.tls.socket = self.context.wrap_socket(self.tls.socket, server_side=True,
                                                   do_handshake_on_connect=False)
        self.tls.handle_error = lambda *_: None
        self.proxy = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy)
        self.proxy.daemon_threads = True
        self.proxy.handle_error = lambda *_: None
        for server in (self.tls, self.proxy):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.proxy_url = f"http://127.0.0.1:{self.proxy.server_address[1]}"

    def wear(self, key, pem):
        """From now on with this certificate."""
        if not hasattr(self, "context"):
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with open(key + ".chain", "w", encoding="utf-8") as file:
            file.write(pem)
        self.context.load_cert_chain(key + ".chain", key)

    def close(self):
        for server in (self.tls, self.proxy):
            server.shutdown()
            server.server_close()


def rsa_sign(key, text):
    return base64.b64encode(openssl("dgst", "-sha256", "-sign", key, stdin=text)).decode()


class Sns(Source):
    """Amazon SNS: the secret is the topic."""

    provider = "aws_sns"

    def __init__(self, name=None, **config):
        super().__init__(name, secrets=[TOPIC], **config)

    @staticmethod
    def delivery(key, url, topic=TOPIC):
        """(headers, body) of a notification that `key` signs under the certificate at `url`."""
        event = {"Type": "Notification", "MessageId": str(uuid.uuid4()), "TopicArn": topic,
                 "Message": json.dumps({"eventType": "Open", "mail": {"messageId": "m1"}}),
                 "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()), "SignatureVersion": "2",
                 "SigningCertURL": url}
        text = "".join(f"{n}\n{event[n]}\n" for n in ("Message", "MessageId", "Timestamp", "TopicArn", "Type"))
        event["Signature"] = rsa_sign(key, text.encode())
        return {"x-amz-sns-message-type": "Notification", "Content-Type": "text/plain"}, json.dumps(event).encode()


class PayPal(Source):
    """PayPal: the secret is the webhook's id."""

    provider = "paypal"

    def __init__(self, name=None, **config):
        super().__init__(name, secrets=[WEBHOOK], **config)

    @staticmethod
    def delivery(key, url):
        body = json.dumps({"id": "WH-" + uuid.uuid4().hex, "event_type": "PAYMENT.SALE.COMPLETED"}).encode()
        stamp, number = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), str(uuid.uuid4())
        text = f"{number}|{stamp}|{WEBHOOK}|{zlib.crc32(body)}"
        return {"paypal-transmission-id": number, "paypal-transmission-time": stamp, "paypal-cert-url": url,
                "paypal-auth-algo": "SHA256withRSA", "paypal-transmission-sig": rsa_sign(key, text.encode()),
                "Content-Type": "application/json"}, body


@pytest.fixture(scope="module", name="root")
def root_fixture(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("root")))


@pytest.fixture(name="site")
def site_fixture(root):
    site = Site(*root.issue(SNS, PAYPAL, "api.sandbox.paypal.com"))
    yield site
    site.close()


def start(start_gateway, root, site, **more):
    return start_gateway(sources=[Sns(), PayPal()], config={
        "certificates": {"ca_file": root.file, "proxy": site.proxy_url, **more}})


def until(gateway, source, delivery, status, others=(503,)):
    """Sends it again, as a provider does, until the answer is `status`."""
    headers, body = delivery

    def answered():
        answer = gateway.post(source, body, headers)
        assert answer.status in (status, *others), answer
        return answer if answer.status == status else None
    return process.wait_until(answered, 30, interval=0.1, what=f"{status} for {source}")


def test_a_certificate_is_fetched_once_while_its_deliveries_wait(start_gateway, root, site, database):
    key, pem = root.issue("sns.amazonaws.com")
    url, path = f"https://{SNS}/SimpleNotificationService-1.pem", "/SimpleNotificationService-1.pem"
    site.pages[path] = (200, {}, pem.encode())
    gateway = start(start_gateway, root, site)
    delivery = Sns.delivery(key, url)
    first = gateway.post("aws_sns", delivery[1], delivery[0])
    assert first.status == 503 and int(first.headers["retry-after"]) >= 1
    assert "certificate" in first.json["detail"]
    assert until(gateway, "aws_sns", delivery, 200).json["captured"] == 1
    for _ in range(3):
        headers, body = Sns.delivery(key, url)
        assert gateway.post("aws_sns", body, headers).json["captured"] == 1
    tampered = delivery[1].replace(b"Open", b"Sent")
    assert gateway.post("aws_sns", tampered, delivery[0]).status == 401
    gateway.child.send_signal(signal.SIGHUP)
    process.wait_until(lambda: "secrets reloaded" in gateway.log_text(), 10, what="the reload")
    headers, body = Sns.delivery(key, url)
    assert gateway.post("aws_sns", body, headers).json["captured"] == 1
    assert site.hits == [path] and site.asked == [f"{SNS}:443"]
    assert database.value("SELECT count(*) FROM campaign_events") == 5

    # Strangers make nobody fetch: another host, another topic, a port, a user, a way up, no TLS.
    for other in (f"https://{OTHER}/a.pem", f"https://{SNS}.{OTHER}/a.pem", f"https://{SNS}:8443/a.pem",
                  f"https://x@{SNS}/a.pem", f"http://{SNS}/a.pem", f"https://{SNS}/../a.pem",
                  f"https://{SNS}/a.pem?b=.pem", f"https://{SNS}/%2e%2e/a.pem", f"https://{SNS}/" + "a" * 600 + ".pem"):
        headers, body = Sns.delivery(key, other)
        assert gateway.post("aws_sns", body, headers).status == 401, other
    headers, body = Sns.delivery(key, f"https://{SNS}/b.pem", topic=TOPIC + "-of-another")
    assert gateway.post("aws_sns", body, headers).status == 401
    assert len(site.asked) == 1


def confirmation(key, url, subscribe, topic=TOPIC):
    event = {"Type": "SubscriptionConfirmation", "MessageId": str(uuid.uuid4()), "TopicArn": topic, "Token": "t0ken",
             "Message": "You have chosen to subscribe", "SubscribeURL": subscribe, "SignatureVersion": "2",
             "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()), "SigningCertURL": url}
    text = "".join(f"{n}\n{event[n]}\n" for n in ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token",
                                                  "TopicArn", "Type"))
    event["Signature"] = rsa_sign(key, text.encode())
    return ({"x-amz-sns-message-type": "SubscriptionConfirmation", "Content-Type": "text/plain"},
            json.dumps(event).encode())


def test_a_subscription_is_confirmed_on_the_host_that_signed(start_gateway, root, site, database):
    key, pem = root.issue("sns.amazonaws.com")
    url, question = f"https://{SNS}/1.pem", f"/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t0ken"
    site.pages["/1.pem"] = (200, {}, pem.encode())
    site.pages[question] = (500, {}, b"")
    gateway = start(start_gateway, root, site)
    until(gateway, "aws_sns", confirmation(key, url, f"https://{SNS}{question}"), 200)
    process.wait_until(lambda: "could not be confirmed yet" in gateway.log_text(), 10, what="the first try")
    site.pages[question] = (200, {}, b"<ConfirmSubscriptionResponse/>")
    process.wait_until(lambda: "a subscription is confirmed" in gateway.log_text(), 20, what="the second")
    assert site.hits == ["/1.pem", question, question]
    assert "t0ken" not in gateway.log_text()
    for other in (f"https://{OTHER}{question}", f"https://{'x' * len(SNS)}{question}",
                  f"https://{SNS}/?Action=DeleteTopic&TopicArn={TOPIC}",
                  f"http://{SNS}{question}", f"https://{SNS}:8443{question}", f"https://{SNS}/a{question}",
                  f"https://{SNS}{question}\n"):
        headers, body = confirmation(key, url, other)
        assert gateway.post("aws_sns", body, headers).status == 200, other
    headers, body = confirmation(key, url, f"https://{SNS}{question}x")
    assert gateway.post("aws_sns", body.replace(b"t0ken", b"t1ken"), headers).status == 401
    headers, body = confirmation(key, url, f"https://{SNS}{question}y", topic=TOPIC + "2")
    assert gateway.post("aws_sns", body, headers).status == 401
    # Another certificate takes its turn behind whatever had been asked for.
    site.pages["/2.pem"] = (200, {}, pem.encode())
    until(gateway, "aws_sns", Sns.delivery(key, f"https://{SNS}/2.pem"), 200)
    assert site.hits == ["/1.pem", question, question, "/2.pem"]
    assert set(site.asked) == {f"{SNS}:443"}
    assert database.value("SELECT count(*) FROM campaign_events") == 1


def test_what_is_no_certificate_of_the_provider_s_is_never_used(start_gateway, root, site, tmp_path):
    gateway = start(start_gateway, root, site)
    key, pem = root.issue("sns.amazonaws.com")
    bad = {"/gone.pem": (404, {}, b"gone"), "/html.pem": (200, {}, b"<html>no</html>"),
           "/moved.pem": (302, {"Location": f"https://{OTHER}/a.pem"}, b""),
           "/moved-here.pem": (301, {"Location": f"https://{SNS}/good.pem"}, b""),
           "/large.pem": (200, {}, pem.encode() + b" " * 70000),
           "/empty.pem": (200, {}, b"")}
    site.pages.update(bad)
    site.pages["/good.pem"] = (200, {}, pem.encode())
    keys = {path: key for path in bad}
    for path, issued in {"/other-name.pem": root.issue(OTHER), "/old.pem": root.issue(
            "sns.amazonaws.com", end="20210101000000Z")}.items():
        keys[path], text = issued
        site.pages[path] = (200, {}, text.encode())
    for path, signer in keys.items():
        delivery = Sns.delivery(signer, f"https://{SNS}{path}")
        assert until(gateway, "aws_sns", delivery, 401).status == 401, path
        assert gateway.post("aws_sns", delivery[1], delivery[0]).status == 401
    assert sorted(site.hits) == sorted(keys)  # each once, and none that a redirect led to
    assert {host for host in site.asked} == {f"{SNS}:443"}

    # PayPal's has to come with its chain to a root.
    stranger = Authority(str(tmp_path), "stranger")
    between_key, between = root.issue("tests intermediate", authority=True)
    middle = Authority(str(tmp_path), "middle")
    middle.key, middle.file = between_key, between_key + ".crt"
    with open(middle.file, "w", encoding="utf-8") as file:
        file.write(between)
    host = "messageverificationcerts.paypal.com"
    good_key, good = middle.issue(host)
    for name, (signer, text), status in (
            ("good", (good_key, good + between), 200), ("no-chain", (good_key, good), 401),
            ("stranger", stranger.issue(host), 401), ("other-host", root.issue(OTHER), 401)):
        site.pages[f"/v1/notifications/certs/{name}"] = (200, {}, text.encode())
        delivery = PayPal.delivery(signer, f"https://{PAYPAL}/v1/notifications/certs/{name}")
        assert until(gateway, "paypal", delivery, status).status == status, name
    reasons = re.findall('"reason":"([^"]*)"', "\n".join(
        line for line in gateway.log_text().splitlines() if "certificate is refused" in line))
    assert set(reasons) == {"the answer is 404", "the answer is 301", "the answer is 302", "it is too large",
                            "it is no certificate", "it has expired, or is not valid yet",
                            "it is made out to another host than the provider's", "no trusted root confirms it"}


def test_a_server_that_is_not_the_provider_s_is_not_believed(start_gateway, root, site, tmp_path):
    """Its TLS certificate is of another root, or of another host; or it says nothing. Deliveries wait, and come
    in once the right server is back."""
    key, pem = root.issue("sns.amazonaws.com")
    site.pages["/a.pem"] = (200, {}, pem.encode())
    right = root.issue(SNS)
    site.wear(*Authority(str(tmp_path), "stranger").issue(SNS))
    gateway = start(start_gateway, root, site)
    delivery = Sns.delivery(key, f"https://{SNS}/a.pem")

    def failures():
        return gateway.log_text().count("could not be fetched")
    assert gateway.post("aws_sns", delivery[1], delivery[0]).status == 503
    process.wait_until(lambda: failures() == 1, 10, what="the first failure")
    site.wear(*root.issue(OTHER))

    def second():
        assert gateway.post("aws_sns", delivery[1], delivery[0]).status == 503
        return failures() == 2
    process.wait_until(second, 15, interval=0.1, what="the second failure")
    assert site.hits == []
    site.wear(*right)
    assert until(gateway, "aws_sns", delivery, 200).json["captured"] == 1
    # A server that never answers holds nothing up: the others go on, and the end comes at once.
    site.pages["/never.pem"] = (0, {}, b"")
    waiting = Sns.delivery(key, f"https://{SNS}/never.pem")
    assert gateway.post("aws_sns", waiting[1], waiting[0]).status == 503
    headers, body = Sns.delivery(key, f"https://{SNS}/a.pem")
    assert gateway.post("aws_sns", body, headers).status == 200
    began = time.monotonic()
    gateway.stop()
    assert time.monotonic() - began < 5


def test_certificates_of_the_directory_are_there_from_the_start(start_gateway, root, site, tmp_path):
    key, pem = root.issue("anything.example.com")  # whoever puts it there vouches for it
    place = tmp_path / "certificates" / SNS / "in"
    place.mkdir(parents=True)
    (place / "a.pem").write_text(pem)
    gateway = start(start_gateway, root, site, directory=str(tmp_path / "certificates"))
    headers, body = Sns.delivery(key, f"https://{SNS}/in/a.pem")
    assert gateway.post("aws_sns", body, headers).json["captured"] == 1
    assert site.asked == []
    (place / "b.pem").write_text("no certificate")
    done = subprocess.run([BINARY, "serve", "-c", gateway.config_path], capture_output=True, text=True,
                          timeout=30, check=False, env=environment())
    assert done.returncode == 2
    assert "certificates.directory: " in done.stderr and "b.pem: it is no certificate" in done.stderr
