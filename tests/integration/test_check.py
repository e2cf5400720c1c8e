"""`oncehook check`: every mistake at once, nothing of a secret in it, exit codes, TLS files, warnings."""

import base64
import json
import os
import re
import subprocess
import tempfile

import pytest

from support.gateway import REPOSITORY, oncehook
from support.sign import self_signed

PLANTED = "whsec_PLANTED4711"

GOOD = """\
listen:
  https: 127.0.0.1:8443
  tls: {{certificate: {certificate}, key: {key}}}
admin: {{listen: 127.0.0.1:9090, token: ${{CHECK_TOKEN}}}}
database: {{url: "postgresql://gateway@127.0.0.1/x"}}
sources:
  - {{name: shop, provider: hmac, header: X-Signature, secrets: [${{CHECK_SECRET}}, {{file: old}}]}}
"""

BAD = """\
listen:
  https: 127.0.0.1:8443
  tls: {certificat: cert.pem}
limits: {connections: 0, body_bytes: whsec_PLANTED4711}
limits: {memory: 0}
admin:
  token: ${CHECK_NOT_SET}
  whsec_PLANTED4711: 1
database: {url: "postgresql://u:whsec_PLANTED4711@h/%zz"}
outage: queue
retention: {events: 30d, ledger: 20d}
sources:
  - {name: a, provider: stripe, secrets: [{whsec_PLANTED4711: x}, {file: nowhere}]}
  - {name: a, provider: sendgrid, secrets: [whsec_PLANTED4711, ${CHECK_SECRET}]}
  - name: Shop
    provider: nobody-${CHECK_SECRET}
    secrets: whsec_PLANTED4711
    allow: [10.0.0.1/8, "${CHECK_SECRET}"]
  - {name: b, provider: hmac, secrets: [x], header: X, rate_limit: {burst: 5}}
providers:
  - provider: own

  - whsec: x
"""

# line, words: all of BAD's mistakes, told in one run.
MISTAKES = [
    (2, "listen.tls.certificate is missing"), (2, "listen.tls.key is missing"),
    (3, "no option is called listen.tls.certificat"), (4, "limits.connections is out of bounds"),
    (4, "limits.body_bytes must be a size"), (5, "limits stands here again; first on line 4"),
    (7, "environment variable CHECK_NOT_SET is not set"), (8, "a key that is no option"),
    (9, "database.url"), (10, "outage is none of its choices"),
    (11, "retention.ledger is shorter than retention.events"), (11, "shorter than spool.age"),
    (13, "a text or {file: PATH}"), (13, "No such file"),
    (14, "this name already"), (14, "secret 1:"), (14, "secret 2:"),
    (15, "sources[].name"), (16, "no such provider"), (17, "must be a list"),
    (18, "entry 1"), (18, "entry 2"), (19, "per_second is missing"), (21, ""), (23, ""),
]


@pytest.fixture
def directory(tmp_path):
    """A place with a certificate, its key and a file with a secret."""
    self_signed(str(tmp_path))
    (tmp_path / "old").write_text("the-old-secret\n")
    (tmp_path / "old").chmod(0o600)
    return tmp_path


def check(directory, text, **env):
    path = directory / "oncehook.yaml"
    path.write_text(text)
    return oncehook("check", "-c", path, check=False,
                    env={"CHECK_TOKEN": "t" + PLANTED, "CHECK_SECRET": PLANTED, **env})


def good(directory, **files):
    certificate, key = self_signed(str(directory))
    return GOOD.format(**{"certificate": certificate, "key": key, **files})


def test_a_fine_configuration_is_told_in_one_line(directory):
    done = check(directory, good(directory))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (f"{directory}/oncehook.yaml: fine: 1 source, https on 127.0.0.1:8443, "
                           f"admin on 127.0.0.1:9090, {os.cpu_count()} lane"
                           f"{'s' if os.cpu_count() != 1 else ''}\n")


