from __future__ import annotations

import httpx
import pytest

from daemon.http_request import wire_request

SHARED = httpx.URL("http://127.0.0.1:8333/")


def cheap(
    method: str = "PUT",
    *,
    target: bytes = b"/b/k?x=1",
    headers=((b"Host", b"127.0.0.1:8333"), (b"Content-Length", b"4")),
    body: bytes = b"body",
) -> httpx.Request:
    return httpx.Request(
        method, SHARED, headers=list(headers), stream=httpx.ByteStream(body), extensions={"target": target}
    )


def test_a_cheap_request_goes_out_as_it_was_given() -> None:
    wire = wire_request(cheap())

    assert wire.head == b"PUT /b/k?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8333\r\nContent-Length: 4\r\n\r\n"
    assert wire.body == b"body"
    assert not wire.to_head


def test_an_ordinary_request_keeps_its_encoded_path_and_query() -> None:
    wire = wire_request(httpx.Request("PUT", "http://h/b/a%20b%2Bc?prefix=x%2Fy", content=b"abc"))

    assert wire.head.startswith(b"PUT /b/a%20b%2Bc?prefix=x%2Fy HTTP/1.1\r\nHost: h\r\n")
    assert b"Content-Length: 3\r\n" in wire.head


def test_a_head_request_is_known_as_such() -> None:
    assert wire_request(httpx.Request("HEAD", "http://h/")).to_head


@pytest.mark.parametrize("poison", [b"\r\n", b"\n", b"\r", b"\0"])
def test_a_line_break_in_a_header_value_is_refused_without_showing_it(poison) -> None:
    headers = [(b"Host", b"h"), (b"Content-Length", b"4"), (b"X-A", b"canary" + poison + b"X-B: c")]

    with pytest.raises(httpx.LocalProtocolError) as caught:
        wire_request(cheap(headers=headers))

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", [b"X A", b"X:A", b"", b"X\r\nA", b"X\nA", "é".encode()])
def test_a_header_name_that_is_no_token_is_refused(name) -> None:
    with pytest.raises(httpx.LocalProtocolError, match="token"):
        wire_request(cheap(headers=[(b"Host", b"h"), (b"Content-Length", b"4"), (name, b"x")]))


@pytest.mark.parametrize("target", [b"/a b", b"/a\r\nX: y", b"/a\0", b"/\xc3\xa9", b"/a\x7f"])
def test_a_target_outside_visible_ascii_is_refused(target) -> None:
    with pytest.raises(httpx.LocalProtocolError, match="target"):
        wire_request(cheap(target=target))


@pytest.mark.parametrize("method", ["GET /x HTTP/1.1\r\nX:", "PÜT", ""])
def test_a_method_that_is_no_token_is_refused(method) -> None:
    with pytest.raises(httpx.LocalProtocolError, match="method"):
        wire_request(cheap(method))


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ([(b"Content-Length", b"4")], "Host"),
        ([(b"Host", b"h")], "no Content-Length"),
        ([(b"Host", b"h"), (b"Content-Length", b"3")], "expected 4"),
        ([(b"Host", b"h"), (b"Content-Length", b"4"), (b"Content-Length", b"4")], "expected 4"),
        ([(b"Host", b"h"), (b"Transfer-Encoding", b"chunked")], "transfer coding"),
    ],
)
def test_framing_that_would_shift_the_next_request_is_refused(headers, problem) -> None:
    with pytest.raises(httpx.LocalProtocolError, match=problem):
        wire_request(cheap(headers=headers))


def test_an_empty_put_must_announce_its_length() -> None:
    with pytest.raises(httpx.LocalProtocolError, match="Content-Length"):
        wire_request(cheap(headers=[(b"Host", b"h")], body=b""))


def test_a_body_that_is_not_in_memory_is_refused() -> None:
    async def parts():
        yield b"abc"

    with pytest.raises(httpx.LocalProtocolError, match="in memory"):
        wire_request(httpx.Request("PUT", "http://h/", content=parts()))
