"""One request and its answer: silence, breaks, and answers that come before the request was sent."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from daemon.transport import S3Transport

MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REFUSAL = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 4\r\n\r\nslow"


def put(size: int = 4, url: str = "http://s3.test/b/k", **extensions) -> httpx.Request:
    return httpx.Request("PUT", url, content=b"x" * size, extensions=extensions)


async def done(transport, request: httpx.Request) -> httpx.Response:
    response = await transport.handle_async_request(request)
    await response.aread()
    return response


async def test_silence_after_the_request_is_a_read_timeout_at_the_moment_it_says(
    network, autojump_clock
) -> None:
    async def mute(peer) -> None:
        await peer.request()
        await trio.sleep_forever()

    network.handler = mute
    transport = network.transport(io_timeout=60)

    with pytest.raises(httpx.ReadTimeout, match="60 s"):
        await done(transport, put())

    assert trio.current_time() == 60
    assert transport.statistics().in_use == 0


@pytest.mark.parametrize(
    ("gap", "survives"), [(59, True), (61, False)], ids=["within the timeout", "beyond it"]
)
async def test_the_timeout_is_for_each_silence_not_for_the_whole_answer(
    network, autojump_clock, gap, survives
) -> None:
    async def drip(peer) -> None:
        await peer.request()
        for at in range(len(OK)):
            await peer.send(OK[at : at + 1])
            await trio.sleep(gap)  # virtual

    network.handler = drip
    transport = network.transport(io_timeout=60)

    if survives:
        assert (await done(transport, put())).content == b"ok"
        assert trio.current_time() == gap * (len(OK) - 1)
    else:
        with pytest.raises(httpx.ReadTimeout):
            await done(transport, put())
        assert trio.current_time() == 60


async def test_a_body_that_stalls_is_a_read_timeout(network, autojump_clock) -> None:
    async def stall(peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await trio.sleep_forever()

    network.handler = stall
    transport = network.transport(io_timeout=60)
    response = await transport.handle_async_request(put())

    with pytest.raises(httpx.ReadTimeout):
        await response.aread()

    assert trio.current_time() == 60
    assert transport.statistics().in_use == 0


@pytest.mark.parametrize("size", [4, 2 * MIB], ids=["small", "large"])
async def test_a_server_that_takes_nothing_is_a_write_timeout(network, autojump_clock, size) -> None:
    async def deaf(peer) -> None:
        await trio.sleep_forever()

    network.handler = deaf
    network.lockstep = True
    transport = network.transport(io_timeout=60)

    with pytest.raises(httpx.WriteTimeout):
        await done(transport, put(size))

    assert trio.current_time() == 60
    assert transport.statistics().in_use == 0


async def test_a_slow_upload_that_moves_is_no_timeout(network, autojump_clock) -> None:
    async def slow(peer) -> None:
        head = await peer.head()
        left = 2 * MIB
        assert b"Content-Length: 2097152" in head
        while left > 0:
            await trio.sleep(6)  # virtual
            left -= len(await peer.stream.receive_some(64 * 1024))
        await peer.send(OK)

    network.handler = slow
    network.lockstep = True

    response = await done(network.transport(io_timeout=60), put(2 * MIB))

    assert response.content == b"ok"
    assert trio.current_time() > 60


async def test_the_read_timeout_of_a_large_upload_begins_when_it_is_sent(network, autojump_clock) -> None:
    async def mute(peer) -> None:
        await peer.request()
        await trio.sleep_forever()

    network.handler = mute
    transport = network.transport(io_timeout=60)

    with pytest.raises(httpx.ReadTimeout):
        await done(transport, put(2 * MIB))

    assert trio.current_time() == 60


async def test_the_timeouts_of_a_request_go_before_those_of_the_transport(network, autojump_clock) -> None:
    async def mute(peer) -> None:
        await peer.request()
        await trio.sleep_forever()

    network.handler = mute
    transport = network.transport(io_timeout=60)

    with pytest.raises(httpx.ReadTimeout):
        await done(transport, put(timeout={"read": 5.0, "write": None}))

    assert trio.current_time() == 5


async def test_connecting_for_too_long_is_a_connect_timeout(network, autojump_clock) -> None:
    async def never(host, port, tls):
        await trio.sleep_forever()

    transport = network.transport(connect=never, connect_timeout=10)

    with pytest.raises(httpx.ConnectTimeout, match=r"connect to s3.test port 80: no connection within 10 s"):
        await done(transport, put())

    assert trio.current_time() == 10
    assert transport.statistics().in_use == 0


@pytest.mark.parametrize("size", [4, 2 * MIB], ids=["small", "large"])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", httpx.ReadError),
        (b"HTTP/1.1 200 O", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", httpx.RemoteProtocolError),
        (b"<html>captive portal</html>", httpx.RemoteProtocolError),
    ],
    ids=["nothing", "half a status", "short of its length", "no last chunk", "garbage"],
)
async def test_an_answer_that_is_missing_truncated_or_garbage_is_an_error(
    network, answer, error, size
) -> None:
    async def handle(peer) -> None:
        await peer.request()
        if answer:
            await peer.send(answer)

    network.handler = handle
    transport = network.transport()

    with pytest.raises(error):
        await done(transport, put(size))

    assert transport.statistics().in_use == 0
    assert transport.statistics().idle == 0


async def answer_while_the_body_is_coming(peer, answer: bytes) -> None:
    await peer.head()
    await peer.send(answer)


@pytest.mark.parametrize("then", ["closes", "stops reading"])
@pytest.mark.parametrize("status", [b"503 Slow Down", b"403 Forbidden", b"307 Temporary Redirect"])
async def test_an_early_refusal_of_a_large_upload_is_the_answer(network, status, then) -> None:
    async def refuse(peer) -> None:
        await answer_while_the_body_is_coming(
            peer, b"HTTP/1.1 " + status + b"\r\nContent-Length: 4\r\n\r\nslow"
        )
        if then == "stops reading":
            await trio.sleep_forever()

    network.handler = refuse
    network.lockstep = True
    transport = network.transport()

    with trio.fail_after(5):
        response = await done(transport, put(8 * MIB))

    assert response.status_code == int(status[:3])
    assert response.content == b"slow"
    assert transport.statistics().idle == 0
    assert transport.statistics().in_use == 0


@pytest.mark.parametrize("size", [1000, 8 * MIB], ids=["small", "large"])
async def test_an_early_refusal_over_a_real_socket_is_the_answer(listen, size) -> None:
    async def refuse(peer) -> None:
        await answer_while_the_body_is_coming(peer, REFUSAL)
        await peer.stream.send_eof()
        while await peer.stream.receive_some():
            pass

    port = await listen(refuse)
    transport = S3Transport(connections_max=1)

    for _ in range(3):
        response = await done(transport, put(size, f"http://127.0.0.1:{port}/"))
        assert (response.status_code, response.content) == (503, b"slow")

    assert transport.statistics().opened == 3


async def test_a_refusal_and_a_reset_before_the_request_was_sent_is_the_answer(network) -> None:
    async def slam(peer) -> None:
        await peer.send(REFUSAL)

    network.handler = slam
    transport = network.transport()
    real_connect = network.connect

    async def connect_to_one_that_has_left(host, port, tls):
        stream = await real_connect(host, port, tls)
        await trio.testing.wait_all_tasks_blocked()
        return stream

    transport._connect = connect_to_one_that_has_left

    for size in (4, 2 * MIB):
        response = await done(transport, put(size))
        assert (response.status_code, response.content) == (503, b"slow")

    assert transport.statistics().idle == 0


@pytest.mark.parametrize("size", [4, 2 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("answer", [b"", OK], ids=["without a word", "after a success"])
async def test_a_connection_broken_while_sending_is_a_write_error(network, answer, size) -> None:
    async def slam(peer) -> None:
        if answer:
            await peer.send(answer)

    network.handler = slam
    transport = network.transport()
    real_connect = network.connect

    async def connect_to_one_that_has_left(host, port, tls):
        stream = await real_connect(host, port, tls)
        await trio.testing.wait_all_tasks_blocked()
        return stream

    transport._connect = connect_to_one_that_has_left

    with pytest.raises(httpx.WriteError):
        await done(transport, put(size))

    assert transport.statistics().in_use == 0


async def test_an_early_success_is_believed_once_all_was_taken(network) -> None:
    taken = []

    async def hasty(peer) -> None:
        await answer_while_the_body_is_coming(peer, OK)
        left = 2 * MIB
        while left > 0:
            left -= len(await peer.stream.receive_some(65536))
        taken.append(left)

    network.handler = hasty
    network.lockstep = True

    response = await done(network.transport(), put(2 * MIB))

    assert response.status_code == 200
    assert taken == [0]


async def test_an_early_refusal_whose_body_is_cut_off_keeps_its_status(network) -> None:
    async def refuse(peer) -> None:
        await answer_while_the_body_is_coming(
            peer, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 900\r\n\r\n<Error>"
        )

    network.handler = refuse
    network.lockstep = True

    response = await done(network.transport(), put(2 * MIB))

    assert (response.status_code, response.content) == (403, b"<Error>")


async def test_a_large_upload_arrives_whole_and_keeps_its_connection(listen) -> None:
    bodies = []

    async def keep(peer) -> None:
        while (request := await peer.request()) is not None:
            bodies.append(request.partition(b"\r\n\r\n")[2])
            await peer.send(OK)

    port = await listen(keep)
    transport = S3Transport(connections_max=1)
    body = bytes(range(256)) * 12_345

    for _ in range(3):
        request = httpx.Request("PUT", f"http://127.0.0.1:{port}/", content=body)
        assert (await done(transport, request)).status_code == 200

    assert bodies == [body] * 3
    assert transport.statistics().opened == 1
    await transport.aclose()


async def test_a_large_upload_that_is_cancelled_closes_its_connection(network) -> None:
    async def deaf(peer) -> None:
        await peer.head()
        await trio.sleep_forever()

    network.handler = deaf
    network.lockstep = True
    transport = network.transport()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(done, transport, put(2 * MIB))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()

    assert scope.cancelled_caught
    assert transport.statistics().in_use == 0
    assert transport.statistics().idle == 0