def test_every_mistake_is_told_at_once_with_its_line(directory):
    done = check(directory, BAD)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    told = []
    for line in lines:
        file, number, what = line.split(":", 2)
        assert file == f"{directory}/oncehook.yaml" and what.startswith(" "), line
        told.append((int(number), what))
    assert told == sorted(told, key=lambda mistake: mistake[0])
    for number, words in MISTAKES:
        assert any(number == at and words in what for at, what in told), (number, words, done.stderr)
    assert len(told) == len(MISTAKES), done.stderr


def test_no_secret_is_ever_printed(directory):
    texts = [BAD, BAD.replace("]", "", 1), BAD.replace("database:", "database: database:")]
    texts += [f"{BAD}\n{key}: {PLANTED}: x\n" for key in ("admin", "queue", "a b")]
    texts += [f"{BAD}\n{key}: {{{PLANTED}: [" for key in ("admin", "queue")]
    for text in texts:
        done = check(directory, text)
        assert done.returncode == 2
        assert "PLANTED" not in done.stdout + done.stderr
    assert "PLANTED" not in check(directory, good(directory)).stdout


def test_certificate_and_key_must_load_and_fit(directory):
    other = directory / "other"
    other.mkdir()
    certificate, key = self_signed(str(other))
    for files, words in [({"key": key}, "listen.tls.key does not belong to the certificate"),
                         ({"key": directory / "old"}, "listen.tls.key cannot be loaded"),
                         ({"certificate": directory / "old"}, "listen.tls.certificate cannot be loaded"),
                         ({"certificate": "nowhere.pem"}, "No such file")]:
        done = check(directory, good(directory, **files))
        assert done.returncode == 2
        assert done.stderr.startswith(f"{directory}/oncehook.yaml:3: ") and words in done.stderr
    assert check(other, good(other, certificate=certificate, key=os.path.basename(key))
                 .replace(", {file: old}", "")).returncode == 0


def test_an_expired_certificate_is_a_mistake(directory):
    certificate, key = self_signed(str(directory))
    subprocess.run(["openssl", "x509", "-new", "-key", key, "-subj", "/CN=x", "-days", "-1", "-out",
                    certificate], check=True, stderr=subprocess.DEVNULL)
    done = check(directory, GOOD.format(certificate=certificate, key=key))
    assert (done.returncode, "has expired" in done.stderr) == (2, True), done.stderr


def test_secrets_open_to_everybody_are_a_warning(directory):
    (directory / "old").chmod(0o644)
    done = check(directory, good(directory))
    assert done.returncode == 0
    assert done.stderr == (f"{directory}/oncehook.yaml:7: warning: the file with this secret is open to "
                           "everybody: chmod o-r\n")
    in_clear = good(directory).replace("{file: old}", "an-inline-secret")
    assert "oncehook.yaml:7: warning:" in check(directory, in_clear).stderr
    (directory / "oncehook.yaml").chmod(0o600)
    assert check(directory, in_clear).stderr == ""


def test_a_spool_that_cannot_be_made_is_a_mistake(directory):
    """Where the gateway would not start: no parent, no directory, or nothing may be written there."""
    def with_spool(place, outage="spool"):
        return good(directory) + f"outage: {outage}\nspool: {{directory: {place}}}\n"

    line = len(good(directory).splitlines()) + 2
    for place, words in [("gone/spool", "its parent directory is missing: make it (mkdir -p)"),
                         ("old/spool", "it, or what it should lie in, is no directory"), ("old", "it, or what it should lie in, is no directory"), ("made", None),
                         ("cert.pem/a/spool", "it, or what it should lie in, is no directory"), ("new", None), ("new/", None)]:
        (directory / "made").mkdir(mode=0o700, exist_ok=True)
        done = check(directory, with_spool(place))
        assert done.returncode == (2 if words else 0), done.stderr
        if words:
            assert done.stderr.startswith(f"{directory}/oncehook.yaml:{line}: spool.directory: {words}"), done.stderr
        assert check(directory, with_spool(place, "refuse")).returncode == 0  # it is not used
        assert not (directory / "new").exists()


