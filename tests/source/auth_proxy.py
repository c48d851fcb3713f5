"""What RDS does at its door, before a real PostgreSQL that trusts it: TLS, and a password asked for in clear."""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import trio

_CLEARTEXT = b"R" + struct.pack(">II", 8, 3)
"""AuthenticationCleartextPassword (PostgreSQL manual, "Message Formats")."""
_REFUSED_FIELDS = b"SFATAL\0C28000\0MPAM authentication failed\0\0"
_REFUSED = b"E" + struct.pack(">I", 4 + len(_REFUSED_FIELDS)) + _REFUSED_FIELDS
"""ErrorResponse, as RDS words it."""


@dataclass
class Door:
    """A port of 127.0.0.1; `passwords` is what was said there, in order of arrival.

    `closed`: nobody is let in, whatever the password.
    """

    port: int
    passwords: list[str] = field(default_factory=list)
    closed: bool = False


@asynccontextmanager
async def door_to(server_port: int, certificate: ssl.SSLContext) -> AsyncIterator[Door]:
    async with trio.open_nursery() as nursery:

        async def serve(stream: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, EOFError):
                await _admit(stream, certificate, server_port, door)

        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        door = Door(listeners[0].socket.getsockname()[1])
        yield door
        nursery.cancel_scope.cancel()


async def _admit(
    stream: trio.SocketStream, certificate: ssl.SSLContext, server_port: int, door: Door
) -> None:
    await _message(stream, tagged=False)
    await stream.send_all(b"S")
    client = trio.SSLStream(stream, certificate, server_side=True, https_compatible=True)
    startup = await _message(client, tagged=False)
    await client.send_all(_CLEARTEXT)
    password = await _message(client, tagged=True)
    door.passwords.append(password[5:].rstrip(b"\0").decode())
    if door.closed:
        await client.send_all(_REFUSED)
        await client.aclose()
        return
    server = await trio.open_tcp_stream("127.0.0.1", server_port)
    async with client, server, trio.open_nursery() as nursery:
        await server.send_all(startup)

        async def pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while chunk := await source.receive_some():
                    await sink.send_all(chunk)
            nursery.cancel_scope.cancel()

        nursery.start_soon(pump, client, server)
        nursery.start_soon(pump, server, client)


async def _message(stream: trio.abc.ReceiveStream, *, tagged: bool) -> bytes:
    """Return one message as it came: a tag, except at the beginning of a session, its length, its content."""
    message = await _exactly(stream, 5 if tagged else 4)
    (length,) = struct.unpack(">I", message[-4:])
    return message + await _exactly(stream, length - 4)


async def _exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    content = b""
    while len(content) < size:
        chunk = await stream.receive_some(size - len(content))
        if not chunk:
            raise EOFError
        content += chunk
    return content
