"""HTTP answers: any bytes end in what S3 documents or in a classified failure, however they are cut, within bounds."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import httpx
import pytest
import trio
from hypothesis import assume, given
from hypothesis import strategies as st

from daemon.answers import ERROR_BODY_BYTES_MAX
from daemon.classifying import Subject
from daemon.http_answer import QUIET_BYTES_MAX, AnswerParser
from daemon.http_connection import RECEIVE_BYTES
from daemon.objects import IF_ABSENT, PreconditionFailed
from daemon.retrying import Failure
from daemon.transport import S3Transport
from tests.fuzzing.hostile import FUZZED, mutated
from tests.fuzzing.test_s3_documents import ERROR, PAGE
from tests.s3_servers import BUCKET, Capabilities, S3Server

BODY = b"value"
OPERATIONS = {
    "put": lambda bucket: bucket.put(
        BUCKET, "k", BODY, md5=hashlib.md5(BODY).digest(), headers={}, condition=IF_ABSENT
    ),
    "head": lambda bucket: bucket.head(BUCKET, "k"),
    "get": lambda bucket: bucket.get(BUCKET, "k", size_max=100),
    "digest": lambda bucket: bucket.get_digest(BUCKET, "k", size_max=100),
    "list": lambda bucket: bucket.list_page(BUCKET, "", token=None),
    "delete": lambda bucket: bucket.delete(BUCKET, "k"),
    "ask": lambda bucket: bucket.ask(Subject("LIST", BUCKET)),
}


class Script(trio.abc.Stream):
    """A server that answers every request with the same pieces, then ends the connection or goes on for ever.

    Attributes:
        taken: bytes handed out.
    """

    def __init__(self, pieces: list[bytes], *, endless: bytes = b"") -> None:
        self._pieces = pieces
        self._endless = endless
        self.taken = 0

    async def send_all(self, data) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes=None) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = self._pieces.pop(0) if self._pieces else self._endless
        self.taken += len(piece)
        return piece

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def outcome(name: str, script: Script) -> object:
    """What an operation returns or how it fails, as a value; any other exception is the test's failure."""

    async def ask() -> object:
        async def connect(host: str, port: int, tls: object) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            return script

        transport = S3Transport(connections_max=1, connect=connect)
        server = S3Server("script", "http://s3.test", Capabilities())
        try:
            found: object = await OPERATIONS[name](server.bucket_over(transport))
        except PreconditionFailed as failed:
            found = ("precondition", failed.request_id)
        except Failure as failure:
            found = (failure.kind, failure.message, failure.http_status, failure.code, failure.request_id)
        assert transport.statistics().in_use == 0
        await transport.aclose()
        return found

    return trio.run(ask)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[one:other] for one, other in pairwise(edges)]


LINES = st.sampled_from(
    [
        *(
            b"Content-Length: 5",
            b"Content-Length: 0",
            b"Content-Length: 05",
            b"content-length:5",
            b"Content-Length: 5, 5",
        ),
        *(
            b"Content-Length: +5",
            b"Content-Length: 99999999999999999999999",
            b"Content-Length : 5",
            b"Content-Length:",
        ),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked, gzip"),
        *(b"Transfer-Encoding : chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding:\x0bchunked"),
        *(
            b"Connection: close",
            b"Connection: keep-alive",
            b"Connection: upgrade",
            b"Upgrade: h2c",
            b" folded: line",
        ),
        *(
            b'ETag: "e"',
            b"ETag: \xc3\xa9",
            b"ETag: \xff",
            b"x-amz-version-id: \xc2\x9b31m",
            b"x-amz-meta-a: %1b",
        ),
        *(
            b"Date: Mon, 01 Jan 99999999999 00:00:00 GMT",
            b"Location: //evil.test/\x7f",
            b"x-amz-request-id: r\xe9",
        ),
        *(b"X: a\rb", b"X: a\x00b", b": nameless", b"no colon", b"X-Many: " + b"a" * 3000),
    ]
)
STATUSES = st.sampled_from(
    (
        b"200 OK|204 No Content|206 Partial|301 Moved|304 Not Modified|307 T|400 B|403 F|404 N|412 P|500 I|503 Slow"
        b"|100 Continue|101 Switching|199 X|099 X|999 X|200|2000 OK|-20 X|200 \xff\x1b[2J"
    ).split(b"|")
)
BODIES = st.sampled_from(
    [
        b"",
        b"value",
        b"5\r\nvalue\r\n0\r\n\r\n",
        b"5;e=1\r\nvalue\r\n0\r\nT: t\r\n\r\n",
        b"FFFFFFFFFFFFFFFF\r\nx",
        ERROR,
        PAGE,
    ]
)