def test_a_spool_that_this_user_may_not_write_is_a_mistake(tmp_path):
    """As the user that the gateway runs as: root may write everywhere."""
    with tempfile.TemporaryDirectory(prefix="oncehook-check-") as place:  # pytest's own is closed to others
        os.chmod(place, 0o755)
        path = os.path.join(place, "oncehook.yaml")
        os.mkdir(os.path.join(place, "made"), 0o700)
        if os.geteuid() != 0:
            os.chmod(os.path.join(place, "made"), 0o500)
            os.chmod(place, 0o555)
        user = {"user": "nobody", "cwd": "/"} if os.geteuid() == 0 else {}
        for directory, words in [("made/spool", "this user may not write"), ("made", "this user may not write"),
                                 ("new", "this user may not write")]:
            text = json.dumps({"listen": {"http": "127.0.0.1:0"}, "database": {"url": "postgresql:///x"},
                               "outage": "spool", "spool": {"directory": os.path.join(place, directory)},
                               "sources": [{"name": "a", "provider": "stripe", "secrets": ["${A}"]}]})
            os.chmod(place, 0o755)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            if os.geteuid() != 0:
                os.chmod(place, 0o555)
            done = oncehook("check", "-c", path, check=False, env={"A": "x"}, **user)
            assert done.returncode == 2 and f"spool.directory: {words}" in done.stderr, (directory, done.stderr)
            assert "chown" in done.stderr
        os.chmod(place, 0o755)


def test_usage_errors_exit_with_2():
    for arguments in [(), ("-c",), ("--nonsense",), ("-c", "/nowhere/oncehook.yaml"), ("x",)]:
        done = oncehook("check", *arguments, check=False)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr
    assert oncehook("check", "--help").stdout.startswith("Usage: oncehook check")


def test_the_sample_is_fine_but_for_its_certificate(directory):
    with open(os.path.join(REPOSITORY, "deploy/oncehook.example.yaml"), encoding="utf-8") as file:
        text = file.read()
    certificate, key = self_signed(str(directory))
    text = text.replace("/etc/oncehook/cert.pem", certificate).replace("/etc/oncehook/key.pem", key)
    public = subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"], check=True,
                            stdout=subprocess.PIPE).stdout
    done = check(directory, text, ONCEHOOK_ADMIN_TOKEN="x", ONCEHOOK_DATABASE_URL="postgresql:///x",
                 DATABASE_URL="postgresql:///x", STRIPE_SECRET="x", SHOP_SECRET="x",
                 SENDGRID_PUBLIC_KEY=base64.b64encode(public).decode())
    assert (done.returncode, done.stderr) == (0, "")


def test_a_provider_that_gets_a_second_scheme_keeps_its_first(directory):
    """A configuration from before the second scheme names none."""
    one = "sources:\n- {name: a, provider: PROVIDER, secrets: [x]}\n"
    said = check(directory, one.replace("PROVIDER", "hubspot"))
    assert "sources[].scheme is missing: this provider has several (hubspot_" in said.stderr
    assert "sources[].scheme" not in check(directory, one.replace("PROVIDER", "mailgun")).stderr


def test_options_are_the_table_of_the_docs():
    with open(os.path.join(REPOSITORY, "docs/configuration.md"), encoding="utf-8") as file:
        assert file.read().endswith(oncehook("check", "--options").stdout)


def test_a_certificate_is_looked_at_whatever_else_is_wrong(directory):
    """Two kinds of mistakes in one answer: the words of the file, and the files that it names."""
    done = check(directory, "listen: {https: '127.0.0.1:8443', tls: {certificate: nowhere.pem, key: nowhere.key}}\n"
                            "bogus: 1\n")
    assert done.returncode == 2
    assert "listen.tls.certificate cannot be loaded" in done.stderr and "bogus" in done.stderr, done.stderr
    assert "listen.tls.key cannot be loaded" in done.stderr


