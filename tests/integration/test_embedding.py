"""docs/embedding.md: its program compiles against the installed library, with the flags that it says, and does
what it says."""

import os
import re
import subprocess

from support import sign
from support.gateway import BINARY, REPOSITORY, SANITIZER


def test_the_program_of_the_page_runs(tmp_path):
    with open(os.path.join(REPOSITORY, "docs", "embedding.md"), encoding="utf-8") as file:
        page = file.read()
    (program,), (command,) = (re.findall(rf"^```{kind}\n(.*?)^```$", page, re.M | re.S) for kind in ("c", "sh"))
    assert len(program.splitlines()) <= 49
    build = os.path.dirname(BINARY)
    subprocess.run(["cmake", "--install", build, "--prefix", tmp_path / "usr"], check=True, capture_output=True)
    (tmp_path / "stripe.c").write_text(program)
    (packages,) = {path.parent for path in tmp_path.rglob("oncehook.pc")}
    with open(os.path.join(build, "CMakeCache.txt"), encoding="utf-8") as file:
        sanitize = re.search(r"^ONCEHOOK_SANITIZE:\w+=(.+)$", file.read(), re.M)
    flags = " -Wall -Wextra -Werror" + (f" -fsanitize={sanitize[1]}" if sanitize else "")
    subprocess.run(["sh", "-euc", command.rstrip() + flags], cwd=tmp_path, check=True,
                   env={**os.environ, "PKG_CONFIG_PATH": str(packages)})

    source = sign.Stripe()
    body = source.encode(source.event("evt_1"))
    signature = source.sign(body)["Stripe-Signature"]

    def run(sent, header):
        done = subprocess.run([tmp_path / "stripe", header, source.config["secrets"][0]], input=sent,
                              capture_output=True, check=False)
        assert not SANITIZER.search(done.stderr.decode()), done.stderr
        return done.returncode, done.stdout.decode()

    assert run(body, signature) == (0, "evt_1 other id\n")
    code, said = run(body + b" ", signature)
    assert code == 1 and said.startswith("refused: ")
    code, said = run(body, "t=1,v1=00")
    assert code == 1 and said.startswith("refused: ")
