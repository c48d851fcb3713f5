"""Open byte streams to S3 endpoints: TCP with dual-stack racing, TLS on top."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol

import httpx
import trio

from daemon.errors import ConfigError


class Connect(Protocol):
    """Opens a stream to `host`:`port`, with TLS where a context is given; raises OSError or BrokenResourceError."""

    async def __call__(self, host: str, port: int, tls: ssl.SSLContext | None) -> trio.abc.Stream:
        """Return the open stream, its handshake done."""


async def open_stream(host: str, port: int, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    """Connect to whichever address of `host` answers first (RFC 8305), Nagle off, and shake hands.

    TLS is strict about its end: a connection cut without close_notify is broken, not ended, so that a
    truncated answer without a length can't pass for a whole one.

    Args:
        host: a name, an IPv4 address, or an IPv6 address without brackets.
        port: TCP port.
        tls: verifies `host`; None for plain HTTP.

    Raises:
        OSError: no address could be connected to.
        trio.BrokenResourceError: the handshake failed; its cause says why.
    """
    stream = await trio.open_tcp_stream(host, port)
    if tls is None:
        return stream
    encrypted: trio.SSLStream[trio.SocketStream] = trio.SSLStream(stream, tls, server_hostname=host)
    try:
        await encrypted.do_handshake()
    except BaseException:
        await close_now(stream)
        raise
    return encrypted


async def close_now(stream: trio.abc.AsyncResource) -> None:
    """Close `stream` without goodbyes, whole even where the caller is being cancelled."""
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


def connect_problem(error: OSError | trio.BrokenResourceError) -> str:
    """Return one line saying why a connection could not be opened, from the innermost causes."""
    cause = error if error.__cause__ is None else error.__cause__
    causes = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
    return "; ".join(dict.fromkeys(str(one) or type(one).__name__ for one in causes))


def tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """Return a verifying client context that offers HTTP/1.1.

    Args:
        ca_bundle: PEM file or directory of certificates, trusted instead of all others (AWS_CA_BUNDLE, as in
            the AWS CLI); None: the system's store, or the one that httpx ships where Python finds none.

    Raises:
        ConfigError: the bundle is missing, unreadable or holds no certificate.
    """
    if ca_bundle is None:
        paths = ssl.get_default_verify_paths()
        found = bool(paths.cafile or paths.capath)
        context = ssl.create_default_context() if found else httpx.create_ssl_context()
    else:
        path = Path(ca_bundle)
        try:
            if path.is_dir():
                context = ssl.create_default_context(capath=ca_bundle)
            else:
                context = ssl.create_default_context(cafile=ca_bundle)
        except OSError as error:
            raise ConfigError(
                [f"read CA bundle {ca_bundle}: expected PEM certificates, found {error.strerror or error}"],
                "set AWS_CA_BUNDLE to a readable PEM file, or unset it to trust the system's certificates",
            ) from error
    context.set_alpn_protocols(["http/1.1"])
    return context
