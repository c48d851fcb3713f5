"""A small HTTP/1.1 server for GET and HEAD: h11 on trio, everything bounded, no peer can hold it up.

A connection serves requests in turn until it is idle for too long, breaks the protocol, or sends a body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Never, TypeAlias

import h11
import trio

CONNECTIONS_MAX = 32
"""Open at once; a further one is closed unanswered."""
HEAD_BYTES_MAX = 16 * 1024
"""Of a request's line and header."""
RECEIVE_BYTES = 4096
REQUEST_SECONDS = 10.0
"""For a request to arrive, counted from when the connection was opened or last answered."""
ANSWER_SECONDS = 10.0
"""For an answer to be taken."""
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass(frozen=True, slots=True)
class Call:
    """A request without body.

    Attributes:
        path: as sent, without its query.
        fields: header fields by lower-case name; the last of several.
    """

    path: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, its body in memory."""

    status: HTTPStatus
    content_type: str
    body: bytes
    fields: Mapping[str, str] = field(default_factory=dict)


Answer: TypeAlias = Callable[[Call], Awaitable[Reply]]


def plain(status: HTTPStatus, text: str, fields: Mapping[str, str] | None = None) -> Reply:
    """Return a reply of one line of text."""
    return Reply(status, "text/plain; charset=utf-8", f"{text}\n".encode(), fields or {})


async def serve(listeners: Sequence[trio.SocketListener], answer: Answer) -> Never:
    """Answer whoever connects, until cancelled; the listeners are closed then.

    Args:
        listeners: bound already.
        answer: called for each GET and HEAD, several at once; it must return soon, or the peer gives up.
    """
    connections = trio.CapacityLimiter(CONNECTIONS_MAX)

    async def attend(stream: trio.SocketStream) -> None:
        try:
            connections.acquire_nowait()
        except trio.WouldBlock:
            await trio.aclose_forcefully(stream)
            return
        try:
            await converse(stream, answer)
        finally:
            connections.release()

    await trio.serve_listeners(attend, list(listeners))


async def converse(stream: trio.abc.Stream, answer: Answer) -> None:
    """Answer requests on one connection until it ends; then it is closed."""
    peer = _Peer(stream)
    try:
        while await peer.serve_one(answer):
            pass
    except _BROKEN:
        # Nobody is left to be told.
        return
    finally:
        await trio.aclose_forcefully(stream)


class _Peer:
    """The protocol's state with one peer."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)

    async def serve_one(self, answer: Answer) -> bool:
        """Answer one request; return whether another one may follow."""
        request: h11.Request | None = None
        with trio.move_on_after(REQUEST_SECONDS):
            try:
                request = await self._receive()
            except h11.RemoteProtocolError as error:
                status = HTTPStatus(error.error_status_hint)
                await self._send(None, plain(status, status.phrase), close=True)
                return False
        if request is None:
            return False
        # A body is not wanted: the answer goes out, and the connection ends.
        close = not self._ended()
        await self._send(request, await _answered(request, answer), close=close)
        if close or self._protocol.our_state is not h11.DONE:
            return False
        self._protocol.start_next_cycle()
        return True

    async def _receive(self) -> h11.Request | None:
        """Return the next request's head; None once the peer has closed."""
        while True:
            event = self._protocol.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                return None
            self._protocol.receive_data(bytes(await self._stream.receive_some(RECEIVE_BYTES)))

    def _ended(self) -> bool:
        """Say whether the request is complete with its head."""
        try:
            return isinstance(self._protocol.next_event(), h11.EndOfMessage)
        except h11.RemoteProtocolError:
            return False

    async def _send(self, request: h11.Request | None, reply: Reply, *, close: bool) -> None:
        if self._protocol.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        fields = [
            ("content-type", reply.content_type),
            ("content-length", str(len(reply.body))),
            *reply.fields.items(),
            *([("connection", "close")] if close else []),
        ]
        head = h11.Response(status_code=reply.status, headers=fields, reason=reply.status.phrase.encode())
        sent = self._protocol.send(head) or b""
        if request is None or request.method != b"HEAD":
            sent += self._protocol.send(h11.Data(data=reply.body)) or b""
        sent += self._protocol.send(h11.EndOfMessage()) or b""
        with trio.move_on_after(ANSWER_SECONDS) as taking:
            await self._stream.send_all(sent)
        if taking.cancelled_caught:
            raise trio.BrokenResourceError


async def _answered(request: h11.Request, answer: Answer) -> Reply:
    if request.method not in {b"GET", b"HEAD"}:
        return plain(HTTPStatus.METHOD_NOT_ALLOWED, "GET or HEAD only", {"allow": "GET, HEAD"})
    path = request.target.decode("ascii", "replace").partition("?")[0]
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
    return await answer(Call(path, fields))
