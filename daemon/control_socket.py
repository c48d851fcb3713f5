"""Serve a control socket: who asks is what the kernel says, what is asked is answered, nothing a client does ends it."""

from __future__ import annotations

import errno
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from daemon.control_protocol import (
    REQUEST_BYTES_MAX,
    MalformedRequestError,
    Refused,
    Reply,
    Request,
    decode_request,
    encode_reply,
)
from daemon.log_events import LogEvent, log_event

Answer: TypeAlias = Callable[[Request, str], Awaitable[Reply]]
"""Takes a request and who makes it, as `user_of` has it; raises nothing that concerns the request alone."""

CONNECTIONS_MAX = 16
"""Connections served at once; more wait in the kernel's backlog, then are refused by it."""
IDLE_SECONDS = 10.0
"""How long a client may take to send its next request, or to read its reply."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""How accepting fails while the process or the machine has no room for one more."""
EXHAUSTED_SECONDS = 1.0
"""How long nothing is accepted then."""
_CHUNK_BYTES = 1 << 16
_UCRED = struct.Struct("=iII")
"""struct ucred of Linux: pid, uid, gid (unix(7), SO_PEERCRED)."""


async def serve(listening: socket.socket, answer: Answer) -> None:
    """Answer requests until cancelled; a request that is being answered then still gets its reply.

    `listening` is closed however this ends: nobody is left to wait for an answer that never comes.
    """
    listening.setblocking(False)
    places = trio.Semaphore(CONNECTIONS_MAX)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    async with listener, trio.open_nursery() as nursery:
        while True:
            await places.acquire()
            nursery.start_soon(_converse, await _accepted(listener), answer, places)


async def _accepted(listener: trio.SocketListener) -> trio.SocketStream:
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log_event(
                LogEvent.CONTROL_FULL,
                f"control socket: {error.strerror}; nobody is let in for {EXHAUSTED_SECONDS:g} s",
            )
            await trio.sleep(EXHAUSTED_SECONDS)


async def _converse(stream: trio.SocketStream, answer: Answer, places: trio.Semaphore) -> None:
    """Answer one client, line by line, until it goes, dawdles or floods."""
    try:
        async with stream:
            who = await trio.to_thread.run_sync(user_of, peer_uid(stream))
            received = bytearray()
            while (line := await _next_line(stream, received)) is not None:
                # The reply is owed even where the request is to end everything.
                with trio.CancelScope(shield=True):
                    reply = await _reply(line, who, answer)
                    with trio.fail_after(IDLE_SECONDS):
                        await stream.send_all(encode_reply(reply))
                if len(line) > REQUEST_BYTES_MAX:
                    return
    except (trio.BrokenResourceError, trio.TooSlowError):
        # The client has gone, or reads nothing: the reply was its own loss.
        log_event(LogEvent.CLIENT_LOST, "control socket: a client went without its reply")
    finally:
        places.release()


async def _next_line(stream: trio.SocketStream, received: bytearray) -> bytes | None:
    """Take the next line from the stream, its rest for the one after; None at its end, or after IDLE_SECONDS.

    A line that grows beyond REQUEST_BYTES_MAX is returned as far as it came.
    """
    with trio.move_on_after(IDLE_SECONDS):
        while b"\n" not in received and len(received) <= REQUEST_BYTES_MAX:
            chunk = await stream.receive_some(_CHUNK_BYTES)
            if not chunk:
                break
            received += chunk
    if b"\n" not in received and len(received) <= REQUEST_BYTES_MAX:
        return None
    line, _, rest = bytes(received).partition(b"\n")
    received[:] = rest
    return line


async def _reply(line: bytes, who: str, answer: Answer) -> Reply:
    if len(line) > REQUEST_BYTES_MAX:
        return Refused((f"control request: longer than {REQUEST_BYTES_MAX} bytes",), "ask for less at a time")
    try:
        request = decode_request(line)
    except MalformedRequestError as malformed:
        return Refused(tuple(malformed.problems), malformed.hint, malformed.exit_code)
    return await answer(request, who)


def peer_uid(stream: trio.SocketStream) -> int:
    """Return the uid of the process that connected, as the kernel noted it then."""
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(credentials)
    return int(uid)


def user_of(uid: int) -> str:
    """Return "alice (uid 1000)", or "uid 1000" where no user of that number has a name."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
