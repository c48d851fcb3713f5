"""Carry messages between two processes over a stream: several in a frame, in order, each frame with its length."""

from __future__ import annotations

import pickle
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

import trio

Sent = TypeVar("Sent")
Received = TypeVar("Received")

COMPANY_SECONDS = 0.005
"""How long a message that nobody waits for waits for others: a frame costs both sides a system call."""
FRAME_BYTES_MAX = 64 * 2**20
"""A batch of 64 keys of 1 KiB takes 0.1 MB; whatever claims to be larger is no frame."""
_LENGTH_BYTES = 4
_READ_BYTES = 256 * 1024


class BrokenWireError(Exception):
    """The other process ended in the middle of a frame, or sent something that is none."""


class Wire(Generic[Sent, Received]):
    """One end. Messages are posted at once and sent in order by `send_posted`, which one task runs.

    What is unpickled comes from this program's own other half, over a pair of sockets that nobody else has.
    """

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self._posted: list[Sent] = []
        self._any = trio.Event()
        self._urgent = trio.Event()
        self._finishing = False
        self._buffer = bytearray()

    def post(self, message: Sent, *, urgent: bool = True) -> None:
        """Queue `message`; what is not urgent waits up to COMPANY_SECONDS for company.

        The queue is bounded by its users: nothing is posted but on behalf of keys in hand, or at intervals.
        """
        self._posted.append(message)
        self._any.set()
        if urgent:
            self._urgent.set()

    def finish(self) -> None:
        """Let `send_posted` end once all that is posted by now is sent."""
        self._finishing = True
        self._any.set()
        self._urgent.set()

    async def send_posted(self) -> None:
        """Send what is posted until `finish`; cancelled in the middle of a frame, the stream is of no more use.

        Raises:
            trio.BrokenResourceError: the other end is gone.
        """
        while True:
            await self._any.wait()
            with trio.move_on_after(COMPANY_SECONDS):
                await self._urgent.wait()
            messages, self._posted = self._posted, []
            if not self._finishing:
                self._any, self._urgent = trio.Event(), trio.Event()
            if messages:
                frame = pickle.dumps(messages, protocol=pickle.HIGHEST_PROTOCOL)
                await self._stream.send_all(len(frame).to_bytes(_LENGTH_BYTES, "big") + frame)
            elif self._finishing:
                return

    async def send_eof(self) -> None:
        """Tell the other end that nothing more follows; harmless where it is gone."""
        try:
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def frames(self) -> AsyncGenerator[list[Received], None]:
        """Yield the messages of each frame until the other end ends; may be taken up again after a cancellation.

        Raises:
            BrokenWireError: it ended in the middle.
        """
        while True:
            frame = self._take_frame()
            if frame is not None:
                messages: list[Received] = pickle.loads(frame)  # noqa: S301 -- from our own other half
                yield messages
                continue
            try:
                chunk = await self._stream.receive_some(_READ_BYTES)
            except trio.BrokenResourceError as reset:
                raise BrokenWireError(str(reset.__cause__ or reset)) from reset
            if not chunk:
                break
            self._buffer += chunk
        if self._buffer:
            raise BrokenWireError(f"{len(self._buffer)} bytes of an unfinished frame")

    def _take_frame(self) -> bytes | None:
        """Return the next whole frame that has arrived, without its length."""
        if len(self._buffer) < _LENGTH_BYTES:
            return None
        length = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
        if length > FRAME_BYTES_MAX:
            raise BrokenWireError(f"a frame of {length} bytes, expected at most {FRAME_BYTES_MAX}")
        end = _LENGTH_BYTES + length
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[_LENGTH_BYTES:end])
        del self._buffer[:end]
        return frame
