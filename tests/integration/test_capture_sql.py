"""capture_v1 and quarantine_v1, called as the gateway calls them: role oncehook_gateway, arrays."""

import contextlib
import datetime
import threading
import uuid

import psycopg2
import pytest

from support import capture as sql
from support.capture import COUNTED, TYPES, capture, event
from support.process import wait_until

NOBODY = str(uuid.UUID(int=0xdead))


def totals(database, instance):
    row = database.sql("SELECT " + ", ".join(f"total_{name}" for name in COUNTED) +
                       " FROM campaign_instances WHERE id = %s", instance)[0]
    return {name: value for name, value in zip(COUNTED, row) if value}


def test_event_of_an_enrollment_is_stored_whole_and_counted_once(database):
    [(instance, [enrollment])] = database.seed()
    one = event(type="opened", enrollment=enrollment, payload={"text": "ä\u2028", "n": 12345678901234567890123})
    assert capture(database.gateway_url, one) == "c"
    rows = database.sql("""
        SELECT source, provider, provider_event_id, key_scope, key_grade, event_type, provider_event_type, channel,
               instance_id::text, enrollment_id::text, "timestamp", delivery_id::text, payload, payload_bytes,
               received_at BETWEEN now() - interval '1 minute' AND now(), tx IS NOT NULL, id > 0
          FROM campaign_events""")
    at = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.timezone.utc)
    assert rows == [(one["source"], one["provider"], one["id"], one["scope"], "id", "opened", "email.delivered",
                     "email", instance, enrollment, at, one["delivery"], one["payload"], None, True, True, True)]
    assert totals(database, instance) == {"opened": 1}
    assert database.sql("SELECT total_events, last_event_at FROM campaign_enrollments") == [(1, at)]

    assert capture(database.gateway_url, one) == "d"
    assert database.value("SELECT count(*) FROM campaign_events") == 1
    assert totals(database, instance) == {"opened": 1}
    assert database.value("SELECT total_events FROM campaign_enrollments") == 1


def test_event_and_counters_share_the_transaction_of_their_key(database):
    [(_, [enrollment])] = database.seed()
    capture(database.gateway_url, event(enrollment=enrollment), event(enrollment=enrollment))
    assert database.value("""
        SELECT count(DISTINCT x) FROM (SELECT tx::text AS x FROM campaign_events
          UNION ALL SELECT xmin::text FROM event_keys
          UNION ALL SELECT xmin::text FROM campaign_enrollments
          UNION ALL SELECT xmin::text FROM campaign_instances) every""") == 1


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_adds_to_its_own_total_alone(database, kind):
    [(instance, [enrollment])] = database.seed()
    assert capture(database.gateway_url, event(type=kind, enrollment=enrollment)) == "c"
    assert totals(database, instance) == ({kind: 1} if kind in COUNTED else {})
    assert database.value("SELECT total_events FROM campaign_enrollments") == 1


@pytest.mark.parametrize("status", ["draft", "paused", "completed", "anything"])
def test_counts_whatever_the_status_of_the_instance(database, status):
    [(instance, [enrollment])] = database.seed()
    database.sql("UPDATE campaign_instances SET status = %s", status)
    assert capture(database.gateway_url, event(enrollment=enrollment)) == "c"
    assert totals(database, instance) == {"delivered": 1}


def test_enrollment_decides_the_instance_whatever_the_payload_claims(database):
    (first, [enrollment]), (second, _) = database.seed(instances=2)
    assert capture(database.gateway_url, event(enrollment=enrollment, instance=second),
                   event(enrollment=enrollment, instance=NOBODY)) == "cc"
    assert totals(database, first) == {"delivered": 2}
    assert totals(database, second) == {}
    assert database.sql("SELECT DISTINCT instance_id::text FROM campaign_events") == [(first,)]


def test_instance_alone_is_counted_there(database):
    [(instance, _)] = database.seed()
    assert capture(database.gateway_url, event(instance=instance, type="sent")) == "c"
    assert totals(database, instance) == {"sent": 1}
    assert database.value("SELECT instance_id::text FROM campaign_events") == instance
    assert database.value("SELECT total_events FROM campaign_enrollments") == 0


def test_unknown_instance_alone_is_no_orphan_and_names_nothing(database):
    assert capture(database.gateway_url, event(instance=NOBODY), event()) == "cc"
    assert database.sql("SELECT DISTINCT instance_id, enrollment_id FROM campaign_events") == [(None, None)]


