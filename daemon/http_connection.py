"""One HTTP/1.1 connection: send a request, read its answer; bounded memory, every wait has a deadline."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import trio

from daemon.http_answer import AnswerParser

if TYPE_CHECKING:
    from daemon.http_request import WireRequest

SEND_AT_ONCE_BYTES = 96 * 1024
"""Requests up to this size, so with bodies of 64 KiB, are sent in one call without a reader beside it: the buffers of both
sockets hold them. With one, 64 KiB went at 1,700 objects a second in place of 2,200."""
MOVED_SECONDS = 0.1
"""Sending took less than this: then its deadline serves the reading too, if both have as long. Every request would pay
for another, in a heap of trio's."""
PIECE_BYTES = 256 * 1024
"""Larger bodies are sent in pieces of this size; the write timeout is for one piece, not for the body."""
RECEIVE_BYTES = 64 * 1024
"""What one read asks for; bounds the memory of an answer that is streamed."""
EARLY_BODY_BYTES_MAX = 1024 * 1024
"""Body of an answer that came before the upload ended; S3's error documents are under 10 KiB."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds; `math.inf` for none.

    Attributes:
        connect: for connecting and shaking hands.
        read: without one byte read.
        write: without one piece (`PIECE_BYTES`) written.
        slot: for one of the `connections_max`.
    """

    connect: float
    read: float
    write: float
    slot: float = math.inf


