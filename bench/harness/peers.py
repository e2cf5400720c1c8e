"""The programs that oncehook is compared with: bench/peers, run from build/peers with what npm puts there."""

import json
import os
import shutil
import subprocess

from .base import ROOT, say

SOURCE, MADE = os.path.join(ROOT, "bench", "peers"), os.path.join(ROOT, "build", "peers")
NODE_MIN = 20


def why_not():
    """Why peers cannot run here, or None."""
    if not shutil.which("node") or not shutil.which("npm"):
        return f"there is no node with npm: install Node {NODE_MIN} or later"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    if int(version.lstrip("v").split(".")[0] or 0) < NODE_MIN:
        return f"node is {version}: they need Node {NODE_MIN} or later, with npm"
    return None


def install():
    """Puts the peers and their packages into build/peers; returns that directory, or None with a word."""
    reason = why_not()
    stamp = os.path.join(MADE, "installed")
    if not reason:
        with open(os.path.join(SOURCE, "package-lock.json"), encoding="utf-8") as file:
            lock = file.read()
        os.makedirs(MADE, exist_ok=True)
        for name in os.listdir(SOURCE):
            shutil.copy(os.path.join(SOURCE, name), MADE)
        if not os.path.exists(stamp) or open(stamp, encoding="utf-8").read() != lock:
            say("npm ci of the peers", stays=False)
            done = subprocess.run(["npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=MADE,
                                  capture_output=True, text=True, check=False)
            if done.returncode == 0:
                with open(stamp, "w", encoding="utf-8") as file:
                    file.write(lock)
            else:
                reason = "npm ci failed: " + (done.stderr.strip() or done.stdout.strip())[-300:]
    if reason:
        say(f"rows of peers are left out: {reason}")
        return None
    return MADE


def command(bench, name, secret, database):
    """How a peer is started: argv and environment. What is secret is in neither argv nor a file."""
    settings = {"secret": secret, "socket": bench.postgres.directory, "user": "oncehook_gateway", "database": database}
    return ([shutil.which("node"), os.path.join(MADE, name.removeprefix("peer_") + ".mjs")],
            {"PATH": os.environ["PATH"], "NODE_ENV": "production", "PEER": json.dumps(settings), **{
                key: value for key, value in os.environ.items() if key.startswith("PEER_")}})