def test_unknown_enrollment_is_an_orphan_even_if_its_instance_is_known(database):
    [(instance, _)] = database.seed()
    assert capture(database.gateway_url, event(enrollment=NOBODY), event(enrollment=NOBODY, instance=instance),
                   event(instance=instance)) == "ooc"
    assert totals(database, instance) == {"delivered": 1}
    assert database.value("SELECT count(*) FROM campaign_events "
                          "WHERE enrollment_id = %s AND instance_id IS NULL", NOBODY) == 2


def test_same_key_twice_in_a_batch_is_one_event_the_first(database):
    [(instance, [enrollment])] = database.seed()
    key = {"id": "same", "enrollment": enrollment}
    assert capture(database.gateway_url, event(**key, type="opened"), event(enrollment=enrollment),
                   event(**key, type="clicked"), event(**key, type="sent")) == "ccdd"
    assert totals(database, instance) == {"opened": 1, "delivered": 1}
    assert database.value("SELECT count(*) FROM campaign_events") == 2


def test_same_id_in_two_scopes_is_two_events(database):
    assert capture(database.gateway_url, event(id="x", scope="source:a"), event(id="x", scope="source:b"),
                   event(id="x", scope="provider:a"), event(id="x", scope="source:a")) == "cccd"
    assert database.sql('SELECT key_scope FROM event_keys ORDER BY key_scope COLLATE "C"') == \
        [("provider:a",), ("source:a",), ("source:b",)]


def test_letters_stand_in_the_order_of_the_events(database, rng):
    [(_, enrollments)] = database.seed(enrollments=20)
    known = [event(enrollment=rng.choice(enrollments)) for _ in range(30)]
    assert set(capture(database.gateway_url, *known)) == {"c"}
    batch = [(event(enrollment=rng.choice(enrollments)), "c") for _ in range(30)] + \
            [(event(enrollment=str(uuid.uuid4())), "o") for _ in range(30)] + [(one, "d") for one in known]
    rng.shuffle(batch)
    assert capture(database.gateway_url, *[one for one, _ in batch]) == "".join(letter for _, letter in batch)
    assert database.counter_drift() == []


@pytest.mark.parametrize("size", [1, 2, 999, 2500])
def test_batches_of_every_size_count_right(database, rng, size):
    seeded = database.seed(instances=7, enrollments=9)
    everybody = [one for _, several in seeded for one in several]
    events = [event(enrollment=rng.choice(everybody + [NOBODY, None]),
                    instance=rng.choice([None, NOBODY] + [i for i, _ in seeded]), type=rng.choice(TYPES))
              for _ in range(size)]
    letters = capture(database.gateway_url, *events)
    assert letters == "".join("o" if one["enrollment"] == NOBODY else "c" for one in events)
    assert database.value("SELECT count(*) FROM campaign_events") == size
    assert database.counter_drift() == []


def test_one_connection_captures_right_while_tables_grow(database):
    """The plans it keeps were made on empty tables."""
    with contextlib.closing(sql.connect(database.gateway_url)) as connection, connection.cursor() as cursor:
        for _ in range(8):
            assert sql.call(cursor, event(), event(enrollment=NOBODY)) == "co"
        seeded = database.seed(instances=3, enrollments=2000)
        everybody = [one for _, several in seeded for one in several][:1000]
        assert sql.call(cursor, *[event(enrollment=one) for one in everybody]) == "c" * 1000
    assert database.counter_drift() == []


def test_last_event_at_never_goes_back_and_never_passes_the_clock(database):
    [(_, [enrollment])] = database.seed()
    ask = "SELECT last_event_at FROM campaign_enrollments"
    capture(database.gateway_url, event(enrollment=enrollment, at="2024-01-02T00:00:00Z"),
            event(enrollment=enrollment, at="2024-01-01T00:00:00Z"))
    second = datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc)
    assert database.value(ask) == second
    capture(database.gateway_url, event(enrollment=enrollment, at="2023-01-01T00:00:00Z"))
    assert database.value(ask) == second
    capture(database.gateway_url, event(enrollment=enrollment, at="2999-01-01T00:00:00Z"))
    assert database.value("SELECT last_event_at = (SELECT max(received_at) FROM campaign_events) "
                          "FROM campaign_enrollments")
    assert database.value('SELECT max("timestamp") FROM campaign_events').year == 2999


def test_exact_bytes_stand_where_jsonb_cannot(database):
    assert capture(database.gateway_url, event(payload=None, bytes=b'{"a":"\\u0000\xff\x00"}')) == "c"
    payload, kept = database.sql("SELECT payload, payload_bytes FROM campaign_events")[0]
    assert payload is None and bytes(kept) == b'{"a":"\\u0000\xff\x00"}'


@pytest.mark.parametrize("changes", [{"type": "no_type"}, {"channel": "pigeon"}, {"grade": "guess"},
                                     {"id": None}, {"scope": None}])
