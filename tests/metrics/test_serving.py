from __future__ import annotations

import contextlib
import re
from http import HTTPStatus

import h11
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.serving import (
    ANSWER_SECONDS,
    CONNECTIONS_MAX,
    HEAD_BYTES_MAX,
    REQUEST_SECONDS,
    Call,
    Reply,
    converse,
    plain,
    serve,
)

GET = b"GET /a?b=c HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def echo(call: Call) -> Reply:
    return plain(HTTPStatus.OK, f"{call.path} at {call.fields.get('host')}")


async def said(request: bytes, answer=echo) -> bytes:
    """Everything the server says to `request`, whose sender then closes its half."""
    client, server = trio.testing.memory_stream_pair()
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, server, answer)
        await client.send_all(request)
        await client.send_eof()
        async for chunk in client:
            received += chunk
    return bytes(received)


def statuses(answers: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d{3})", answers)


async def test_a_request_is_answered_with_its_path_and_without_its_query():
    head, _, body = (await said(GET)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert body == b"/a at localhost\n"


async def test_requests_on_one_connection_are_answered_in_turn():
    answers = await said(GET + GET.replace(b"/a", b"/z"))
    assert statuses(answers) == [b"200", b"200"]
    assert answers.index(b"/a at") < answers.index(b"/z at")


async def test_head_is_answered_like_get_but_for_the_body():
    head = await said(GET.replace(b"GET", b"HEAD"))
    assert head.endswith(b"\r\n\r\n")
    assert head.split(b"\r\n\r\n")[0] == (await said(GET)).split(b"\r\n\r\n")[0]


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT"])
async def test_other_methods_are_refused(method):
    answers = await said(GET.replace(b"GET", method))
    assert statuses(answers) == [b"405"]
    assert b"allow: GET, HEAD" in answers


async def test_a_body_ends_the_connection_and_is_never_taken_for_a_request():
    smuggled = b"GET /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(GET) + GET
    answers = await said(smuggled)
    assert statuses(answers) == [b"200"]
    assert b"connection: close" in answers.lower()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"no request at all\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * HEAD_BYTES_MAX, b"431"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"GET / HTT", b"400"),
    ],
)
async def test_what_breaks_the_protocol_is_refused(request_bytes, status):
    assert statuses(await said(request_bytes)) == [status]


async def test_a_request_that_does_not_arrive_ends_its_connection(autojump_clock):
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, server, echo)
        await client.send_all(GET[:20])
        assert await client.receive_some() == b""
    assert trio.current_time() == REQUEST_SECONDS


async def test_a_byte_now_and_then_buys_no_time(autojump_clock):
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, server, echo)
        with contextlib.suppress(trio.BrokenResourceError):
            for byte in GET * 2:
                await client.send_all(bytes([byte]))
                await trio.sleep(1)
    assert trio.current_time() <= REQUEST_SECONDS + 1


async def test_an_answer_that_is_not_taken_ends_its_connection(autojump_clock):
    client, server = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, GET)
        await converse(server, echo)
    assert trio.current_time() == ANSWER_SECONDS


async def test_more_connections_than_allowed_are_closed_unanswered():
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, listeners, echo)
        kept = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(CONNECTIONS_MAX)]
        for stream in kept:
            await stream.send_all(GET)
            assert await stream.receive_some(4096)
        late = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(30):
            assert await late.receive_some(1) == b""
        await kept[0].send_all(GET)
        assert await kept[0].receive_some(4096)
        for stream in [*kept, late]:
            await stream.aclose()
        nursery.cancel_scope.cancel()


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(
                [GET, b"\r\n", b"GET", b" / ", b"HTTP/1.1", b"HTTP/1.0\r\n", b"Host: x\r\n", b"\x00", b":", b"\xff",
                 b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
                 b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"0\r\n\r\n", b"HEAD / HTTP/1.1\r\n"]
            ),
            max_size=12,
        ).map(b"".join),
    )
)  # fmt: skip
def test_whatever_is_sent_gets_well_formed_answers_or_none(sent):
    answers = trio.run(said, sent)
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(answers)
    first = reader.next_event() if answers else None
    assert first is None or isinstance(first, h11.Response)
    assert set(statuses(answers)) <= {b"200", b"400", b"405", b"431", b"501"}
