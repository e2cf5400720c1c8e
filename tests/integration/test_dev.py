"""`oncehook dev`: one directory, a private PostgreSQL, the gateway, and what happens when either dies."""

import contextlib
import glob
import os
import re
import shutil
import signal
import ssl
import stat
import subprocess
import urllib.request

import psycopg2
import pytest

from support import gateway as gateway_module
from support import process, sign, wire
from support.memory import make_directory, remove_directory

PORTS = ["--port", "0", "--http-port", "0", "--admin-port", "0"]
VARIABLES = {"DATABASE_URL", "ONCEHOOK_URL", "ONCEHOOK_HTTP_URL", "ONCEHOOK_ADMIN_URL", "ONCEHOOK_ADMIN_TOKEN",
             "ONCEHOOK_CA", "ONCEHOOK_CONFIG", "ONCEHOOK_PID", "ONCEHOOK_PGDATA", "ONCEHOOK_DATABASE_URL"}


class Dev:
    """`oncehook dev` on one directory; start() may be called again after it ended."""

    def __init__(self, directory):
        self.directory = directory
        self.out_path, self.err_path = directory + ".out", directory + ".err"
        self.child = None
        self.env = {}

    def start(self, *arguments, wait=True, cwd=None):
        argv = [gateway_module.BINARY, "dev", "--dir", self.directory, *PORTS, *arguments]
        with open(self.out_path, "wb") as out, open(self.err_path, "ab") as err:
            self.child = process.spawn(argv, death_signal="SIGTERM", stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd,
                                       env=gateway_module.environment())
        if wait:
            process.wait_until(self.said_ready, 60, what="dev's `ready`")
            self.env = self.read_env()
        return self

    def said_ready(self):
        assert self.child.poll() is None, f"dev left with {self.child.returncode}\n{self.errors()}"
        with open(self.out_path, encoding="utf-8") as out:
            return "ready" in out.read().splitlines()

    def errors(self):
        with open(self.err_path, encoding="utf-8") as err:
            return err.read()

    def read_env(self):
        """What a shell sees in D/env."""
        names = " ".join(sorted(VARIABLES))
        script = f'. "$1"; for n in {names}; do printf "%s=%s\\n" "$n" "$(printenv "$n")"; done'
        done = process.run(["sh", "-c", script, "sh", f"{self.directory}/env"], env={"PATH": os.environ["PATH"]})
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    def stop(self, signal_number=signal.SIGTERM):
        return process.stop(self.child, signal_number, 40)

    def postmaster(self):
        """The server's pid, or None."""
        try:
            with open(os.path.join(self.directory, "postgres/data/postmaster.pid"), encoding="ascii") as file:
                return int(file.readline())
        except (FileNotFoundError, ValueError):
            return None

    def sql(self, text, url="DATABASE_URL"):
        connection = psycopg2.connect(self.env[url], connect_timeout=10)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetchall() if cursor.description else None
        finally:
            connection.close()

    def port(self, name="ONCEHOOK_URL"):
        return int(self.env[name].rsplit(":", 1)[1])

    def secret(self, source):
        """The first secret of a source, out of the generated file's one form."""
        with open(f"{self.directory}/oncehook.yaml", encoding="utf-8") as file:
            return re.search(rf'- name: {source}\n(?:    .*\n)*?    secrets: \["([^"]*)"\]', file.read()).group(1)

    def deliver(self, event_id, source="hmac"):
        """One event of the generated source `hmac`; the answer."""
        signer = sign.Hmac()
        signer.secret = self.secret(source)
        body = signer.encode({"id": event_id, "type": "delivered"})
        return wire.request(self.port(), "POST", f"/in/{source}", signer.sign(body), body, tls=True)

    def count(self, event_id):
        return self.sql(f"SELECT count(*) FROM campaign_events WHERE provider_event_id = '{event_id}'")[0][0]

    def end(self):
        """For the fixture: whatever the test left running ends."""
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        pid = self.postmaster()
        if pid is not None and alive(pid):
            os.kill(pid, signal.SIGQUIT)
            process.wait_until(lambda: not alive(pid), 20, what="PostgreSQL's end")
        link = os.path.join(self.directory, "postgres")
        if os.path.islink(link):
            shutil.rmtree(os.readlink(link), ignore_errors=True)


