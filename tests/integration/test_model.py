"""The Spin models in tests/model: each passes an exhaustive search, reaches the states it is about, and
each mutant of it, one rule of the code left out, is refuted by a counterexample. docs/model.md."""

import os
import re
import subprocess

import pytest

from support.gateway import REPOSITORY

MODELS = os.path.join(REPOSITORY, "tests", "model")
ASSERTION, DEADLOCK, CYCLE = "assertion violated", "invalid end state", "acceptance cycle"

# What is searched: model, its settings, and whether its formula is checked (else: assertions and end states).
TRUE = {
    "capture": ("capture", [], False),
    "capture-two-gateways": ("capture", ["GATEWAYS=2"], False),
    "failover": ("failover", [], False),
    "failover-asynchronous": ("failover", ["ASYNCHRONOUS"], False),
    "locks": ("locks", [], False),
    "orphans": ("orphans", [], False),
    "orphans-formula": ("orphans", [], True),
    "spool": ("spool", [], False),
}
MUTANTS = {
    "capture": {
        "ACK_BEFORE_COMMIT": ASSERTION,
        "ACK_AT_FIRST_RESULT": ASSERTION,
        "UNKNOWN_IS_COMMITTED": ASSERTION,
        "COUNTERS_OUTSIDE": ASSERTION,
        "WITHOUT_LEDGER": ASSERTION,
        "DUPLICATE_WITHOUT_WAIT": ASSERTION,
        "LEARN_BEFORE_COMMIT": ASSERTION,
    },
    "failover": {"DUPLICATE_WITHOUT_WAL": ASSERTION, "WARNING_IS_IGNORED": ASSERTION},
    "failover-asynchronous": {
        "NEVER_FORGETS": ASSERTION,
        "FORGETS_BEFORE_CONNECTING": ASSERTION,
        "LEARNS_WITH_THE_NEW_GENERATION": ASSERTION,
    },
    "locks": {
        "BINDING_IN_REVERSE": DEADLOCK,
        "KEYS_AS_THEY_COME": DEADLOCK,
        "FOR_UPDATE": DEADLOCK,
        "TRIGGER_FOR_EACH_ROW": DEADLOCK,
    },
    "orphans": {"WITHOUT_NULL_CHECK": ASSERTION},
    "orphans-formula": {
        "WITHOUT_SWEEPER": CYCLE,
        "SEEN_TOO_EARLY": CYCLE,
        "SEEN_IS_ALL_BELOW_XMAX": CYCLE,
    },
    "spool": {
        "ACK_BEFORE_FSYNC": ASSERTION,
        "POSITION_AT_READ": ASSERTION,
        "POSITION_BEFORE_COMMIT": ASSERTION,
        "FINISH_IN_ANY_ORDER": ASSERTION,
        "DRAIN_WITHOUT_LEDGER": ASSERTION,
    },
}


def run(arguments, directory):
    return subprocess.run(arguments, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=120, check=True).stdout


def search(name, directory, *mutants):
    """Spin's verifier, without bitstate hashing and without reduction of what it may find; its report."""
    model, settings, has_formula = TRUE[name]
    path = os.path.join(MODELS, model + ".pml")
    run(["spin", "-a", *(f"-D{d}" for d in settings + [f"MUTANT_{m}" for m in mutants]), path], directory)
    run(["gcc", "-w", "-O0" if mutants else "-O1", "-DMEMLIM=2048", "-DVECTORSZ=512",
         *([] if has_formula else ["-DSAFETY"]), "-o", "pan", "pan.c"], directory)
    report = run(["./pan", "-m100000", "-w20" if mutants else "-w22", *(["-a", "-f"] if has_formula else
                                         ["-noclaim"] if model == "orphans" else [])], directory)
    assert "BITSTATE" not in report and "hash-compact" not in report
    return path, report


def unreached(report):
    """Line numbers and text of the statements that no path has come to."""
    return {(int(line), text) for line, text in re.findall(r'pml:(\d+), state \d+, "(.*)"', report)}


@pytest.mark.parametrize("name", sorted(TRUE))
def test_model_holds_and_reaches_what_it_is_about(name, tmp_path, record_property):
    path, report = search(name, tmp_path)
    for trouble in ("Search not completed", "max search depth too small", "out of memory"):
        assert trouble not in report, report
    assert re.search(r"errors: 0$", report, re.M), report
    states = int(re.search(r"(\d+) states, stored", report).group(1))
    depth = int(re.search(r"depth reached (\d+)", report).group(1))
    record_property("states", states)
    record_property("depth", depth)
    print(f"{name}: {states} states, depth {depth}")
    with open(path, encoding="utf-8") as file:
        witnesses = {n for n, line in enumerate(file, 1) if re.match(r"\s+WITNESS\(", line)}
    assert witnesses
    missed = {(line, text) for line, text in unreached(report) if text != "-end-"}
    if name == "failover-asynchronous":  # nothing waits for a standby, so no wait is cancelled
        missed = {(line, text) for line, text in missed if line in witnesses}
    assert not missed, f"never reached: {missed}"


@pytest.mark.parametrize("name,mutant", [(name, m) for name in MUTANTS for m in MUTANTS[name]])
def test_model_refutes_mutant(name, mutant, tmp_path):
    path, report = search(name, tmp_path, mutant)
    assert re.search(r"errors: 1$", report, re.M), f"no counterexample\n{report}"
    assert MUTANTS[name][mutant] in report, report
    assert os.listdir(tmp_path).count(os.path.basename(path) + ".trail") == 1


def test_models_have_no_mutant_that_is_not_run():
    for model in {model for model, _, _ in TRUE.values()}:
        with open(os.path.join(MODELS, model + ".pml"), encoding="utf-8") as file:
            there = set(re.findall(r"MUTANT_(\w+)", file.read()))
        run_here = {m for name in MUTANTS if TRUE[name][0] == model for m in MUTANTS[name]}
        assert there == run_here, model
