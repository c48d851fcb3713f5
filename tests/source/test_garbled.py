"""Answers that are none of PostgreSQL's, as a network that flips bits makes them: failures, and no crash."""

from __future__ import annotations

import struct
from functools import partial

import pytest
import trio

from daemon import catalogue
from daemon.errors import UnreachableError
from daemon.retrying import Failure, FailureClass
from daemon.server_errors import raise_unless_told, translated
from tests.source.sources import TABLE, Opening, spec

AUTHENTICATED = b"R" + struct.pack(">II", 8, 0)
READY = b"Z" + struct.pack(">I", 5) + b"I"
"""Messages of a server (PostgreSQL manual, "Message Formats")."""
PARAMETER = b"S" + struct.pack(">I", 4 + 22) + b"server_versiom\x0018.0\x00\x00\x00"
ANSWERS = {
    "no message": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "ready twice": AUTHENTICATED + READY + READY,
    "another name for the version": AUTHENTICATED + PARAMETER + READY,
    "a length of nothing": b"R" + struct.pack(">I", 0),
    "a length of gigabytes": b"R" + struct.pack(">I", 2**31 - 1),
    "the end": b"",
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_server_that_talks_nonsense_is_out_of_reach(answer):
    async def talk(stream):
        await stream.receive_some()
        await stream.send_all(ANSWERS[answer])

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, talk, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(UnreachableError), trio.fail_after(10):
            async with Opening(f"postgresql://reader@127.0.0.1:{port}/app?sslmode=disable")():
                pass
        nursery.cancel_scope.cancel()


async def test_catalogue_columns_under_other_names_are_a_garbled_answer(database, monkeypatch):
    database.sql(TABLE)
    async with Opening(database.dsn)() as source:
        monkeypatch.setattr(catalogue, "HEAPS", catalogue.HEAPS.replace("AS relkind", "AS relkine"))
        with pytest.raises(UnreachableError, match="the answer is garbled"):
            await source.describe(spec())


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("insufficient data in buffer: canary"),
        AttributeError("canary"),
        BufferError("canary"),
        IndexError("canary"),
        KeyError("canary"),
        OverflowError("canary"),
        TypeError("canary"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_the_driver_stumbles_over_is_a_garbled_answer_and_not_quoted(error):
    failure = translated(error, "FETCH", "db/app")
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.answered) == (FailureClass.GARBLED, True)
    assert "canary" not in failure.message


class Loop:
    def __init__(self):
        self.raised = []

    def default_exception_handler(self, context):
        self.raised.append(context)


@pytest.mark.parametrize("of", ["transport", "future"])
def test_the_loss_of_a_connection_that_nobody_waits_for_ends_nothing(of):
    loop = Loop()
    raise_unless_told(loop, {of: object(), "exception": ConnectionError("unexpected connection_lost() call")})
    assert loop.raised == []


def test_any_other_error_of_a_callback_is_raised():
    loop = Loop()
    raise_unless_told(loop, {"handle": object(), "exception": KeyError()})
    assert len(loop.raised) == 1
