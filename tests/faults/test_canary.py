"""The search that ends every fault test finds a secret wherever it is planted, and in its own test's leavings."""

from __future__ import annotations

import base64
import sqlite3
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.faults import conftest
from tests.faults.canary import leaks
from tests.faults.worlds import World

SECRET = "planted+canary/4d1f"
PIECE = 1 << 20


@pytest.mark.parametrize(
    "content",
    [
        SECRET.encode(),
        b"\0" * (PIECE - 5) + SECRET.encode() + b"\xff",
        f"postgresql://u:{quote(SECRET, safe='')}@h/d".encode(),
        *(base64.b64encode(b"x" * shift + SECRET.encode() + b"tail") for shift in range(3)),
    ],
    ids=["plain", "across two pieces", "percent-encoded", "base64", "base64 + 1", "base64 + 2"],
)
def test_a_secret_in_a_file_below_is_found_and_not_repeated(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "core.4711").write_bytes(content)
    assert leaks(tmp_path, [SECRET]) == ["deep/core.4711: secret no. 1"]


def test_a_secret_is_found_in_what_sqlite_has_deleted_and_in_its_wal(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma secure_delete = off")
    connection.execute("create table t (x)")
    connection.execute("insert into t values (?)", (SECRET,))
    assert leaks(tmp_path, [SECRET]) == ["journal.db-wal: secret no. 1"]
    connection.execute("delete from t")
    connection.close()
    assert leaks(tmp_path, [SECRET]) == ["journal.db: secret no. 1"]


def test_the_configuration_may_hold_it_and_what_was_printed_may_not(tmp_path: Path) -> None:
    (tmp_path / "backfill.toml").write_text(SECRET)
    assert leaks(tmp_path, ["another-secret", SECRET], {"stderr": f"x{SECRET}"}) == ["stderr: secret no. 2"]


def test_the_fixture_of_every_fault_test_finds_what_that_test_planted(
    world: World, request: pytest.FixtureRequest
) -> None:
    planted = world.directory / "daemon.log"
    for secret in (world.server.secret_key, conftest.password_of(world)):
        planted.write_text(f"connect with {secret}")
        with pytest.raises(AssertionError, match=r"daemon\.log: secret no"):
            conftest.assert_no_secret_left(world.directory, [world], {})
    planted.unlink()
    assert "no_secret_left_behind" in request.fixturenames
