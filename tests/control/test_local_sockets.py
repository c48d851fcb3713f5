"""Where a daemon listens: paths of every length, what a dead daemon left, what somebody else has there."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from daemon.errors import ConfigError
from daemon.local_sockets import beside, bound, candidates, connect, socket_path

JOURNAL = Path("/var/lib/backfill/x/journal.db")


def reached(path: Path) -> bool:
    with bound(path) as listening, connect(path, timeout_seconds=5) as client:
        served, _ = listening.accept()
        with served:
            client.sendall(b"x")
            return served.recv(1) == b"x"


def left_behind(path: Path) -> None:
    """The socket of a daemon that died without a word."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def test_a_client_reaches_whoever_listens(tmp_path: Path) -> None:
    assert reached(tmp_path / "control.sock")


@pytest.mark.parametrize("length", [100, 106, 107, 108, 109, 200, 1000])
def test_a_path_may_be_longer_than_a_sockets_address(tmp_path: Path, length: int) -> None:
    directory = tmp_path
    while len(str(directory)) + 101 < length - len("/control.sock"):
        directory /= "d" * 100
    left = length - len(str(directory)) - len("/control.sock") - 1
    directory = directory / ("d" * left) if left > 0 else directory
    directory.mkdir(parents=True, exist_ok=True)
    assert reached(directory / "control.sock")


def test_a_name_too_long_for_an_address_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long for a socket") as refused, bound(tmp_path / ("n" * 200)):
        pass
    assert "control.socket" in refused.value.hint


def test_the_socket_lets_its_owner_and_group_in_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with bound(tmp_path / "control.sock"):
            assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o660
    finally:
        os.umask(before)


def test_a_dead_daemons_socket_is_replaced(tmp_path: Path) -> None:
    left_behind(tmp_path / "control.sock")
    assert reached(tmp_path / "control.sock")


def test_a_socket_that_answers_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with bound(path) as first:
        with pytest.raises(ConfigError, match="another daemon listens there"), bound(path):
            pass
        with connect(path, timeout_seconds=5):
            first.accept()[0].close()


def test_a_socket_whose_backlog_is_full_is_not_taken_for_dead(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    waiting = []
    with bound(path) as first:
        first.listen(0)
        for _ in range(8):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
        with pytest.raises(ConfigError, match="another daemon listens there"), bound(path):
            pass
    for client in waiting:
        client.close()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket"), bound(path):
        pass
    assert path.read_text() == "precious"


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="no such file or directory"),
        bound(tmp_path / "none" / "control.sock"),
    ):
        pass


def test_the_file_goes_with_the_daemon_but_not_another_that_took_its_place(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with bound(path):
        pass
    assert not path.exists()
    with bound(path):
        path.unlink()
        left_behind(path)
    assert path.exists()


def test_a_file_that_can_not_be_removed_any_more_is_left(tmp_path: Path) -> None:
    place = tmp_path / "failing"
    place.mkdir()
    with bound(place / "control.sock"):
        place.rename(tmp_path / "gone")
        place.touch()
    assert (tmp_path / "gone" / "control.sock").exists()


def test_nobody_there_is_an_error_of_connecting(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect(tmp_path / "control.sock", timeout_seconds=5)
    left_behind(tmp_path / "control.sock")
    with pytest.raises(ConnectionRefusedError):
        connect(tmp_path / "control.sock", timeout_seconds=5)


@pytest.mark.parametrize(
    ("configured", "env", "expected"),
    [
        (Path("/a/b.sock"), {"RUNTIME_DIRECTORY": "/run/backfill/x"}, "/a/b.sock"),
        (None, {"RUNTIME_DIRECTORY": "/run/backfill/x"}, "/run/backfill/x/control.sock"),
        (None, {"RUNTIME_DIRECTORY": "/run/a:/run/b"}, "/run/a/control.sock"),
        (None, {"RUNTIME_DIRECTORY": ""}, f"{JOURNAL}.sock"),
        (None, {}, f"{JOURNAL}.sock"),
    ],
)
def test_a_daemon_listens_as_configured_else_where_systemd_says_else_beside_the_journal(
    configured: Path | None, env: dict[str, str], expected: str
) -> None:
    assert socket_path(configured, JOURNAL, env) == Path(expected)


def test_a_client_looks_where_each_kind_of_daemon_listens_the_likeliest_first() -> None:
    service = Path("/run/backfill/x/control.sock")
    config = Path("/etc/backfill/x.toml")
    assert candidates(None, JOURNAL, config, {}) == [beside(JOURNAL), service]
    assert candidates(Path("/a.sock"), JOURNAL, config, {}) == [Path("/a.sock"), beside(JOURNAL), service]
    assert candidates(None, JOURNAL, None, {}) == [beside(JOURNAL)]
