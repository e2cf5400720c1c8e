"""Fixtures of the integration tests.

Each xdist worker has one private PostgreSQL; each test has a database of its own, a copy of one that
`oncehook migrate up` made. Nothing of it outlives the tests, not even a SIGKILL of pytest: the
kernel ends the children with their parent. The seed of all randomness is printed at the head; the
environment variable ONCEHOOK_SEED repeats a run."""

import os
import random
import shutil
import tempfile

import pytest

from support import gateway as gateway_module
from support import sign
from support.postgres import DURABLE, Cluster


def pytest_configure(config):
    os.environ.setdefault("ONCEHOOK_SEED", str(random.SystemRandom().randrange(1 << 32)))


def pytest_report_header(config):
    return f"oncehook: binary {gateway_module.BINARY}, ONCEHOOK_SEED={os.environ['ONCEHOOK_SEED']}"


@pytest.fixture
def rng(request):
    """Randomness of this test alone, repeatable by ONCEHOOK_SEED."""
    seed = f"{os.environ['ONCEHOOK_SEED']}:{request.node.nodeid}"
    print(f"seed: {seed}")
    return random.Random(seed)


@pytest.fixture(scope="session")
def cluster():
    """This worker's PostgreSQL: tests that crash or stop a server take `private_cluster`."""
    server = Cluster(DURABLE)
    try:
        server.start()
        server.make_roles()
        yield server
    finally:
        server.remove()


@pytest.fixture
def private_cluster():
    """A PostgreSQL of this test alone, which it may stop(), crash() and start()."""
    server = Cluster(DURABLE)
    try:
        server.start()
        server.make_roles()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def migrated(cluster):
    """The database that the tests' databases are copied from."""
    made = cluster.create_database()
    gateway_module.oncehook("migrate", "up", "--database", made.owner_url)
    return made


@pytest.fixture
def empty_database(cluster):
    """A database without any table, owned by oncehook_owner."""
    made = cluster.create_database()
    yield made
    made.drop()


@pytest.fixture
def database(cluster, migrated):
    """A migrated database of this test alone."""
    made = cluster.create_database(template=migrated)
    yield made
    made.drop()


@pytest.fixture(scope="session")
def certificate():
    directory = tempfile.mkdtemp(prefix="oh-tls-", dir="/tmp")
    yield sign.self_signed(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def sources():
    """The sources of a gateway that a test does not choose itself; their names are their providers."""
    return [sign.Hmac(), sign.GitHub(), sign.Stripe(), sign.SendGrid()]


@pytest.fixture
def start_gateway(tmp_path_factory, database, certificate, sources):
    """start_gateway(config={…}, sources=[…], database=…, env={…}, wait=True) -> a running Gateway.
    Several may run at once. At the end each must leave on SIGTERM with code 0 and no report of a
    sanitizer, unless the test set .expect_exit or killed it."""
    running = []

    def start(config=None, sources=sources, database=database, env=None, wait=True):
        made = gateway_module.Gateway(tmp_path_factory.mktemp("gateway"), database.gateway_url, sources,
                                      certificate, config, env)
        running.append(made)
        made.start(wait)
        return made

    yield start
    problems = []
    for one in running:
        try:
            one.close()
        except AssertionError as problem:
            problems.append(str(problem))
    assert not problems, "\n".join(problems)


@pytest.fixture
def gateway(start_gateway):
    """A gateway with the default sources on a database of this test alone."""
    return start_gateway()