def alive(pid):
    """True for a process that runs; a zombie whose parent has not looked yet does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def maker():
    """make(under=None) -> a Dev on a directory that does not exist yet."""
    made, roots = [], []

    def make(under=None):
        roots.append(make_directory("oh-dev-"))
        made.append(Dev(os.path.join(roots[-1], under or "d")))
        return made[-1]

    try:
        yield make
    finally:
        for dev in made:
            dev.end()
        for root in roots:
            remove_directory(root)


@pytest.fixture
def make_dev():
    with maker() as make:
        yield make


@pytest.fixture(scope="module")
def made():
    """What a first start makes: keys for every provider, a cluster. Stopped; to be copied."""
    with maker() as make:
        dev = make().start()
        assert dev.stop() == 0, dev.errors()
        yield dev.directory


def copy(made, dev):
    process.run(["cp", "-a", made, dev.directory])
    return dev


@pytest.fixture
def dev(made, make_dev):
    """On the second start of a directory."""
    return copy(made, make_dev()).start()


@pytest.fixture(scope="module")
def shared_dev(made):
    """For tests that stop nothing and change nothing of it but by events of their own."""
    with maker() as make:
        yield copy(made, make()).start()


def test_serves_and_tells_a_shell_where_everything_is(shared_dev):
    env = shared_dev.env
    assert set(env) == VARIABLES and all(env.values())
    with open(f"/proc/{env['ONCEHOOK_PID']}/cmdline", "rb") as file:
        assert file.read().split(b"\0")[1] == b"serve"
    context = ssl.create_default_context(cafile=env["ONCEHOOK_CA"])
    for host in ("localhost", "127.0.0.1"):
        url = f"https://{host}:{shared_dev.port()}/livez"
        with urllib.request.urlopen(url, context=context, timeout=10) as answer:
            assert answer.status == 200
    assert wire.request(shared_dev.port("ONCEHOOK_HTTP_URL"), "GET", "/readyz").status == 200
    assert wire.request(shared_dev.port("ONCEHOOK_ADMIN_URL"), "GET", "/metrics").status == 200
    headers = {"Authorization": "Bearer wrong"}
    assert wire.request(shared_dev.port("ONCEHOOK_ADMIN_URL"), "GET", "/v1/x", headers).status == 401
    headers = {"Authorization": f"Bearer {env['ONCEHOOK_ADMIN_TOKEN']}"}
    assert wire.request(shared_dev.port("ONCEHOOK_ADMIN_URL"), "GET", "/v1/x", headers).status != 401
    assert shared_dev.sql("SELECT current_user::text") == [("oncehook_owner",)]
    assert shared_dev.sql("SELECT current_user::text", "ONCEHOOK_DATABASE_URL") == [("oncehook_gateway",)]
    assert os.path.exists(os.path.join(env["ONCEHOOK_PGDATA"], "PG_VERSION"))


def test_a_signed_event_is_captured_once(shared_dev):
    for outcome in ("captured", "duplicates"):
        answer = shared_dev.deliver("once")
        assert answer.status == 200 and answer.json[outcome] == 1, answer
    assert shared_dev.count("once") == 1


def test_every_recipe_has_a_source_and_check_agrees(shared_dev):
    listed = gateway_module.oncehook("providers", "--json").stdout
    names = set(re.findall(r'"(?:name|provider)": *"([^"]+)"', listed))
    with open(shared_dev.env["ONCEHOOK_CONFIG"], encoding="utf-8") as file:
        sources = set(re.findall(r"- name: (\S+)", file.read()))
    assert "hmac" in sources and {"github", "stripe", "sendgrid"} <= sources
    assert {re.sub("[^A-Za-z0-9._]", "-", name) for name in names} <= sources
    gateway_module.oncehook("check", "-c", shared_dev.env["ONCEHOOK_CONFIG"])
    told = gateway_module.oncehook("doctor", "-c", shared_dev.env["ONCEHOOK_CONFIG"], check=False).stdout
    assert "unseen sources" in told.split("\nFine\n")[1], told  # most are there to be tried
    pem = f"{shared_dev.directory}/keys/sendgrid.pem"
    public = sign.openssl("pkey", "-in", pem, "-pubout", "-outform", "DER")
    assert sign.base64.b64encode(public).decode() == shared_dev.secret("sendgrid")


def test_send_makes_what_the_recipe_reads(shared_dev):
    """Shapes of every kind: nested arrays, forms, JSON and XML in forms, certificates, answers of their own."""
    for source in ("adyen", "airtable", "aws_sns", "braintree", "discord", "mailgun-mailgun_legacy_form", "mandrill", "meta",
                   "okta", "paypal", "twilio"):
        done = gateway_module.oncehook("send", "-c", shared_dev.env["ONCEHOOK_CONFIG"], "--source", source)
        if source not in ("airtable", "discord"):
            assert '"captured":1' in done.stdout or "200 [accepted]" in done.stdout, (source, done.stdout)
    gateway_module.oncehook("send", "-c", shared_dev.env["ONCEHOOK_CONFIG"], "--source", "sparkpost", "--duplicate")
    assert shared_dev.sql("SELECT key_grade, event_type FROM campaign_events WHERE source = 'sparkpost'") == \
        [("id", "delivered")]


def test_secrets_are_nobody_elses_business(shared_dev):
    for name in ("env", "oncehook.yaml", "secrets", "key.pem", "keys/sendgrid.pem", "gateway.log"):
        assert stat.S_IMODE(os.stat(f"{shared_dev.directory}/{name}").st_mode) == 0o600, name
    for name in ("keys", "spool", "postgres/.", "postgres/run", "postgres/data"):
        assert stat.S_IMODE(os.stat(f"{shared_dev.directory}/{name}").st_mode) == 0o700, name
    told = shared_dev.errors()
    with open(f"{shared_dev.directory}/postgres/log", encoding="utf-8") as log:
        told += log.read()
    with open(f"{shared_dev.directory}/gateway.log", encoding="utf-8") as log:
        told += log.read()
    with open(f"{shared_dev.directory}/secrets", encoding="ascii") as file:
        secrets = [line.split("=")[1].strip() for line in file]
    assert len(secrets) == 3
    assert not [secret for secret in [*secrets, shared_dev.secret("hmac")] if secret in told]


def test_postgres_never_runs_as_root_and_is_durable(shared_dev):
    assert os.stat(f"/proc/{shared_dev.postmaster()}").st_uid != 0
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        assert shared_dev.sql(f"SHOW {name}") == [("on",)]
    wrong = re.sub(r":[0-9a-f]+@", ":wrong@", shared_dev.env["DATABASE_URL"])
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(wrong)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_both_and_the_next_start_keeps_all(dev, signal_number):
    assert dev.deliver("kept").status == 200
    before, gateway, server = dev.env, int(dev.env["ONCEHOOK_PID"]), dev.postmaster()
    assert dev.stop(signal_number) == 0, dev.errors()
    assert not alive(gateway) and not alive(server)
    assert dev.postmaster() is None
    with open(f"{dev.directory}/oncehook.yaml", "a", encoding="utf-8") as file:
        file.write("# a user's own line\n")
    kept = {name: open(f"{dev.directory}/{name}", "rb").read() for name in ("cert.pem", "key.pem", "secrets")}
    dev.start()
    assert {name: open(f"{dev.directory}/{name}", "rb").read() for name in kept} == kept
    assert "NOTICE" not in dev.errors() and "HINT" not in dev.errors(), dev.errors()
    with open(f"{dev.directory}/oncehook.yaml", encoding="utf-8") as file:
        assert file.read().endswith("# a user's own line\n")
    assert dev.env["DATABASE_URL"] == before["DATABASE_URL"]
    assert dev.deliver("kept").json["duplicates"] == 1
    assert dev.count("kept") == 1


@pytest.mark.parametrize("victim", ["dev", "gateway"])
def test_after_sigkill_postgres_lives_on_and_is_taken_over(dev, victim):
    assert dev.deliver("before").status == 200
    gateway, server = int(dev.env["ONCEHOOK_PID"]), dev.postmaster()
    if victim == "dev":
        dev.stop(signal.SIGKILL)
    else:
        os.kill(gateway, signal.SIGKILL)
        assert dev.child.wait(20) == 1
    process.wait_until(lambda: not alive(gateway), what="the gateway's end")
    assert alive(server) and dev.count("before") == 1
    dev.start()
    assert dev.postmaster() == server
    assert "taking it over" in dev.errors()
    assert dev.deliver("before").json["duplicates"] == 1
    assert dev.stop() == 0 and not alive(server)


def test_a_crashed_postgres_comes_back(dev):
    assert dev.deliver("first").status == 200
    for number in range(2):
        server = dev.postmaster()
        os.kill(server, signal.SIGKILL)
        try:
            process.wait_until(lambda: dev.postmaster() not in (None, server) and
                               dev.deliver(f"again {number}").status == 200, 120, 0.2, "PostgreSQL's return")
        except AssertionError as error:
            with open(os.path.join(dev.directory, "postgres/log"), encoding="utf-8", errors="replace") as log:
                raise AssertionError(f"{error}\ndev said:\n{dev.errors()[-4000:]}\nPostgreSQL said:\n{log.read()[-4000:]}") from error
    assert [dev.count(name) for name in ("first", "again 0", "again 1")] == [1, 1, 1]
    assert dev.stop() == 0


def test_a_postgres_shut_down_on_purpose_stays_down_until_it_is_started(dev):
    data = dev.env["ONCEHOOK_PGDATA"]
    pg_ctl = [f"{sorted(glob.glob('/usr/lib/postgresql/*/bin'))[-1]}/pg_ctl", "-D", data, "-w", "-s"]
    process.run([*pg_ctl, "-m", "fast", "stop"], user="postgres", cwd="/")
    process.wait_until(lambda: "stays down" in dev.errors(), what="dev's word on it")
    answer = process.wait_until(lambda: (a := dev.deliver("down")).status != 200 and a)
    assert answer.status == 503 and "retry-after" in answer.headers
    process.run([*pg_ctl, "-l", f"{data}/../log", "start"], user="postgres", cwd="/")
    process.wait_until(lambda: dev.deliver("down").status == 200, 30, 0.1)
    process.wait_until(lambda: "PostgreSQL is back" in dev.errors())
    assert dev.count("down") == 1
    server = dev.postmaster()
    assert dev.stop() == 0 and not alive(server)


def test_one_dev_a_directory(shared_dev):
    done = subprocess.run([gateway_module.BINARY, "dev", "--dir", shared_dev.directory, *PORTS], timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and "another `oncehook dev`" in done.stderr
    assert shared_dev.deliver("untouched").status == 200


def test_a_port_in_use_is_told_before_anything_starts(shared_dev, make_dev):
    other = make_dev()
    done = subprocess.run([gateway_module.BINARY, "dev", "--dir", other.directory, *PORTS, "--port",
                           str(shared_dev.port())], timeout=60, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, check=False)
    assert done.returncode == 2 and f"port {shared_dev.port()} is in use" in done.stderr
    assert other.postmaster() is None


def test_once_ends_after_serving_and_leaves_nothing(make_dev):
    dev = make_dev().start("--once", wait=False)
    assert dev.child.wait(60) == 0, dev.errors()
    with open(dev.out_path, encoding="utf-8") as out:
        assert out.read() == "ready\n"
    assert dev.postmaster() is None


def test_sources_and_tuning_come_from_a_file_the_rest_from_d(make_dev):
    dev = make_dev()
    root = os.path.dirname(dev.directory)
    with open(f"{root}/key", "w", encoding="ascii") as file:
        file.write("of-a-file\n")
    with open(f"{root}/mine.yaml", "w", encoding="utf-8") as file:
        file.write("""# mine
