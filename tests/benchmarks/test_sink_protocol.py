"""The null sink answers as S3 would, by bytes in and bytes out; what it keeps is a probe's name and no more."""

import hashlib

import pytest

from benchmarks.sink_protocol import PROBE_MARK, Exchange, NotUnderstood, Shelf
from daemon.objects import PROBE_KEY_NAME

BODY = b"some bytes"
MD5 = hashlib.md5(BODY).hexdigest().encode()


def put(target, body=BODY, **headers):
    lines = [f"PUT {target} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def ask(exchange, request):
    return exchange.take(memoryview(request))


def in_pieces(exchange, request, size):
    answers = [
        ask(exchange, request[start : start + size])
        for start in range(0, len(request), size)
    ]  # fmt: skip
    assert [found for found in answers[:-1] if found] == []
    return answers[-1]


def aws_chunked(*chunks):
    framed = [b"%x;chunk-signature=00ff\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    return b"".join(framed) + b"0;chunk-signature=00ff\r\nx-amz-checksum-crc32: AAAAAA==\r\n\r\n"


def status(answered):
    return int(answered.split(b" ")[1])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_etag_is_the_md5_of_the_body_however_it_arrives(size):
    assert b'ETag: "%s"' % MD5 in in_pieces(Exchange(Shelf()), put("/blobs/key"), size)


def test_a_constant_etag_is_answered_for_every_object_but_not_for_a_probe():
    exchange = Exchange(Shelf(b"constant"))
    assert b'ETag: "constant"' in ask(exchange, put("/blobs/key"))
    assert b'ETag: "%s"' % MD5 in ask(exchange, put(f"/blobs/{PROBE_KEY_NAME}"))


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_framing_of_aws_chunks_is_no_part_of_the_object(size):
    body = aws_chunked(BODY[:4], BODY[4:])
    request = put("/blobs/key", body, x_amz_content_sha256="STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER")
    assert b'ETag: "%s"' % MD5 in in_pieces(Exchange(Shelf()), request, size)


def test_a_chunk_without_a_size_is_refused():
    request = put("/blobs/key", b"no size\r\n", x_amz_content_sha256="STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    with pytest.raises(NotUnderstood):
        ask(Exchange(Shelf()), request)


def test_conditional_puts_of_a_probe_are_atomic_over_all_connections():
    shelf = Shelf(b"constant")
    probe = put(f"/blobs/prefix/{PROBE_KEY_NAME}", if_none_match="*")
    head = f"HEAD /blobs/prefix/{PROBE_KEY_NAME} HTTP/1.1\r\n\r\n".encode()
    delete = head.replace(b"HEAD", b"DELETE")
    found = [status(ask(Exchange(shelf), request)) for request in (head, probe, probe, head, delete, probe)]
    assert found == [404, 200, 412, 200, 204, 200]


def test_the_products_probes_are_known_by_the_mark():
    assert PROBE_MARK in PROBE_KEY_NAME


def test_an_object_is_never_there():
    shelf = Shelf(b"constant")
    exchange = Exchange(shelf)
    assert [status(ask(exchange, put("/blobs/key", if_none_match="*"))) for _ in range(2)] == [200, 200]
    assert status(ask(exchange, b"HEAD /blobs/key HTTP/1.1\r\n\r\n")) == 404
    assert status(ask(exchange, b"GET /blobs/key HTTP/1.1\r\n\r\n")) == 404
    assert shelf.puts == 2


def test_buckets_exist_and_are_empty():
    exchange = Exchange(Shelf())
    assert status(ask(exchange, b"HEAD /blobs HTTP/1.1\r\n\r\n")) == 200
    assert b"LocationConstraint" in ask(exchange, b"GET /blobs?location HTTP/1.1\r\n\r\n")
    assert b"<KeyCount>0</KeyCount>" in ask(exchange, b"GET /blobs/?list-type=2 HTTP/1.1\r\n\r\n")


def test_a_client_that_waits_before_its_body_is_told_to_go_on():
    exchange = Exchange(Shelf())
    head, _, body = put("/blobs/key", expect="100-continue").partition(b"\r\n\r\n")
    assert ask(exchange, head + b"\r\n\r\n") is None
    assert exchange.wants_continue
    exchange.wants_continue = False
    assert status(ask(exchange, body)) == 200


def test_an_empty_object_is_an_object():
    assert b'ETag: "d41d8cd98f00b204e9800998ecf8427e"' in ask(Exchange(Shelf()), put("/blobs/key", b""))


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nothing of HTTP\r\n\r\n",
        b"PUT /blobs/key HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /blobs/key?uploads HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        put("/blobs/key") + b"PUT",
        b"a" * 70_000,
    ],
)
def test_what_it_cannot_read_to_the_end_costs_the_connection(request_bytes):
    with pytest.raises(NotUnderstood):
        ask(Exchange(Shelf()), request_bytes)