def test_what_is_hardly_meant_is_warned_of(directory):
    done = check(directory, GOOD.format(certificate=directory / "cert.pem", key=directory / "key.pem") +
                 "  - {name: a, provider: asana, handshake: {arm_until: 2099-01-01T00:00:00Z}}\n"
                 "  - {name: b, provider: stripe, secrets: [{value: \"${CHECK_SECRET}\", not_after: 2020-01-01T00:00:00Z}]}\n")
    assert done.returncode == 0
    assert re.search(r":8: warning: armed for more than a day", done.stderr)
    assert re.search(r":9: warning: no secret of this source is taken now", done.stderr)
    assert len(done.stderr.splitlines()) == 2


def test_a_recipe_with_a_mistake_is_not_also_missing(directory):
    with open(os.path.join(REPOSITORY, "docs", "providers.md"), encoding="utf-8") as file:
        (recipe,) = [block for block in re.findall(r"```yaml\n(.*?)```", file.read(), re.S) if "schemes:" in block]
    text = ("listen: {http: 127.0.0.1:0}\ndatabase: {url: postgresql://u@h/d}\nsources:\n"
            "  - {name: one, provider: acme, secrets: [x]}\n  - {name: two, provider: acmee, secrets: [x]}\nproviders:\n  - " +
            recipe.replace("horizon: 2d", "horizn: 2d").rstrip().replace("\n", "\n    ") + "\n")
    done = check(directory, text)
    lines = [line.split(":", 2)[1:] for line in done.stderr.splitlines()]
    assert done.returncode == 2 and [int(number) for number, _ in lines] == [5, 17], done.stderr
    assert "no such provider" in lines[0][1] and "horizn" in lines[1][1]


# What each command uses of the file's variables; a command that is told which database asks the file for none.
URL, OWNER, TOKEN, SECRET = "CHECK_URL", "CHECK_OWNER_URL", "CHECK_TOKEN", "CHECK_SECRET"
USES = [
    (["check"], {URL, OWNER, TOKEN, SECRET}), (["serve"], {URL, OWNER, TOKEN, SECRET}),
    (["spool", "status"], set()), (["spool", "export"], set()), (["spool", "drain"], {URL}),
    (["audit"], {URL}), (["doctor"], {URL}), (["audit", "--database", "postgresql://127.0.0.1:1/x"], set()),
    (["retention", "--dry-run"], {OWNER}), (["migrate", "status"], {OWNER}), (["migrate", "adopt", "--dry-run"], {OWNER}),
    (["forget", "--contact", "00000000-0000-4000-8000-000000000000"], {OWNER}), (["tail", "--once"], {TOKEN}),
    (["send", "--source", "shop", "--print-curl"], {SECRET}), (["providers", "--source", "shop"], {SECRET}),
    (["verify", "/nowhere.json", "--source", "shop"], {SECRET}),
]


@pytest.mark.parametrize("argv, used", USES, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_command_asks_for_the_variables_that_it_uses(directory, argv, used):
    """Who looks at the spool or at the counters need not hold the providers' secrets; the gateway and `check` want all."""
    path = directory / "oncehook.yaml"
    path.write_text(good(directory).replace("postgresql://gateway@127.0.0.1/x", "${CHECK_URL}\", owner_url: \"${CHECK_OWNER_URL}")
                    .replace("secrets:", "verify_token: ${CHECK_SECRET}, public_key: ${CHECK_SECRET}, secrets:") +
                    f"spool: {{directory: {directory}/gone/spool}}\n")
    if SECRET not in used:
        (directory / "old").unlink()  # a file with a secret is as good as a variable
    done = oncehook(*argv, "-c", path, check=False)
    assert set(re.findall(r"the environment variable (\w+) is not set", done.stderr)) == used, done.stderr
    assert (f"{path}:" in done.stderr) == bool(used), done.stderr
    if argv == ["serve"]:
        return  # with all of them it would run
    values = {URL: "postgresql://127.0.0.1:1/x", OWNER: "postgresql://127.0.0.1:1/x", TOKEN: PLANTED, SECRET: PLANTED}
    done = oncehook(*argv, "-c", path, check=False, env={name: values[name] for name in used})
    assert f"{path}:" not in done.stderr, done.stderr
