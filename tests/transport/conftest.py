"""Scripted HTTP servers: in memory (virtual time) and on loopback (real sockets, TLS)."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from daemon.transport import S3Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.requests: list[bytes] = []
        self.ended = trio.Event()
        self._buffer = bytearray()

    async def head(self) -> bytes | None:
        """Return the next request's head; None at the end of the connection."""
        while b"\r\n\r\n" not in self._buffer:
            data = await self.stream.receive_some(65536)
            if not data:
                self.ended.set()
                return None
            self._buffer += data
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        return head

    async def request(self) -> bytes | None:
        """Return the next request, head and body; None at the end of the connection."""
        head = await self.head()
        if head is None:
            return None
        size = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        while len(self._buffer) < size:
            data = await self.stream.receive_some(65536)
            if not data:
                return None
            self._buffer += data
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def close(self) -> None:
        await self.stream.aclose()


Handler = Callable[[Peer], Awaitable[None]]


def answering(*answers: bytes) -> Handler:
    """Answer each request with the next of `answers`, the last for ever; close where the answer says so."""
    left = list(answers)

    async def handle(peer: Peer) -> None:
        while await peer.request() is not None:
            answer = left.pop(0) if len(left) > 1 else left[0]
            await peer.send(answer)
            if b"connection: close" in answer.lower():
                return

    return handle


async def serve(handler: Handler, peer: Peer) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await handler(peer)
    with contextlib.suppress(trio.BrokenResourceError):
        await peer.stream.aclose()


class MemoryNetwork:
    """Connects a transport to `handler` without sockets; `opened` lists the server's ends in order."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.handler: Handler = answering(OK)
        self.opened: list[Peer] = []
        self.lockstep = False

    async def connect(self, host: str, port: int, tls: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        pair = trio.testing.lockstep_stream_pair if self.lockstep else trio.testing.memory_stream_pair
        ours, theirs = pair()
        peer = Peer(theirs)
        self.opened.append(peer)
        self._nursery.start_soon(serve, self.handler, peer)
        return ours

    def answer(self, *answers: bytes) -> None:
        self.handler = answering(*answers)

    def transport(self, **settings) -> S3Transport:
        return S3Transport(**{"connections_max": 8, "connect": self.connect, **settings})


@pytest.fixture
async def network(nursery):
    return MemoryNetwork(nursery)


@pytest.fixture(name="answering")
def answering_fixture() -> Callable[..., Handler]:
    return answering


@pytest.fixture
async def listen(nursery):
    """Serve `handler` on loopback; returns the port."""

    async def start(handler: Handler, *, host: str = "127.0.0.1", tls=None) -> int:
        async def on_stream(stream: trio.SocketStream) -> None:
            top = stream
            if tls is not None:
                top = trio.SSLStream(stream, tls, server_side=True)
            with contextlib.suppress(trio.BrokenResourceError):
                await serve(handler, Peer(top))
            await trio.aclose_forcefully(stream)

        listeners = await nursery.start(functools.partial(trio.serve_tcp, on_stream, 0, host=host))
        return listeners[0].socket.getsockname()[1]

    return start