class Connection:
    """A stream and the parser of its answers; whoever got an exception out of it must close it.

    Attributes:
        stream: plain or TLS.
        parser: state of the current answer.
        idle_since: `trio.current_time()` when the last answer ended.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.parser = AnswerParser()
        self.idle_since = -math.inf
        self._socket = _socket_under(stream)

    def went_stale(self) -> bool:
        """Say whether an idle connection was closed by the server or carries bytes that nobody asked for."""
        return self._socket is not None and self._socket.is_readable()

    async def exchange(self, request: WireRequest, timeouts: Timeouts) -> None:
        """Send `request` and read until the head of its answer is complete.

        An error answer that arrives while the body is still being sent ends the sending: it is the answer,
        read whole, and the connection is not kept. An early success is believed only once all is sent.

        Raises:
            httpx.WriteTimeout, httpx.WriteError: the request could not be sent, and no error answer came.
            httpx.ReadTimeout, httpx.ReadError: it was sent, and the connection fell silent or broke.
            httpx.RemoteProtocolError: the answer is garbage or truncated.
        """
        self.parser.expect(to_head=request.to_head)
        if len(request.head) + len(request.body) <= SEND_AT_ONCE_BYTES:
            await self._send_then_read(request, timeouts)
        else:
            await self._send_while_reading(request, timeouts)

    async def receive(self, seconds: float) -> None:
        """Feed the parser with what arrives next, or with the end of the connection, waiting `seconds`.

        Raises:
            httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError: as `exchange`.
        """
        with trio.CancelScope(deadline=trio.current_time() + seconds) as scope:
            await self._receive()
        if scope.cancelled_caught:
            raise _silent(seconds)

    async def _receive(self) -> None:
        try:
            data = await self.stream.receive_some(RECEIVE_BYTES)
        except trio.BrokenResourceError as error:
            raise httpx.ReadError(
                f"the connection broke before the answer ended: {error.__cause__ or error}"
            ) from error
        if data:
            self.parser.feed(bytes(data))
        elif self.parser.begun:
            self.parser.end()
        else:
            raise httpx.ReadError("the server closed the connection without an answer")

    async def _send_then_read(self, request: WireRequest, timeouts: Timeouts) -> None:
        """Send in one call and read, under one scope whose deadline moves: cheaper than a scope for each."""
        parser = self.parser
        sending = True
        broken: trio.BrokenResourceError | None = None
        begun = trio.current_time()
        with trio.CancelScope(deadline=begun + timeouts.write) as scope:
            try:
                await self.stream.send_all(request.head + request.body)
            except trio.BrokenResourceError as error:
                broken = error  # an answer may have come before the reset, so read on
            sending = False
            while not parser.head_complete:
                now = trio.current_time()
                if timeouts.read != timeouts.write or now - begun > MOVED_SECONDS:
                    scope.deadline = now + timeouts.read
                try:
                    await self._receive()
                except httpx.ReadError:
                    if broken is not None:
                        raise _unsent(broken) from broken
                    raise
        if scope.cancelled_caught:
            raise _unwritten(timeouts.write) if sending else _silent(timeouts.read)
        if broken is not None:
            if not self._refused():
                raise _unsent(broken) from broken
            await self._read_refusal(timeouts)

    async def _send_while_reading(self, request: WireRequest, timeouts: Timeouts) -> None:
        upload = _Upload()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_pieces, request, timeouts, upload)
            failure = await self._read_beside(upload, timeouts)
            refused_early = self._refused() and (upload.failure is not None or not upload.ended)
            if refused_early:
                # Before the upload is cancelled: a TLS stream whose writer was cancelled can't be read.
                await self._read_refusal(timeouts)
            if refused_early or failure is not None:
                nursery.cancel_scope.cancel()
        error = None if refused_early else upload.failure or failure
        if error is not None:
            raise error

    async def _read_beside(self, upload: _Upload, timeouts: Timeouts) -> httpx.TransportError | None:
        """Read until the answer's head is complete; return what goes wrong, so that the upload can end first."""
        with upload.reading:
            try:
                while not self.parser.head_complete:
                    await self._receive()
                    if upload.ended:
                        upload.reading.deadline = trio.current_time() + timeouts.read
            except httpx.ReadError as error:
                if upload.ended:
                    return error
                failure = httpx.WriteError("the server closed the connection before it had the whole request")
                failure.__cause__ = error
                return failure
            except httpx.TransportError as error:
                return error
        return _silent(timeouts.read) if upload.reading.cancelled_caught else None

    async def _send_pieces(self, request: WireRequest, timeouts: Timeouts, upload: _Upload) -> None:
        """Send head and body; note what goes wrong in `upload`, so that an answer can still be read."""
        body = memoryview(request.body)
        pieces: list[memoryview] = [body[at : at + PIECE_BYTES] for at in range(0, len(body), PIECE_BYTES)]
        with trio.CancelScope() as sending:
            try:
                for piece in [memoryview(request.head), *pieces]:
                    sending.deadline = trio.current_time() + timeouts.write
                    await self.stream.send_all(piece)
            except trio.BrokenResourceError as error:
                upload.failure = _unsent(error)
                upload.failure.__cause__ = error
        upload.ended = True
        upload.reading.deadline = trio.current_time() + timeouts.read
        if sending.cancelled_caught:
            upload.failure = _unwritten(timeouts.write)
            upload.reading.cancel()

    def _refused(self) -> bool:
        """Say whether the answer is an error or a redirect: a success to half a body would be a lie."""
        return self.parser.head_complete and self.parser.status >= 300

    async def _read_refusal(self, timeouts: Timeouts) -> None:
        """Read an answer that came before its request was sent whole, as far as it can be had.

        Its status is what counts: where the server's reset destroys the end of the body, the rest will do.
        """
        with contextlib.suppress(httpx.TransportError):
            while not self.parser.complete and self.parser.body_bytes < EARLY_BODY_BYTES_MAX:
                await self.receive(timeouts.read)
        self.parser.cut()


@dataclass
class _Upload:
    """What the sending of a large body and the reading beside it share.

    Attributes:
        reading: scope of the reader; without a deadline while pieces go out.
        ended: nothing more will be sent.
        failure: why the sending failed.
    """

    reading: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: bool = False
    failure: httpx.TransportError | None = None


def _silent(seconds: float) -> httpx.ReadTimeout:
    return httpx.ReadTimeout(f"no byte of the answer for {seconds:g} s")


def _unwritten(seconds: float) -> httpx.WriteTimeout:
    return httpx.WriteTimeout(f"the server took nothing of the request for {seconds:g} s")


def _unsent(error: trio.BrokenResourceError) -> httpx.WriteError:
    return httpx.WriteError(f"the connection broke while the request was sent: {error.__cause__ or error}")


def _socket_under(stream: trio.abc.Stream) -> trio.socket.SocketType | None:
    if isinstance(stream, trio.SSLStream):
        return _socket_under(stream.transport_stream)
    return stream.socket if isinstance(stream, trio.SocketStream) else None
