"""How many lanes get events: one while they are few, all when one is not enough or is held up."""

import concurrent.futures
import contextlib
import time

import pytest

from support import process, sign

LANE = ("SELECT query_start FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'oncehook lane %s'")
INSTANCE_OF = ("SELECT 1 FROM campaign_instances i JOIN campaign_enrollments e ON e.instance_id = i.id WHERE e.id = %s "
               "FOR UPDATE OF i")


@pytest.fixture
def two_lanes(start_gateway, database):
    """A gateway with two lanes, and an enrollment of each of 24 instances."""
    enrollments = [made[1][0] for made in database.seed(24, 1)]
    return start_gateway({"database": {"lanes": 2, "lock_timeout": "15s", "statement_timeout": "30s"},
                          "ack_deadline": "20s", "queue": {"age": "20s"}}, sources=[sign.Hmac()]), enrollments


def events(gateway, enrollments, count=1):
    return [gateway.sources["hmac"].event(enrollment_id=enrollments[n % len(enrollments)]) for n in range(count)]


def is_one_lane_enough(database, gateway, enrollments):
    """Events of 24 instances, one after the other: has the second lane got none of them?"""
    before = database.value(LANE % 1)
    assert before is not None, "the second lane is not connected"
    for enrollment in enrollments:
        assert gateway.deliver("hmac", *events(gateway, [enrollment])).json["captured"] == 1
    return database.value(LANE % 1) == before


def wait_for_one_lane(database, gateway, enrollments):
    """On a machine that stalls for 20 ms all are used for a while, so it may take some tries."""
    process.wait_until(lambda: is_one_lane_enough(database, gateway, enrollments), 60, what="one lane is used")


def test_few_events_are_not_divided_and_many_are(two_lanes, database):
    gateway, enrollments = two_lanes
    wait_for_one_lane(database, gateway, enrollments)
    before = database.value(LANE % 1)
    assert gateway.deliver("hmac", *events(gateway, enrollments, 600)).json["captured"] == 600
    assert database.value(LANE % 1) > before
    wait_for_one_lane(database, gateway, enrollments)
    assert database.counter_drift() == []


def test_a_row_that_is_held_stops_one_lane_only(two_lanes, database):
    """All were in the first lane. Those of the held row's instance stay there, whatever their hash says."""
    gateway, enrollments = two_lanes
    for held_one in range(6):  # whose hash is that of either lane, but for one time in 32
        wait_for_one_lane(database, gateway, enrollments)
        others = enrollments[:held_one] + enrollments[held_one + 1:]
        with concurrent.futures.ThreadPoolExecutor(30) as pool, contextlib.ExitStack() as hold:
            hold.enter_context(database.held(INSTANCE_OF, enrollments[held_one]))
            def post(enrollment):
                return pool.submit(gateway.deliver, "hmac", *events(gateway, [enrollment]))
            held = [post(enrollments[held_one])]
            process.wait_until(lambda: database.waiting_lanes() == 1, what="a lane waits for the row")
            time.sleep(0.03)  # from here on it counts as held up
            held += [post(enrollments[held_one]) for _ in range(4)]
            free = [post(enrollment) for enrollment in others]
            process.wait_until(lambda: any(one.done() for one in free), what="the other lane's")
            assert database.waiting_lanes() == 1
            assert not any(one.done() for one in held)
            hold.close()
            assert {one.result().status for one in held + free} == {200}
    assert database.counter_drift() == []


def test_nobody_joins_a_lane_while_another_is_held_up(two_lanes, database):
    """A held row stops the lane of its hash while all are used; what few events the first lane gets then must
    not make it the only one, since the instance's next event would stop it, too."""
    gateway, enrollments = two_lanes
    for held_one in range(12):  # a quarter of them is the second lane's, with the other's in the first
        others = enrollments[:held_one] + enrollments[held_one + 1:]
        with concurrent.futures.ThreadPoolExecutor(30) as pool, contextlib.ExitStack() as hold:
            hold.enter_context(database.held(INSTANCE_OF, enrollments[held_one]))
            def post(enrollment):
                return pool.submit(gateway.deliver, "hmac", *events(gateway, [enrollment]))
            # So many that all lanes are used, and few of them with the row.
            sent = [pool.submit(gateway.deliver, "hmac", *events(gateway, enrollments[held_one:held_one + 1], 4),
                                *events(gateway, [enrollments[held_one + 12]], 60))]
            process.wait_until(lambda: database.waiting_lanes() == 1, what="a lane waits for the row")
            free = {enrollment: post(enrollment) for enrollment in others}
            process.wait_until(lambda: any(one.done() for one in free.values()), what="the other lane's")
            open_one = next(enrollment for enrollment, one in free.items() if one.done())
            for _ in range(20):  # the first lane, if it is this one, sees few events for long
                assert post(open_one).result().status == 200
            sent += [post(enrollments[held_one]), *free.values()]
            assert post(open_one).result().status == 200
            assert database.waiting_lanes() == 1
            hold.close()
            assert {one.result().status for one in sent} == {200}
    assert database.counter_drift() == []