def test_poison_event_leaves_nothing_of_its_batch(database, changes):
    [(instance, [enrollment])] = database.seed()
    good = event(enrollment=enrollment)
    with pytest.raises(psycopg2.IntegrityError):
        capture(database.gateway_url, good, event(**changes))
    assert database.value("SELECT count(*) FROM campaign_events") == 0
    assert database.value("SELECT count(*) FROM event_keys") == 0
    assert totals(database, instance) == {}
    assert capture(database.gateway_url, good) == "c"


def test_arrays_of_different_lengths_are_refused(database):
    columns = sql.arrays([event(), event()])
    columns[5] = columns[5][:1]
    with contextlib.closing(sql.connect(database.gateway_url)) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.errors.InvalidParameterValue):
            cursor.execute("SELECT " + sql.CALL, columns)
        with pytest.raises(psycopg2.errors.InvalidParameterValue):
            cursor.execute("SELECT " + sql.CALL, [[] for _ in columns])
    assert database.value("SELECT count(*) FROM event_keys") == 0


def in_thread(work):
    """Runs work() beside; .join() gives what it returned or raises what it raised."""
    class Runner(threading.Thread):
        result = error = None

        def run(self):
            try:
                self.result = work()
            except Exception as error:  # handed to join()
                self.error = error

        def join(self, timeout=30):
            super().join(timeout)
            assert not self.is_alive()
            if self.error:
                raise self.error
            return self.result
    runner = Runner(daemon=True)
    runner.start()
    return runner


def waits_for_lock(database):
    return database.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                          "AND wait_event_type = 'Lock'") > 0


@pytest.mark.parametrize("first_commits", [True, False])
def test_second_of_two_transactions_waits_for_the_first_ones_key(database, first_commits):
    [(instance, [enrollment])] = database.seed()
    twin = event(enrollment=enrollment)
    with contextlib.closing(sql.connect(database.gateway_url)) as first, first.cursor() as cursor:
        first.autocommit = False
        assert sql.call(cursor, {**twin, "enrollment": None}) == "c"  # no lock but the key's
        second = in_thread(lambda: capture(database.gateway_url, twin))
        wait_until(lambda: waits_for_lock(database), what="the second waits")
        (first.commit if first_commits else first.rollback)()
        assert second.join() == ("d" if first_commits else "c")
    assert database.value("SELECT count(*) FROM campaign_events") == 1
    assert totals(database, instance) == ({} if first_commits else {"delivered": 1})


@pytest.mark.parametrize("table", ["campaign_enrollments", "campaign_instances"])
def test_what_was_deleted_while_capture_waited_is_not_bound(database, table):
    [(instance, [enrollment])] = database.seed()
    with contextlib.closing(database.connect()) as deleter, deleter.cursor() as cursor:
        deleter.autocommit = False
        # The order of docs/lock-order.md: the instance first.
        cursor.execute("SELECT FROM campaign_instances WHERE id = %s FOR NO KEY UPDATE", (instance,))
        cursor.execute(f"DELETE FROM {table}")
        waiting = in_thread(lambda: capture(database.gateway_url, event(enrollment=enrollment),
                                            event(instance=instance)))
        wait_until(lambda: waits_for_lock(database), what="capture waits")
        deleter.commit()
    assert waiting.join() == "oc"
    bound = None if table == "campaign_instances" else instance
    assert database.sql("SELECT enrollment_id::text, instance_id::text FROM campaign_events ORDER BY id") == \
        [(enrollment, None), (None, bound)]
    assert database.counter_drift() == []


def test_enrollment_that_comes_while_capture_waits_stays_an_orphan_or_is_bound_right(database):
    """Its instance may or may not be among the locked ones: both are right, a lock out of order is not."""
    (first, [known]), (second, _) = database.seed(instances=2)
    late, later = str(uuid.uuid4()), str(uuid.uuid4())
    with contextlib.closing(database.connect()) as other, other.cursor() as cursor:
        other.autocommit = False
        cursor.execute("SELECT FROM campaign_instances WHERE id = %s FOR NO KEY UPDATE", (first,))
        waiting = in_thread(lambda: capture(database.gateway_url, event(enrollment=known),
                                            event(enrollment=late), event(enrollment=later)))
        wait_until(lambda: waits_for_lock(database), what="capture waits")
        cursor.execute("INSERT INTO campaign_enrollments (id, instance_id) VALUES (%s, %s), (%s, %s)",
                       (late, first, later, second))
        other.commit()
    assert waiting.join() == "cco"
    assert totals(database, first) == {"delivered": 2}
    assert totals(database, second) == {}
    assert database.counter_drift() == []


