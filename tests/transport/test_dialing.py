"""Real sockets: TLS, IPv6, dual stack, and the words for what goes wrong."""

from __future__ import annotations

import socket
import ssl

import httpx
import pytest
import trio
import trustme

from daemon.dialing import open_stream, tls_context
from daemon.errors import ConfigError
from daemon.transport import S3Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
def server_tls(authority) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1", "::1", key_type=trustme.KeyType.ECDSA).configure_cert(
        context
    )
    return context


@pytest.fixture
def client_tls(authority, tmp_path) -> ssl.SSLContext:
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    return tls_context(str(bundle))


def put(url: str, size: int = 4) -> httpx.Request:
    return httpx.Request("PUT", url, content=b"x" * size)


async def done(transport: S3Transport, request: httpx.Request) -> httpx.Response:
    response = await transport.handle_async_request(request)
    await response.aread()
    return response


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_tls_requests_share_one_verified_connection(
    listen, answering, server_tls, client_tls, host
) -> None:
    port = await listen(answering(OK), tls=server_tls)
    transport = S3Transport(connections_max=8, ssl_context=client_tls)

    for size in (4, 4, 2_000_000, 4):
        assert (await done(transport, put(f"https://{host}:{port}/b/k", size))).content == b"ok"

    assert transport.statistics().opened == 1
    await transport.aclose()


async def test_tls_connections_are_still_fresh_after_their_session_tickets(
    listen, answering, server_tls, client_tls
) -> None:
    client_tls.minimum_version = ssl.TLSVersion.TLSv1_3
    port = await listen(answering(OK), tls=server_tls)
    transport = S3Transport(connections_max=1, ssl_context=client_tls)

    for _ in range(20):
        await done(transport, put(f"https://127.0.0.1:{port}/"))

    assert transport.statistics().opened == 1
    await transport.aclose()


async def test_a_certificate_of_another_authority_is_refused_by_name(listen, answering, server_tls) -> None:
    port = await listen(answering(OK), tls=server_tls)
    transport = S3Transport(connections_max=1, ssl_context=tls_context(None))

    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        await done(transport, put(f"https://127.0.0.1:{port}/"))

    assert transport.statistics().in_use == 0


async def test_a_certificate_for_another_host_is_refused(listen, answering, authority, client_tls) -> None:
    elsewhere = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.test", key_type=trustme.KeyType.ECDSA).configure_cert(elsewhere)
    port = await listen(answering(OK), tls=elsewhere)
    transport = S3Transport(connections_max=1, ssl_context=client_tls)

    with pytest.raises(httpx.ConnectError, match=r"(?i)mismatch"):
        await done(transport, put(f"https://127.0.0.1:{port}/"))


async def test_a_server_without_tls_is_a_connect_error(listen, client_tls) -> None:
    async def plain(peer) -> None:
        await peer.stream.receive_some()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    port = await listen(plain)
    transport = S3Transport(connections_max=1, ssl_context=client_tls)

    with pytest.raises(httpx.ConnectError):
        await done(transport, put(f"https://127.0.0.1:{port}/"))


async def test_an_early_refusal_over_tls_is_the_answer(listen, server_tls, client_tls) -> None:
    async def refuse(peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 200000\r\n\r\n" + b"s" * 200_000)
        await trio.sleep_forever()

    port = await listen(refuse, tls=server_tls)
    transport = S3Transport(connections_max=1, ssl_context=client_tls)

    with trio.fail_after(10):
        response = await done(transport, put(f"https://127.0.0.1:{port}/", 20_000_000))

    assert response.status_code == 503
    assert len(response.content) == 200_000


async def test_a_tls_answer_cut_without_goodbye_is_an_error_even_without_a_length(
    listen, server_tls, client_tls
) -> None:
    async def cut(peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf a list")
        await trio.aclose_forcefully(peer.stream)

    port = await listen(cut, tls=server_tls)
    transport = S3Transport(connections_max=1, ssl_context=client_tls)

    with pytest.raises(httpx.ReadError):
        await done(transport, put(f"https://127.0.0.1:{port}/"))


async def test_an_https_url_without_a_context_is_refused() -> None:
    with pytest.raises(httpx.UnsupportedProtocol, match="ssl_context"):
        await done(S3Transport(connections_max=1), put("https://127.0.0.1:1/"))


async def test_a_url_of_another_scheme_is_refused() -> None:
    with pytest.raises(httpx.UnsupportedProtocol, match="found ftp"):
        await done(S3Transport(connections_max=1), put("ftp://127.0.0.1:1/"))


def ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not ipv6_loopback(), reason="NO IPv6 ON THIS MACHINE: [::1] can't be bound")


@needs_ipv6
@pytest.mark.parametrize("encrypted", [False, True])
async def test_an_ipv6_literal_is_connected_to(listen, answering, server_tls, client_tls, encrypted) -> None:
    port = await listen(answering(OK), host="::1", tls=server_tls if encrypted else None)
    transport = S3Transport(connections_max=1, ssl_context=client_tls)

    response = await done(transport, put(f"{'https' if encrypted else 'http'}://[::1]:{port}/"))

    assert response.content == b"ok"
    await transport.aclose()


async def test_a_name_with_two_addresses_is_reached_by_the_one_that_answers(listen, answering) -> None:
    port = await listen(answering(OK), host="127.0.0.1")
    transport = S3Transport(connections_max=1)

    assert (await done(transport, put(f"http://localhost:{port}/"))).content == b"ok"
    await transport.aclose()


async def test_small_writes_are_not_delayed(listen, answering) -> None:
    port = await listen(answering(OK))

    stream = await open_stream("127.0.0.1", port, None)

    assert isinstance(stream, trio.SocketStream)
    assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await stream.aclose()


async def test_a_refused_connection_says_where(listen) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        port = reserved.getsockname()[1]

        with pytest.raises(httpx.ConnectError, match=rf"connect to 127.0.0.1 port {port}: .*refused"):
            await done(S3Transport(connections_max=1), put(f"http://127.0.0.1:{port}/"))


@pytest.mark.parametrize("content", [None, "", "no certificate"], ids=["missing", "empty", "garbage"])
def test_an_unusable_ca_bundle_is_a_config_error_that_names_it(tmp_path, content) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)

    with pytest.raises(ConfigError, match=r"bundle\.pem") as caught:
        tls_context(str(bundle))

    assert "AWS_CA_BUNDLE" in caught.value.hint


def test_contexts_verify_and_speak_tls_1_2_or_newer(client_tls) -> None:
    for context in (tls_context(None), client_tls):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_bundle_is_trusted_instead_of_the_system(client_tls) -> None:
    assert client_tls.cert_store_stats()["x509_ca"] == 1
