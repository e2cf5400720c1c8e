"""How many lanes get events: one while batches are small, all when one is not enough or is held up."""

import concurrent.futures
import time

import pytest

from support import process, sign

LANE = ("SELECT query_start FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'oncehook lane %s'")


@pytest.fixture
def two_lanes(start_gateway, database):
    """A gateway with two lanes, and an enrollment of each of 24 instances."""
    enrollments = [made[1][0] for made in database.seed(24, 1)]
    return start_gateway({"database": {"lanes": 2, "lock_timeout": "15s", "statement_timeout": "30s"},
                          "ack_deadline": "20s"}, sources=[sign.Hmac()]), enrollments


def events(gateway, enrollments, count=1):
    return [gateway.sources["hmac"].event(enrollment_id=enrollments[n % len(enrollments)]) for n in range(count)]


def is_one_lane_enough(database, gateway, enrollments):
    """Events of 24 instances, one after the other: has the second lane got none of them?"""
    before = database.value(LANE % 1)
    for enrollment in enrollments:
        assert gateway.deliver("hmac", *events(gateway, [enrollment])).json["captured"] == 1
    return database.value(LANE % 1) == before


def test_small_batches_are_not_divided_and_large_ones_are(two_lanes, database):
    """On a machine that stalls for 20 ms both are used for a while, so it may take some tries."""
    gateway, enrollments = two_lanes
    process.wait_until(lambda: is_one_lane_enough(database, gateway, enrollments), 60, what="one lane is used")
    before = database.value(LANE % 1)
    for _ in range(2):  # the first makes a large batch, the second finds both lanes
        assert gateway.deliver("hmac", *events(gateway, enrollments, 600)).json["captured"] == 600
    assert database.value(LANE % 1) > before
    process.wait_until(lambda: is_one_lane_enough(database, gateway, enrollments), 60, what="one lane is used again")
    assert database.counter_drift() == []


def test_a_lane_that_is_held_up_does_not_hold_up_all(two_lanes, database):
    gateway, enrollments = two_lanes
    process.wait_until(lambda: is_one_lane_enough(database, gateway, enrollments), 60, what="one lane is used")
    holder = database.connect()
    holder.cursor().execute("BEGIN; SELECT 1 FROM campaign_instances i JOIN campaign_enrollments e "
                            "ON e.instance_id = i.id WHERE e.id = %s FOR UPDATE OF i", (enrollments[0],))
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        held = [pool.submit(gateway.deliver, "hmac", *events(gateway, enrollments[:1]))]
        process.wait_until(lambda: database.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            " AND application_name LIKE 'oncehook lane%'"), what="a lane waits for the row")
        time.sleep(0.03)  # from here on it counts as held up
        held += [pool.submit(gateway.deliver, "hmac", *events(gateway, [enrollment])) for enrollment in enrollments[1:]]
        process.wait_until(lambda: sum(one.done() for one in held) > 4, 10, what="the other lane's")
        assert not held[0].done()
        holder.cursor().execute("ROLLBACK")
        holder.close()
        assert [one.result().status for one in held] == [200] * 24
    assert database.counter_drift() == []
