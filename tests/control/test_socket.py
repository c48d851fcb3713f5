"""The server of the control socket against clients of every kind, over real sockets."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from daemon import control_client, control_socket
from daemon.control_client import Unanswered, ask
from daemon.control_protocol import Action, Done, Elsewhere, Refused, Reply, Request
from daemon.control_socket import serve, user_of
from daemon.errors import BackfillError, UnreachableError
from daemon.local_sockets import bound

PAUSE = b'{"action":"pause"}\n'


class Desk:
    """Answers every request alike, and notes what was asked by whom."""

    def __init__(self, reply: Reply | None = None) -> None:
        self.reply: Reply = reply or Done("done")
        self.asked: list[tuple[Request, str]] = []

    async def answer(self, request: Request, who: str) -> Reply:
        self.asked.append((request, who))
        return self.reply


@asynccontextmanager
async def served(path: Path, desk: Desk) -> AsyncIterator[None]:
    with bound(path) as listening:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, listening, desk.answer)
            yield
            nursery.cancel_scope.cancel()


async def said(stream: trio.SocketStream) -> bytes:
    """What the server sends until it closes, or until one line is there."""
    received = b""
    with trio.fail_after(20):
        while not received.endswith(b"\n"):
            chunk = await stream.receive_some()
            if not chunk:
                break
            received += chunk
    return received


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


async def test_a_request_is_answered_and_who_asks_is_what_the_kernel_says(path: Path) -> None:
    desk = Desk()
    async with served(path, desk):
        reply = await trio.to_thread.run_sync(ask, [path], Request(Action.SET, words=("concurrency=3",)))
    assert reply == Done("done")
    me = f"{pwd.getpwuid(os.getuid()).pw_name} (uid {os.getuid()})"
    assert desk.asked == [(Request(Action.SET, words=("concurrency=3",)), me)]


def test_a_user_without_a_name_is_told_by_number() -> None:
    assert user_of(3_999_999_999) == "uid 3999999999"


async def test_one_connection_carries_any_number_of_requests_also_in_one_piece(path: Path) -> None:
    desk = Desk()
    async with served(path, desk), await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(PAUSE)
        assert b'"ok":true' in await said(stream)
        await stream.send_all(PAUSE + PAUSE[:5])
        assert b'"ok":true' in await said(stream)
        await stream.send_all(PAUSE[5:])
        assert b'"ok":true' in await said(stream)
    assert len(desk.asked) == 3


@pytest.mark.parametrize(
    "garbage", [b"\n", b"hello\n", b"\xff\xfe\0\n", b"[]\n", b'{"action":"rm"}\n', b"[" * 9999 + b"\n"]
)
async def test_garbage_gets_an_error_and_the_next_request_its_answer(path: Path, garbage: bytes) -> None:
    desk = Desk()
    async with served(path, desk), await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(garbage)
        assert b'"ok":false' in await said(stream)
        await stream.send_all(PAUSE)
        assert b'"ok":true' in await said(stream)
    assert len(desk.asked) == 1


async def test_a_client_that_floods_is_told_so_and_shut_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "REQUEST_BYTES_MAX", 1000)
    async with served(path, Desk()), await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(b"x" * 2000)
        assert b"longer than 1000 bytes" in await said(stream)
        with trio.fail_after(20):
            assert await stream.receive_some() == b""


async def test_a_client_that_says_nothing_is_shut_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_socket, "IDLE_SECONDS", 0.1)
    async with served(path, Desk()), await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(PAUSE[:7])
        assert await said(stream) == b""


async def test_a_client_that_reads_nothing_is_shut_out_and_others_are_served(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "IDLE_SECONDS", 2.0)
    monkeypatch.setattr(control_socket, "CONNECTIONS_MAX", 1)
    desk = Desk(Done("x" * 1_000_000))
    async with served(path, desk):
        deaf = socket.socket(socket.AF_UNIX)
        deaf.connect(str(path))
        deaf.sendall(PAUSE)
        reply = await trio.to_thread.run_sync(ask, [path], Request(Action.PAUSE))
        deaf.close()
    assert reply == desk.reply
    assert len(desk.asked) == 2


async def test_a_client_that_goes_before_its_reply_does_no_harm(path: Path) -> None:
    desk = Desk(Done("x" * 1_000_000))
    async with served(path, desk):
        for _ in range(10):
            with socket.socket(socket.AF_UNIX) as hasty:
                hasty.connect(str(path))
                hasty.sendall(PAUSE)
        reply = await trio.to_thread.run_sync(ask, [path], Request(Action.PAUSE))
    assert reply == desk.reply


async def test_more_clients_than_are_served_at_once_wait_for_their_turn(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "CONNECTIONS_MAX", 2)
    replies: list[object] = []

    async def one() -> None:
        replies.append(await trio.to_thread.run_sync(ask, [path], Request(Action.PAUSE)))

    async with served(path, Desk()), trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(one)
    assert replies == [Done("done")] * 12


async def test_a_request_that_ends_the_daemon_still_gets_its_reply(path: Path) -> None:
    """A drain cancels what serves the socket before the reply is written."""
    with bound(path) as listening:
        async with trio.open_nursery() as nursery:

            async def answer(_request: Request, _who: str) -> Reply:
                nursery.cancel_scope.cancel()
                return Done("draining")

            nursery.start_soon(serve, listening, answer)
            client = await trio.open_unix_socket(str(path))
            await client.send_all(b'{"action":"drain"}\n')
            with trio.CancelScope(shield=True):
                assert b"draining" in await said(client)
                await client.aclose()


async def test_a_client_passes_by_the_daemon_of_another_journal(path: Path) -> None:
    other = path.with_name("other.sock")
    async with served(other, Desk(Elsewhere("/other"))), served(path, Desk(Refused(("no",)))):
        assert await trio.to_thread.run_sync(ask, [other, path], Request(Action.PAUSE)) == Refused(("no",))
        assert await trio.to_thread.run_sync(ask, [other], Request(Action.PAUSE)) == Unanswered()


@pytest.mark.parametrize("left", ["nothing", "socket", "file"])
def test_where_nobody_listens_a_client_is_unanswered(path: Path, left: str) -> None:
    if left == "socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    if left == "file":
        path.write_text("")
    assert ask([path, path.parent / "none" / "x.sock"], Request(Action.PAUSE)) == Unanswered()


async def test_a_stranger_that_listens_there_is_told_apart_from_a_daemon(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def with_answer(sends: bytes | None) -> BackfillError:
        await trio.Path(path).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.bind(str(path))
            stranger.listen()
            async with trio.open_nursery() as nursery:

                async def play() -> None:
                    async with (
                        trio.SocketListener(trio.socket.from_stdlib_socket(stranger.dup())) as listening,
                        await listening.accept() as client,
                    ):
                        await client.receive_some()
                        if sends is None:
                            await trio.sleep_forever()
                        await client.send_all(sends)

                nursery.start_soon(play)
                with pytest.raises(BackfillError) as raised:
                    await trio.to_thread.run_sync(ask, [path], Request(Action.PAUSE))
                nursery.cancel_scope.cancel()
        return raised.value

    assert "expected a reply of a daemon" in (await with_answer(b"220 smtp ready\n")).problem
    assert "without an answer" in (await with_answer(b"")).problem
    monkeypatch.setattr(control_client, "ANSWER_SECONDS", 0.2)
    silent = await with_answer(None)
    assert isinstance(silent, UnreachableError)
    assert "no answer within" in silent.problem