listen: {https: 192.0.2.1:1, tls: {certificate: nowhere.pem, key: nowhere.pem}}
admin: {listen: 192.0.2.1:2, token: not-this}
database: {url: postgresql://nobody@192.0.2.1/nothing, lanes: 3}
limits: {body_bytes: 64KiB}
spool: {directory: /nonexistent, bytes: 1GiB}
sources:
  - {name: mine, provider: hmac, secrets: [{file: key}, ${ANOTHER_SECRET}], header: X-Mine, event_id: /id,
     allow: [127.0.0.0/8]}
""")
    os.environ["ANOTHER_SECRET"] = "of-the-environment"
    try:
        dev.start("-c", "mine.yaml", cwd=root)
    finally:
        del os.environ["ANOTHER_SECRET"]
    with open(dev.env["ONCEHOOK_CONFIG"], encoding="utf-8") as file:
        text = file.read()
    assert "of-the-environment" not in text and "${ANOTHER_SECRET}" in text
    assert not re.search("192.0.2.1|nowhere|not-this|nonexistent", text)
    assert stat.S_IMODE(os.stat(dev.env["ONCEHOOK_CONFIG"]).st_mode) == 0o600
    signer = sign.Hmac()
    for number, secret in enumerate(["of-a-file", "of-the-environment"]):
        signer.secret = secret
        body = b'{"id":"%d"}' % number
        headers = {"X-Mine": signer.sign(body)["X-Signature"]}
        answer = wire.request(dev.port(), "POST", "/in/mine", headers, body, tls=True)
        assert answer.status == 200 and answer.json["captured"] == 1, answer
    headers = {"Content-Length": str(64 * 1024 + 1)}
    assert wire.request(dev.port(), "POST", "/in/mine", headers, tls=True).status == 413
    assert wire.request(dev.port(), "POST", "/in/hmac", {}, b"", tls=True).status == 404
    assert dev.sql("SELECT count(*) >= 3 FROM pg_stat_activity WHERE usename = 'oncehook_gateway'") == [(True,)]


def test_mistakes_of_a_file_are_told_with_its_lines(make_dev):
    dev = make_dev()
    path = os.path.dirname(dev.directory) + "/bad.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.write("sources:\n  - name: [unclosed\n")
    dev.start("-c", path, wait=False)
    assert dev.child.wait(60) == 2
    assert f"{path}:" in dev.errors()
    assert dev.postmaster() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone has directories that PostgreSQL cannot reach")
@pytest.mark.parametrize("why", ["unreachable", "too long", "shell", "list", "odd"])
def test_a_directory_that_postgres_cannot_use_links_to_another(made, make_dev, why):
    under = {"unreachable": "closed/d", "too long": "x" * 90, "list": "a,b", "shell": 'a "$HOME"', "odd": "it's a d; really"}[why]
    dev = make_dev(under)
    if why == "unreachable":
        os.mkdir(os.path.dirname(dev.directory), 0o700)
    shutil.rmtree(f"{copy(made, dev).directory}/postgres")
    dev.start()
    link = f"{dev.directory}/postgres"
    assert os.path.islink(link) == (why != "odd")
    if os.path.islink(link):
        assert os.readlink(link).startswith("/var/lib/oncehook-dev/")
    server = dev.postmaster()
    assert dev.deliver("elsewhere").status == 200
    assert dev.stop() == 0 and not alive(server)
    dev.start()
    assert dev.count("elsewhere") == 1
    assert dev.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="as above")
def test_a_new_directory_of_an_old_name_starts_empty(make_dev):
    dev = make_dev("x" * 90).start()
    assert dev.deliver("old").status == 200
    server = dev.postmaster()
    dev.stop(signal.SIGKILL)
    shutil.rmtree(dev.directory)
    assert alive(server)
    dev.start()
    assert not alive(server)
    assert dev.count("old") == 0
    assert dev.stop() == 0
