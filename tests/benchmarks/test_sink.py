"""The null sink as a process: over a socket, behind TLS, with latency, many connections at once."""

import hashlib
import http.client
import ssl

import pytest
import trustme

from benchmarks.servers import null_sink, value_of

LARGE = value_of(1024 * 1024 + 1)


@pytest.fixture
def certificate(tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    issued.private_key_pem.write_to_path(tmp_path / "sink.key")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(tmp_path / "sink.pem", append=True)
    return tmp_path


def put(connection, body):
    connection.request("PUT", "/blobs/key", body)
    answered = connection.getresponse()
    answered.read()
    return answered.status, answered.headers["ETag"]


def right(body):
    return 200, f'"{hashlib.md5(body).hexdigest()}"'


def client(sink, context=None):
    host = sink.endpoint.partition("//")[2]
    if context is None:
        return http.client.HTTPConnection(host)
    return http.client.HTTPSConnection(host, context=context)


def test_a_connection_is_kept_and_each_body_gets_its_own_etag(tmp_path):
    with null_sink(tmp_path) as sink:
        connection = client(sink)
        assert [put(connection, body) for body in (b"one", LARGE, b"")] == [
            right(b"one"),
            right(LARGE),
            right(b""),
        ]
        connection.close()


def test_it_speaks_tls(certificate):
    with null_sink(certificate, certificate=certificate) as sink:
        connection = client(sink, ssl.create_default_context(cafile=certificate / "authority.pem"))
        assert [put(connection, body) for body in (b"one", LARGE)] == [right(b"one"), right(LARGE)]
        connection.close()


def test_a_delayed_answer_keeps_no_other_connection_waiting(tmp_path):
    with null_sink(tmp_path, etag="constant", latency_ms=20.0) as sink:
        connections = [client(sink) for _ in range(8)]
        for connection in connections:
            connection.request("PUT", "/blobs/key", b"value")
        found = [connection.getresponse() for connection in reversed(connections)]
        assert [(answered.status, answered.headers["ETag"]) for answered in found] == [
            (200, '"constant"')
        ] * 8
        for connection in connections:
            connection.close()


def test_what_it_does_not_understand_costs_one_connection_only(tmp_path):
    with null_sink(tmp_path) as sink:
        rude, polite = client(sink), client(sink)
        rude.putrequest("PUT", "/blobs/key")
        rude.putheader("Transfer-Encoding", "chunked")
        rude.endheaders()
        with pytest.raises((http.client.HTTPException, OSError)):
            rude.getresponse()
        assert put(polite, b"value") == right(b"value")
        rude.close()
        polite.close()
