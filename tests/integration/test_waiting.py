"""What clients do while their deliveries wait for the commit: nothing of it is read, nothing of it is lost."""

import contextlib
import socket
import statistics
import struct
import time

from support import process, sign, wire


def request(source, enrollment):
    body = source.encode(source.event(enrollment_id=enrollment))
    return wire.request_bytes("POST", "/in/hmac", source.sign(body), body)


def unread(gateway, one):
    """Bytes of this connection that the kernel holds for the gateway (/proc/net/tcp: rx_queue). By both ports: other
    processes' connections stand there too, and may have this client's."""
    ports = one.socket.getpeername()[1], one.socket.getsockname()[1]
    with open(f"/proc/{gateway.child.pid}/net/tcp", encoding="ascii") as table:
        for line in list(table)[1:]:
            _, local, remote, _, queues, *_ = line.split()
            if tuple(int(end.rpartition(":")[2], 16) for end in (local, remote)) == ports:
                return int(queues.rpartition(":")[2], 16)
    raise AssertionError("no such connection")


def reset(one):
    one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def test_clients_that_send_more_or_leave_while_their_events_wait(start_gateway, database):
    [[_, [enrollment]]] = database.seed(1, 1)
    gateway = start_gateway({"database": {"lanes": 1, "lock_timeout": "25s", "statement_timeout": "28s"},
                             "ack_deadline": "29s", "queue": {"age": "30s"}}, sources=[sign.Hmac()])
    source = gateway.sources["hmac"]
    with contextlib.ExitStack() as stack:
        eager, half, gone, lasting = (
            [stack.enter_context(gateway.wire(tls=tls)) for tls in (False, True)] for _ in range(4))
        with database.held("SELECT 1 FROM campaign_enrollments WHERE id = %s FOR UPDATE", enrollment):
            for one in eager + half + gone + lasting:
                one.send(request(source, enrollment))
            process.wait_until(lambda: database.waiting_lanes() == 1, what="the lane waits")
            process.wait_until(lambda: gateway.metric("oncehook_queue_events") >= 8, what="all are read")
            for one in eager:
                one.send(request(source, enrollment) + wire.request_bytes("GET", "/livez"))
            for one in half:
                socket.socket.shutdown(one.socket, socket.SHUT_WR)  # SSLSocket's own would forget its keys
            for one in gone:
                reset(one)
            assert gateway.cpu_share() < 0.5, "it turns about what it does not read"
            assert all(unread(gateway, one) >= 300 for one in eager), "it read on"
        for one in eager + half + lasting:
            assert one.answer().json["captured"] == 1
        for one in eager:
            assert one.answer().json["captured"] == 1
            assert one.answer().body == b"alive\n"
        for one in half:
            assert one.closed()
        for one in eager + lasting:
            one.send(request(source, enrollment))
            assert one.answer().json["captured"] == 1
    assert database.value("SELECT count(*) FROM campaign_events") == 8 + 2 + 4
    assert database.counter_drift() == []


def test_what_cannot_be_read_just_after_an_answer_ends_the_connection(start_gateway):
    """The refusal is held, and sent between two turns of the loop: what comes before the next turn is still read as if
    the request waited. libh2o would hear of the broken record only once."""
    gateway = start_gateway(sources=[sign.Hmac(rate_limit={"per_second": 1, "burst": 1})])
    source = gateway.sources["hmac"]
    for _ in range(5):
        with gateway.wire(tls=True, timeout=10) as one:
            status = 200
            while status != 429:
                body = source.encode(source.event())
                one.send(wire.request_bytes("POST", "/in/hmac", source.sign(body), body))
                status = one.answer().status
            socket.socket.sendall(one.socket, b"\x17\x03\x03\x00\x30" + bytes(48))  # a record that nobody encrypted
            assert one.closed()


def test_what_stands_behind_a_refusal_does_not_wait_for_the_idle_loop(start_gateway):
    """The refusal is sent between two turns of the loop, and libh2o goes on with its connection in the next one."""
    gateway = start_gateway(sources=[sign.Hmac(rate_limit={"per_second": 1, "burst": 1})])
    source, behind, ends = gateway.sources["hmac"], [], []
    while len(behind) < 5:
        body = source.encode(source.event())
        with gateway.wire() as one:
            one.send(wire.request_bytes("POST", "/in/hmac", source.sign(body), body))
            if one.answer().status != 429:
                continue
            for headers, waited in ({}, behind), ({"Connection": "close"}, ends):
                one.send(wire.request_bytes("POST", "/in/hmac", {**source.sign(body), **headers}, body))
                process.wait_until(lambda: unread(gateway, one) == 0, what="it is read")  # pylint: disable=cell-var-from-loop
                if not headers:
                    one.send(wire.request_bytes("GET", "/livez"))
                one.answer()
                began = time.monotonic()
                assert one.closed() if headers else one.answer().status == 200
                waited.append(time.monotonic() - began)
    assert max(statistics.median(behind), statistics.median(ends)) < 0.1, (behind, ends)