@st.composite
def answers(draw) -> bytes:
    """An answer whose head may contradict itself, perhaps behind interim ones, perhaps before another."""
    version = draw(
        st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b"http/1.1", b"ICY"])
    )
    lines = draw(st.lists(LINES, max_size=5))
    body = draw(BODIES)
    if draw(st.booleans()):
        lines.append(b"Content-Length: %d" % len(body))
    head = b"\r\n".join([version + b" " + draw(STATUSES), *lines])
    before = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.sampled_from([0, 0, 0, 1, 3]))
    after = draw(st.sampled_from([b"", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\r\n", b"x"]))
    return before + head + b"\r\n\r\n" + body + after


GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "e"\r\nx-amz-request-id: r1\r\n\r\n'
HOSTILE = st.one_of(
    answers(),
    st.binary(max_size=100),
    mutated(GOOD % len(PAGE) + PAGE),
    mutated(
        b"HTTP/1.1 503 Slow Down\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (len(ERROR), ERROR)
    ),
)


@FUZZED
@given(HOSTILE, st.sampled_from(sorted(OPERATIONS)))
def test_any_bytes_end_in_an_answer_or_a_classified_failure(data: bytes, operation: str) -> None:
    found = outcome(operation, Script([data]))
    if isinstance(found, tuple) and isinstance(found[1], str):
        assert found[1].isprintable()


@FUZZED
@given(answers(), st.sampled_from(sorted(OPERATIONS)), st.lists(st.integers(1, 300), max_size=20))
def test_an_answer_means_the_same_wherever_it_is_split(
    data: bytes, operation: str, places: list[int]
) -> None:
    whole = outcome(operation, Script([data]))
    assert outcome(operation, Script(cut(data, places))) == whole


PUT_ANSWER = b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nETag: "\xc3\xa9"\r\nContent-Length: 0\r\n\r\n'
GET_ANSWER = b'HTTP/1.1 200 OK\r\nETag: "\xc3\xa9"\r\nContent-Length: 5\r\n\r\nvalue'


@pytest.mark.parametrize(
    ("operation", "data"),
    [("put", PUT_ANSWER), ("get", GET_ANSWER), ("list", GOOD % len(PAGE) + PAGE)],
    ids=["put", "get", "list"],
)
def test_an_answer_means_the_same_split_at_every_byte_and_nothing_cut_off_anywhere(operation, data) -> None:
    whole = outcome(operation, Script([data]))
    for at in range(1, len(data)):
        assert outcome(operation, Script(cut(data, [at]))) == whole
        cut_off = outcome(operation, Script([data[:at]]))
        assert isinstance(cut_off, tuple)
        assert isinstance(cut_off[1], str), f"cut off at {at} it is taken for an answer"
    assert outcome(operation, Script([data[at : at + 1] for at in range(len(data))])) == whole


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.parametrize(
    ("head", "endless", "bytes_max"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"a" * 4096, QUIET_BYTES_MAX),
        (b"HTTP/1.1 200 OK\r\n", b"X-Many: a\r\n" * 400, QUIET_BYTES_MAX),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 160, QUIET_BYTES_MAX),
        (
            b"HTTP/1.1 500 Internal\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1000\r\n" + bytes(4096) + b"\r\n",
            2 * ERROR_BODY_BYTES_MAX,
        ),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", bytes(4096), 2 * ERROR_BODY_BYTES_MAX),
        (b"HTTP/1.1 301 Moved\r\nContent-Length: 99999999999\r\n\r\n", bytes(4096), 2 * ERROR_BODY_BYTES_MAX),
        (b"HTTP/1.1 500 I\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"T: t\r\n" * 700, QUIET_BYTES_MAX),
    ],
    ids=["header", "headers", "interim", "chunks", "until close", "length", "trailers"],
)
def test_an_answer_without_end_is_left_within_its_bound(operation, head, endless, bytes_max) -> None:
    script = Script([head] if head else [], endless=endless)
    outcome(operation, script)
    assert script.taken <= bytes_max + RECEIVE_BYTES


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5, 6",
        b"Content-Length : 5",
        b"Content-Length: +5",
        b"Content-Length: 0x5",
        b"Transfer-Encoding : chunked",
    ],
)
def test_contradictory_framing_is_a_protocol_error(lines: bytes) -> None:
    parser = AnswerParser()
    with pytest.raises(httpx.RemoteProtocolError):
        parser.feed(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\n5\r\nvalue\r\n0\r\n\r\n")


@FUZZED
@given(answers(), st.booleans())
def test_no_byte_of_one_answer_is_ever_taken_for_the_next(data: bytes, to_head: bool) -> None:
    """What is left over condemns its connection: the next request's answer can't be chosen by the last one's."""
    parser, alone = AnswerParser(), AnswerParser()
    parser.expect(to_head=to_head)
    alone.expect(to_head=to_head)
    surplus = b"HTTP/1.1 200 OK\r\nETag: planted\r\nContent-Length: 0\r\n\r\n"
    try:
        alone.feed(data)
        parser.feed(data + surplus)
    except httpx.RemoteProtocolError:
        return
    # After an interim answer the next one is its own.
    assume(alone.complete)
    assert not (parser.complete and parser.keep_alive)


def test_a_header_that_is_no_ascii_means_the_same_in_every_answer() -> None:
    """HEAD and GET read it in two ways, so that an object seemed to change between them."""
    head = outcome("head", Script([GET_ANSWER.removesuffix(BODY)]))
    facts, _ = outcome("get", Script([GET_ANSWER]))
    assert head == facts
