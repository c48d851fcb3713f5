"""Ask a daemon through its control socket; synchronous, quick to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.control_protocol import (
    REPLY_BYTES_MAX,
    Done,
    Elsewhere,
    Refused,
    Request,
    decode_reply,
    encode_request,
)
from daemon.errors import BackfillError, UnreachableError
from daemon.local_sockets import NOBODY_THERE, connect

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from pathlib import Path

ANSWER_SECONDS = 30.0
"""How long a reply may take: a commit on a slow disk, a status of a large journal."""
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No daemon of the journal was reached; `denied` are the sockets that this user may not connect to."""

    denied: tuple[Path, ...] = ()


def ask(sockets: Sequence[Path], request: Request) -> Done | Refused | Unanswered:
    """Return the reply of the first daemon among `sockets` that works on the request's journal.

    Raises:
        BackfillError: something listens there and does not answer as a daemon does.
    """
    denied: list[Path] = []
    for path in sockets:
        try:
            connection = connect(path, timeout_seconds=ANSWER_SECONDS)
        except PermissionError:
            denied.append(path)
        except OSError as error:
            if error.errno not in NOBODY_THERE:
                raise BackfillError(f"connect to {path}: {(error.strerror or str(error)).lower()}") from error
        else:
            with connection:
                reply = _exchange(connection, path, request)
            if not isinstance(reply, Elsewhere):
                return reply
    return Unanswered(tuple(denied))


def _exchange(connection: socket.socket, path: Path, request: Request) -> Done | Refused | Elsewhere:
    received = bytearray()
    try:
        connection.sendall(encode_request(request))
        while not received.endswith(b"\n") and len(received) <= REPLY_BYTES_MAX:
            chunk = connection.recv(_CHUNK_BYTES)
            if not chunk:
                break
            received += chunk
    except TimeoutError as error:
        raise UnreachableError(
            f"ask the daemon at {path}: no answer within {ANSWER_SECONDS:g} s; it may have been done or not",
            "look with `backfillctl status`; a daemon whose disk or whose process hangs answers nothing",
        ) from error
    except OSError as error:
        raise _gone(path, (error.strerror or str(error)).lower()) from error
    if not received:
        raise _gone(path, "it closed the connection without an answer")
    return decode_reply(bytes(received))


def _gone(path: Path, reason: str) -> UnreachableError:
    return UnreachableError(
        f"ask the daemon at {path}: {reason}", "it may just have ended; look with `backfillctl status`"
    )
