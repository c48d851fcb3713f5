"""Connections: how many are opened, when they are kept, and that none is ever lost."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from daemon.transport import IDLE_SECONDS_MAX, S3Transport, Statistics

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def put(url: str = "http://s3.test/b/k", body: bytes = b"body", **extensions) -> httpx.Request:
    return httpx.Request("PUT", url, content=body, extensions=extensions)


async def done(transport: S3Transport, request: httpx.Request) -> httpx.Response:
    response = await transport.handle_async_request(request)
    await response.aread()
    return response


async def test_a_hundred_requests_share_one_connection(listen, answering) -> None:
    port = await listen(answering(OK))
    transport = S3Transport(connections_max=8)

    for _ in range(100):
        response = await done(transport, put(f"http://127.0.0.1:{port}/b/k"))
        assert response.content == b"ok"

    assert transport.statistics() == Statistics(opened=1, requests=100, idle=1, in_use=0)
    await transport.aclose()


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
        b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray",
    ],
    ids=["close", "close-delimited", "503", "http 1.0", "surplus"],
)
async def test_after_an_answer_that_spends_its_connection_another_is_opened(network, first) -> None:
    network.answer(first, OK)
    transport = network.transport()

    await done(transport, put())
    second = await done(transport, put())

    assert second.content == b"ok"
    assert transport.statistics() == Statistics(opened=2, requests=2, idle=1, in_use=0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nETag: e\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 412 Precondition Failed\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere.test/\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["204", "304", "interim", "chunked", "redirect"],
)
async def test_answers_of_every_framing_keep_the_connection(network, answer) -> None:
    network.answer(answer)
    transport = network.transport()

    statuses = {(await done(transport, put())).status_code for _ in range(3)}

    assert len(network.opened) == 1
    assert statuses == {int(answer.rpartition(b"HTTP/1.1 ")[2][:3])}


async def test_head_requests_keep_the_connection_and_have_no_body(network) -> None:
    network.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nX-Amz-Meta-A: 1\r\n\r\n")
    transport = network.transport()

    for _ in range(3):
        response = await done(transport, httpx.Request("HEAD", "http://s3.test/b/k"))
        assert response.headers["x-amz-meta-a"] == "1"
        assert response.headers["content-length"] == "5000"
        assert response.content == b""

    assert len(network.opened) == 1


async def test_the_connection_used_last_is_used_first(network) -> None:
    gate = trio.Event()

    async def handle(peer) -> None:
        while await peer.request() is not None:
            await gate.wait()
            await peer.send(OK)

    network.handler = handle
    transport = network.transport()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(done, transport, put())
        await trio.testing.wait_all_tasks_blocked()
        gate.set()

    for _ in range(5):
        await done(transport, put())

    assert sorted(len(peer.requests) for peer in network.opened) == [1, 1, 6]


async def test_each_origin_has_connections_of_its_own(network) -> None:
    transport = network.transport()

    for url in ("http://a.test/", "http://b.test/", "http://a.test:81/", "http://a.test/"):
        await done(transport, put(url))

    assert transport.statistics().opened == 3


async def test_another_origin_takes_the_place_of_the_connection_idle_for_longest(network) -> None:
    transport = network.transport(connections_max=2)
    for url in ("http://old.test/", "http://new.test/", "http://third.test/", "http://new.test/"):
        await done(transport, put(url))

    assert transport.statistics() == Statistics(opened=3, requests=4, idle=2, in_use=0)


async def test_never_more_connections_than_the_bound(network) -> None:
    at_once: list[int] = []
    now = 0

    async def handle(peer) -> None:
        nonlocal now
        while await peer.request() is not None:
            now += 1
            at_once.append(now)
            await trio.testing.wait_all_tasks_blocked()
            now -= 1
            await peer.send(OK)

    network.handler = handle
    transport = network.transport(connections_max=4)

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(done, transport, put())

    assert max(at_once) == 4
    assert transport.statistics() == Statistics(opened=4, requests=40, idle=4, in_use=0)


async def test_six_thousand_cancelled_requests_under_contention_leak_nothing(network) -> None:
    async def handle(peer) -> None:
        while await peer.request() is not None:
            await trio.lowlevel.checkpoint()
            await peer.send(OK)

    network.handler = handle
    transport = network.transport(connections_max=10)

    async def worker(number: int) -> None:
        for turn in range(300):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(done, transport, put())
                    for _ in range((number + turn) % 9):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(worker, number)

    assert transport.statistics().in_use == 0
    assert transport.statistics().idle <= 10
    gate = trio.Event()
    waiting = 0

    async def gated(peer) -> None:
        nonlocal waiting
        while await peer.request() is not None:
            waiting += 1
            await gate.wait()
            await peer.send(OK)

    network.handler = gated
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(done, transport, put("http://other.test/"))
        await trio.testing.wait_all_tasks_blocked()
        assert waiting == 10
        gate.set()


async def test_a_request_cancelled_while_connecting_frees_its_place(network) -> None:
    async def never(host, port, tls):
        await trio.sleep_forever()

    transport = S3Transport(connections_max=1, connect=never)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(done, transport, put())
            await trio.testing.wait_all_tasks_blocked()
            assert transport.statistics().in_use == 1
            scope.cancel()

    assert transport.statistics() == Statistics(opened=0, requests=0, idle=0, in_use=0)
    transport._connect = network.connect
    assert (await done(transport, put())).status_code == 200


async def test_a_request_cancelled_while_waiting_for_the_answer_closes_its_connection(network) -> None:
    ended = trio.Event()

    async def handle(peer) -> None:
        await peer.request()
        assert await peer.stream.receive_some(1) == b""
        ended.set()

    network.handler = handle
    transport = network.transport()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(done, transport, put())
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()

    with trio.fail_after(5):
        await ended.wait()
    assert transport.statistics().in_use == 0


async def test_a_slot_that_stays_taken_is_a_pool_timeout(network, autojump_clock) -> None:
    async def mute(peer) -> None:
        await trio.sleep_forever()

    network.handler = mute
    transport = network.transport(connections_max=1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(done, transport, put())
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(httpx.PoolTimeout):
            await done(transport, put(timeout={"pool": 7}))
        assert trio.current_time() == pytest.approx(7)
        nursery.cancel_scope.cancel()


LONG_BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n"


async def stream_long_body(peer) -> None:
    while await peer.request() is not None:
        await peer.send(LONG_BODY)
        for _ in range(3):
            await peer.send(b"x" * 100_000)


async def test_a_streamed_body_read_to_its_end_keeps_the_connection(network) -> None:
    network.handler = stream_long_body
    transport = network.transport()

    for _ in range(2):
        response = await transport.handle_async_request(put())
        assert transport.statistics().in_use == 1
        sizes = [len(part) async for part in response.aiter_raw()]
        assert sum(sizes) == 300_000
        assert max(sizes) <= 2 * 65536
        assert transport.statistics().in_use == 0

    assert len(network.opened) == 1


async def test_a_streamed_body_that_is_closed_early_closes_the_connection(network) -> None:
    network.handler = stream_long_body
    transport = network.transport()
    response = await transport.handle_async_request(put())

    await response.aclose()
    await response.aclose()

    assert transport.statistics() == Statistics(opened=1, requests=1, idle=0, in_use=0)


async def test_a_streamed_body_whose_reader_is_cancelled_frees_its_slot(network) -> None:
    async def half(peer) -> None:
        await peer.request()
        await peer.send(LONG_BODY + b"half")
        await trio.sleep_forever()

    network.handler = half
    transport = network.transport(connections_max=1)
    with trio.CancelScope() as scope:
        response = await transport.handle_async_request(put())
        scope.cancel()
        await response.aread()

    assert transport.statistics().in_use == 0
    network.answer(OK)
    assert (await done(transport, put())).status_code == 200


async def test_a_body_read_twice_is_refused(network) -> None:
    network.handler = stream_long_body
    response = await network.transport().handle_async_request(put())
    [_ async for _ in response.stream]

    with pytest.raises(httpx.StreamClosed):
        [_ async for _ in response.stream]


async def test_a_kept_connection_that_the_server_closed_meanwhile_is_not_used(listen) -> None:
    closed = trio.Event()

    async def once(peer) -> None:
        if await peer.request() is not None:
            await peer.send(OK)
            await peer.close()
            closed.set()

    port = await listen(once)
    transport = S3Transport(connections_max=8)
    for _ in range(3):
        await done(transport, put(f"http://127.0.0.1:{port}/"))
        with trio.fail_after(5):
            await closed.wait()
            while not transport_sees_the_end(transport):
                await trio.lowlevel.checkpoint()
        closed = trio.Event()

    assert transport.statistics().opened == 3
    await transport.aclose()


def transport_sees_the_end(transport: S3Transport) -> bool:
    return all(kept.went_stale() for origin in transport._origins.values() for kept in origin.idle)


async def test_a_kept_connection_that_dies_under_a_request_is_an_error_and_nothing_is_sent_again(
    network,
) -> None:
    async def once(peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()  # taken, then dropped without a word

    network.handler = once
    transport = network.transport()
    await done(transport, put())

    with pytest.raises(httpx.ReadError, match="without an answer"):
        await done(transport, put())

    assert [len(peer.requests) for peer in network.opened] == [2]
    assert transport.statistics().in_use == 0


async def test_a_connection_kept_for_too_long_is_not_used(network, autojump_clock) -> None:
    transport = network.transport()
    await done(transport, put())
    autojump_clock.jump(IDLE_SECONDS_MAX - 1)
    await done(transport, put())
    assert transport.statistics().opened == 1
    autojump_clock.jump(IDLE_SECONDS_MAX + 1)

    await done(transport, put())

    assert transport.statistics() == Statistics(opened=2, requests=3, idle=1, in_use=0)


async def test_closing_closes_what_is_idle_now_and_what_is_in_use_when_it_ends(network) -> None:
    transport = network.transport()
    network.handler = stream_long_body
    response = await transport.handle_async_request(put("http://a.test/"))
    network.answer(OK)
    await done(transport, put("http://b.test/"))

    await transport.aclose()
    assert transport.statistics().idle == 0
    await response.aread()

    assert transport.statistics() == Statistics(opened=2, requests=2, idle=0, in_use=0)
    with pytest.raises(httpx.LocalProtocolError, match="closed"):
        await done(transport, put())


async def test_closing_while_being_cancelled_closes_every_kept_connection(network) -> None:
    transport = network.transport()
    for number in range(4):
        await done(transport, put(f"http://host{number}.test/"))

    with trio.CancelScope() as scope:
        scope.cancel()
        await transport.aclose()

    assert transport.statistics().idle == 0
    for peer in network.opened:
        with trio.fail_after(5):
            await peer.ended.wait()


async def test_a_request_that_can_not_be_sent_opens_nothing(network) -> None:
    transport = network.transport()
    request = httpx.Request("PUT", "http://s3.test/", headers=[(b"X-A", b"a\r\nX-B: c")], content=b"")

    with pytest.raises(httpx.LocalProtocolError):
        await done(transport, request)

    assert network.opened == []


async def test_an_async_client_works_on_top(network) -> None:
    async with httpx.AsyncClient(transport=network.transport()) as client:
        first = await client.put("http://s3.test/b/k", content=b"body")
        second = await client.get("http://s3.test/b/k")

    assert (first.text, second.text) == ("ok", "ok")
    assert len(network.opened) == 1
    assert network.opened[0].requests[0].endswith(b"\r\n\r\nbody")
