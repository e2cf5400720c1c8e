"""docs/backup.md: a base backup and its WAL, restored to a moment. What was committed before it is there, counted;
what came after is gone whole, and comes again when it is sent again."""

import os
import shutil

import pytest

from support.capture import capture, event
from support.gateway import oncehook
from support.postgres import DURABLE, Cluster, binaries
from support.process import run, wait_until


@pytest.fixture
def clusters():
    made = []

    def make(settings):
        made.append(Cluster({**DURABLE, **settings}))
        return made[-1]
    yield make
    for one in made:
        one.remove()


def audit(database):
    return oncehook("audit", "--database", database.gateway_url, check=False, timeout=120).returncode


def test_a_restore_to_a_moment_is_consistent_and_what_is_sent_again_is_counted_once(clusters):
    origin = clusters({"archive_mode": "on", "wal_level": "replica"})
    archive = os.path.join(origin.root, "archive")
    run(["mkdir", archive], user="postgres")
    origin.settings["archive_command"] = f"cp %p {archive}/%f"
    origin.start()
    origin.make_roles()
    database = origin.create_database()
    oncehook("migrate", "up", "--database", database.owner_url)
    (instance, (one, two)), = database.seed(1, 2)
    events = [event(enrollment=who, type="sent") for who in (one, two) for _ in range(30)]
    capture(database.gateway_url, *events[:20])
    run([f"{binaries()}/pg_basebackup", "-h", origin.root, "-p", str(origin.port), "-U", "postgres", "-X", "none",
         "-c", "fast", "-D", os.path.join(origin.root, "base")], user="postgres", cwd=origin.root)
    capture(database.gateway_url, *events[20:40])
    moment = database.value("SELECT clock_timestamp()::text")
    capture(database.gateway_url, *events[40:])
    late = str(database.value("INSERT INTO campaign_enrollments (instance_id) VALUES (%s) RETURNING id", instance))
    segment = origin.sql("SELECT pg_walfile_name(pg_switch_wal())")[0][0]
    wait_until(lambda: os.path.exists(os.path.join(archive, segment)), what="the last segment in the archive")
    origin.stop()

    restored = clusters({"restore_command": f"cp {archive}/%f %p", "recovery_target_time": moment,
                         "recovery_target_action": "promote", "archive_mode": "off"})
    shutil.rmtree(restored.data)
    os.rename(os.path.join(origin.root, "base"), restored.data)
    run(["touch", os.path.join(restored.data, "recovery.signal")], user="postgres")
    restored.start()
    wait_until(lambda: not restored.sql("SELECT pg_is_in_recovery()")[0][0], what="the promotion")
    database.cluster = restored
    assert database.value("SELECT count(*) FROM campaign_events") == 40  # all before T, none after
    assert database.value("SELECT total_sent FROM campaign_instances") == 40 and audit(database) == 0
    assert database.value("SELECT count(*) FROM campaign_enrollments WHERE id = %s", late) == 0
    # The window that docs/backup.md asks for: from the last event of each source.
    (source, last), = database.sql("SELECT source, max(received_at) FROM campaign_events GROUP BY source")
    assert source == "test" and str(last) <= moment
    # The provider sends all of it again, from well before T.
    assert capture(database.gateway_url, *events[30:]) == "d" * 10 + "c" * 20
    assert database.value("SELECT total_sent FROM campaign_instances") == 60 and audit(database) == 0