@pytest.mark.parametrize("with_its_instance", [False, True])
def test_enrollment_that_is_deleted_and_inserted_again_while_capture_waits(database, with_its_instance):
    """Bound to where it is now, and only if that is locked: as many rows as before are not the same rows."""
    (first, [known]), (second, [other_known]) = database.seed(instances=2)
    with contextlib.closing(database.connect()) as other, other.cursor() as cursor:
        other.autocommit = False
        cursor.execute("SELECT FROM campaign_instances WHERE id = ANY (%s::uuid[]) ORDER BY id FOR UPDATE", ([first, second],))
        waiting = in_thread(lambda: capture(database.gateway_url, event(enrollment=known), event(enrollment=other_known),
                                            event(instance=first)))
        wait_until(lambda: waits_for_lock(database), what="capture waits")
        if with_its_instance:
            cursor.execute("SELECT template_id FROM campaign_instances WHERE id = %s", (first,))
            template = cursor.fetchone()
            cursor.execute("SELECT oncehook_delete_instance(%s)", (first,))
            cursor.execute("INSERT INTO campaign_instances (id, template_id) VALUES (%s, %s)", (first, template))
        else:
            cursor.execute("DELETE FROM campaign_enrollments WHERE id = %s", (known,))
        cursor.execute("INSERT INTO campaign_enrollments (id, instance_id) VALUES (%s, %s)",
                       (known, first if with_its_instance else second))
        other.commit()
    assert waiting.join() == ("occ" if with_its_instance else "ccc")
    assert database.sql("SELECT enrollment_id::text, instance_id::text FROM campaign_events ORDER BY id") == [
        (known, None if with_its_instance else second), (other_known, second), (None, None if with_its_instance else first)]
    assert database.counter_drift() == []


def test_deferred_trigger_fails_the_commit_and_nothing_stays(database):
    database.sql("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
                 "'BEGIN RAISE EXCEPTION ''at commit''; END'")
    database.sql("CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON event_keys DEFERRABLE INITIALLY DEFERRED "
                 "FOR EACH ROW EXECUTE FUNCTION fail()")
    with pytest.raises(psycopg2.errors.RaiseException):
        capture(database.gateway_url, event())
    assert database.value("SELECT count(*) FROM campaign_events") == 0


def test_duplicates_write_wal_only_while_synchronous_standbys_are_configured(private_cluster):
    from support.gateway import oncehook
    database = private_cluster.create_database()
    oncehook("migrate", "up", "--database", database.owner_url)
    database.sql("CREATE EXTENSION pg_walinspect")
    one = event()

    def messages():
        with contextlib.closing(sql.connect(database.gateway_url)) as connection, connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = local")  # there is no standby to wait for
            begin = database.value("SELECT pg_current_wal_insert_lsn()::text")
            letters = sql.call(cursor, one)
            database.sql("SELECT pg_create_restore_point('here')")  # a record behind `begin`, whatever the call wrote
            database.sql("SELECT pg_switch_wal()")  # so that all of it can be read
        return letters, database.value("""
            SELECT count(*) FROM pg_get_wal_records_info_till_end_of_wal(%s)
             WHERE resource_manager = 'LogicalMessage'""", begin)

    assert messages() == ("c", 0)
    assert messages() == ("d", 0)
    private_cluster.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    private_cluster.sql("SELECT pg_reload_conf()")
    wait_until(lambda: private_cluster.sql("SHOW synchronous_standby_names") == [("nobody",)])
    assert messages() == ("d", 1)


def quarantine(database, **changes):
    values = {"source": "test", "provider": "hmac", "reason": "unreadable", "method": "POST",
              "url": "/in/test?token=****", "headers": '{"content-type": "text/plain"}', "body": b"\x00\xff",
              "sha256": b"\x01" * 32, **changes}
    with contextlib.closing(sql.connect(database.gateway_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT quarantine_v1(%s, %s, %s, %s, %s, %s, %s, %s)", list(values.values()))


def test_quarantine_keeps_a_body_once_and_counts_its_repeats(database):
    for _ in range(3):
        quarantine(database)
    quarantine(database, source="other")
    quarantine(database, sha256=b"\x02" * 32, provider=None, reason=None, method=None, url=None, headers=None)
    rows = database.sql("SELECT source, attempts, body, resolved_at FROM quarantined_deliveries ORDER BY id")
    assert [(source, attempts, bytes(body), resolved) for source, attempts, body, resolved in rows] == \
        [("test", 3, b"\x00\xff", None), ("other", 1, b"\x00\xff", None), ("test", 1, b"\x00\xff", None)]
