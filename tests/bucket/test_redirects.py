"""Credentials go to the configured endpoint alone: no redirect, region, proxy or metadata answer leads elsewhere."""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import trio
import trustme

from daemon.credentials import CredentialSource
from daemon.dialing import tls_context
from daemon.errors import BackfillError
from daemon.retrying import Failure, FailureClass
from daemon.transport import S3Transport
from tests.fuzzing.test_http_answers import OPERATIONS
from tests.s3_servers import BUCKET, Capabilities, S3Server

pytestmark = pytest.mark.trio
ASKED = {**OPERATIONS, "probe": lambda bucket: bucket.probe(BUCKET, "p/")}
LOCATIONS = {
    "another host": "http://127.0.0.2:{port}/b/k",
    "another port": "http://127.0.0.1:{port}/b/k",
    "with a user": "http://user:pw@127.0.0.1:{port}/b/k",
    "protocol-relative": "//127.0.0.1:{port}/b/k",
    "virtual host": "http://b.localhost:{port}/k",
}


class Host(NamedTuple):
    """A listener that answers everything alike.

    Attributes:
        connections: what each connection sent first.
    """

    port: int
    connections: list[bytes]


@pytest.fixture
async def host(nursery):
    """Start a listener that gives every request the same answer."""

    async def start(answer: bytes, *, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Host:
        connections: list[bytes] = []

        async def serve(stream: trio.SocketStream) -> None:
            number = len(connections)
            connections.append(b"")
            top = stream if tls is None else trio.SSLStream(stream, tls, server_side=True)
            with contextlib.suppress(trio.BrokenResourceError):
                while data := await top.receive_some(65536):
                    connections[number] += data
                    await top.send_all(answer)

        listeners = await nursery.start(functools.partial(trio.serve_tcp, serve, 0, host=address))
        return Host(listeners[0].socket.getsockname()[1], connections)

    return start


def redirect(status: int, location: str, further: str = "") -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\n{further}Content-Length: 0\r\n\r\n".encode()


async def failure_of(name: str, endpoint: str, tls: ssl.SSLContext | None = None) -> Failure | None:
    transport = S3Transport(connections_max=2, ssl_context=tls)
    try:
        await ASKED[name](
            S3Server("redirecting", endpoint, Capabilities()).bucket_over(transport, token="session-token")
        )
    except Failure as failure:
        return failure
    finally:
        await transport.aclose()
    return None


def assert_told(operation: str, failure: Failure | None, kind: FailureClass) -> None:
    """`ask` gives its caller whatever was answered, for the survey of an endpoint; all others fail."""
    assert (None if failure is None else failure.kind) is (None if operation == "ask" else kind)


@pytest.mark.parametrize("operation", sorted(ASKED))
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_operation_follows_a_redirect(host, operation: str, status: int) -> None:
    other = await host(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", address="0.0.0.0")
    for location in LOCATIONS.values():
        first = await host(redirect(status, location.format(port=other.port)))
        failure = await failure_of(operation, f"http://127.0.0.1:{first.port}")
        assert_told(operation, failure, FailureClass.REDIRECTED)
        assert any(b"Authorization: " in sent or b"authorization: " in sent for sent in first.connections)
        assert "pw" not in str(failure)
    assert other.connections == []


@pytest.mark.parametrize("operation", sorted(ASKED))
async def test_a_redirect_from_https_to_http_is_not_followed(host, operation: str, tmp_path) -> None:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA).configure_cert(served)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other = await host(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    first = await host(redirect(307, f"http://127.0.0.1:{other.port}/b/k"), tls=served)
    failure = await failure_of(
        operation, f"https://127.0.0.1:{first.port}", tls_context(str(tmp_path / "ca.pem"))
    )
    assert_told(operation, failure, FailureClass.REDIRECTED)
    assert other.connections == []


@pytest.mark.parametrize("operation", sorted(ASKED))
async def test_another_region_is_named_and_not_gone_to(host, operation: str) -> None:
    other = await host(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    first = await host(redirect(301, f"http://127.0.0.1:{other.port}/", "x-amz-bucket-region: eu-west-9\r\n"))
    failure = await failure_of(operation, f"http://127.0.0.1:{first.port}")
    assert_told(operation, failure, FailureClass.WRONG_REGION)
    assert failure is None or "eu-west-9" in failure.message
    assert other.connections == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
async def test_no_proxy_of_the_environment_sees_a_request(host, name: str, monkeypatch) -> None:
    """That one is set where it would apply is refused at the start (daemon/proxies.py); this is the second line."""
    proxy = await host(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    endpoint = await host(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert await failure_of("put", f"http://127.0.0.1:{endpoint.port}") is not None
    assert endpoint.connections
    assert proxy.connections == []


@pytest.fixture
def container_credentials(monkeypatch, tmp_path) -> Iterator[Callable[[int], None]]:
    """Let botocore's chain find nothing but a container's credential service at a port of ours."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        (tmp_path / name).touch()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token-canary")
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    return lambda port: monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/c")


async def test_the_token_of_a_credential_service_follows_no_redirect(host, container_credentials) -> None:
    other = await host(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    service = await host(redirect(302, f"http://127.0.0.1:{other.port}/c"))
    container_credentials(service.port)
    with pytest.raises(BackfillError) as caught:
        await CredentialSource().current()
    assert any(b"container-token-canary" in sent for sent in service.connections)
    assert other.connections == []
    assert "canary" not in str(caught.value)
