from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.http_answer import QUIET_BYTES_MAX, AnswerParser


def parse(data: bytes, *, cuts=(), to_head: bool = False, ends: bool = False) -> AnswerParser:
    parser = AnswerParser()
    parser.expect(to_head=to_head)
    at = 0
    for cut in [*sorted(cuts), len(data)]:
        if not parser.complete and data[at:cut]:
            parser.feed(data[at:cut])
        at = max(at, cut)
    if ends:
        parser.end()
    return parser


def seen(parser: AnswerParser) -> tuple:
    return (
        parser.status,
        parser.reason,
        parser.headers,
        parser.take_body(),
        parser.complete,
        parser.keep_alive,
    )


def chunked(parts: list[bytes], trailer: bytes) -> bytes:
    return (
        b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part) + b"0\r\n" + trailer + b"\r\n"
    )


names = st.from_regex(r"x-[a-z]{1,8}", fullmatch=True).map(str.encode)
values = st.from_regex(r"([!-~]([ -~]{0,30}[!-~])?)?", fullmatch=True).map(str.encode)


@st.composite
def answers(draw):
    """One well-formed answer: its bytes, status, headers, body, and whether the connection ends it."""
    status = draw(st.sampled_from([200, 201, 301, 403, 404, 412, 500]))
    headers = draw(st.lists(st.tuples(names, values), max_size=6))
    parts = draw(st.lists(st.binary(max_size=50), max_size=4))
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    body = b"".join(parts)
    if framing == "length":
        headers = [*headers, (b"Content-Length", b"%d" % len(body))]
    elif framing == "chunked":
        headers = [*headers, (b"Transfer-Encoding", b"chunked")]
    head = b"HTTP/1.1 %d Some Reason\r\n" % status + b"".join(b"%b: %b\r\n" % h for h in headers) + b"\r\n"
    interim = draw(
        st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 E\r\nLink: x\r\n\r\n"])
    )
    trailer = draw(st.sampled_from([b"", b"X-Trailer: t\r\n"]))
    tail = chunked(parts, trailer) if framing == "chunked" else body
    return interim + head + tail, status, headers, body, framing


@given(answer=answers(), cuts=st.lists(st.integers(0, 400), max_size=30))
def test_an_answer_reads_the_same_wherever_it_is_split(answer, cuts) -> None:
    data, status, headers, body, framing = answer

    parser = parse(data, cuts=cuts, ends=framing == "close")

    expected = (status, b"Some Reason", headers, body, True, framing != "close")
    assert seen(parser) == expected


@given(answer=answers(), share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_answer_is_never_complete(answer, share) -> None:
    data, _, _, _, framing = answer
    head_end = data.rfind(b"\r\n\r\n") if framing == "close" else len(data)
    cut = int(head_end * share)
    parser = AnswerParser()
    parser.feed(data[:cut] or b"H")

    assert not parser.complete
    if framing != "close" or not parser.head_complete:
        with pytest.raises(httpx.RemoteProtocolError):
            parser.end()


@given(data=st.binary(min_size=1, max_size=300), prefix=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n"]))
@pytest.mark.parametrize("to_head", [False, True])
def test_garbage_is_an_answer_or_a_protocol_error_and_nothing_else(data, prefix, to_head) -> None:
    parser = AnswerParser()
    parser.expect(to_head=to_head)
    try:
        parser.feed(prefix + data)
        if not parser.complete:
            parser.end()
    except httpx.RemoteProtocolError:
        return
    assert parser.status >= 200


@pytest.mark.parametrize(
    "data",
    [
        b"<html>proxy says no</html>",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
    ],
)
def test_what_is_no_http_1_answer_is_refused(data) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        parse(data)


def bytes_taken(parser: AnswerParser, data: bytes) -> int:
    """Return how much of `data` the parser takes before it refuses."""
    for at in range(0, len(data), 1000):
        try:
            parser.feed(data[at : at + 1000])
        except httpx.RemoteProtocolError:
            return at
    return len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 200_000,
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: a\r\n" * 20_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    ],
    ids=["header", "headers", "interim"],
)
@pytest.mark.parametrize("to_head", [False, True])
def test_a_head_without_end_is_refused_within_bounds(data, to_head) -> None:
    parser = AnswerParser()
    parser.expect(to_head=to_head)

    assert bytes_taken(parser, data) <= QUIET_BYTES_MAX + 1000


@pytest.mark.parametrize("tail", [b"0\r\n" + b"X-Trailer: a\r\n" * 20_000, b"1;" + b"e" * 200_000])
def test_trailers_and_chunk_extensions_without_end_are_refused_within_bounds(tail) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    assert bytes_taken(AnswerParser(), head + tail) <= QUIET_BYTES_MAX + 1000


def test_a_long_body_is_no_head_without_end() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"

    parser = parse(head + bytes(1_000_000), cuts=range(0, 1_000_000, 5000))

    assert parser.complete
    assert len(parser.take_body()) == 1_000_000


@pytest.mark.parametrize("status", [204, 304])
def test_no_content_and_not_modified_have_no_body_and_keep_the_connection(status) -> None:
    parser = parse(b"HTTP/1.1 %d X\r\nETag: e\r\n\r\n" % status)

    assert parser.complete
    assert parser.keep_alive


@pytest.mark.parametrize("length", [b"", b"Content-Length: 5000\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("cuts", [(), range(200)])
def test_the_answer_to_head_ends_with_its_head_and_keeps_the_connection(length, cuts) -> None:
    parser = parse(b"HTTP/1.1 200 OK\r\n" + length + b"X-A: b\r\n\r\n", cuts=cuts, to_head=True)

    assert parser.complete
    assert parser.keep_alive
    assert parser.headers[-1] == (b"X-A", b"b")


def test_an_answer_follows_the_answer_to_head_on_the_same_parser() -> None:
    parser = parse(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n", to_head=True)

    parser.expect(to_head=False)
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    assert seen(parser) == (200, b"OK", [(b"Content-Length", b"2")], b"ok", True, True)


@pytest.mark.parametrize("to_head", [False, True])
@pytest.mark.parametrize("surplus", [b"H", b"HTTP/1.1 200 OK\r\nX-Sur: plus\r\n\r\n", b"junk"])
def test_surplus_bytes_leave_the_answer_as_it_is_and_condemn_the_connection(to_head, surplus) -> None:
    body = b"" if to_head else b"ok"

    parser = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body + surplus, to_head=to_head)

    assert seen(parser) == (200, b"OK", [(b"Content-Length", b"2")], body, True, False)


@pytest.mark.parametrize("to_head", [False, True])
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["close", "http 1.0", "503"],
)
def test_a_connection_that_must_not_be_used_again_is_not_kept(head, to_head) -> None:
    parser = parse(head, to_head=to_head)

    assert parser.complete
    assert not parser.keep_alive


def test_data_after_an_announced_close_changes_nothing() -> None:
    parser = parse(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nokmore")

    assert parser.complete
    assert parser.take_body() == b"ok"


def test_a_truncated_answer_says_how_much_was_expected_and_found() -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="expected 10 bytes, found 2"):
        parse(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", ends=True)
