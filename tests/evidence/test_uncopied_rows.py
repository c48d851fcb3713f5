"""Rows that the journal does not know, where keys are to be shown as hashes only."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.migrations import Migration

LATE = "patient-late"


@pytest.fixture
def copied(migration_on: Callable[[str], Migration]) -> Migration:
    return migration_on("weed")


@pytest.mark.parametrize(
    "command", ["verify --tier source", "verify --tier source --json", "attest", "attest --json"]
)
def test_a_late_row_is_told_and_its_key_shown_as_a_hash_only(copied: Migration, command: str) -> None:
    copied.database.sql(f"insert into attachments values ('{LATE}', now() - interval '3 days', 'late')")
    assert LATE in copied(command).stdout
    done = copied(f"{command} --redact-keys")
    assert done.returncode == 4
    assert "key#" in done.stdout
    assert LATE not in done.stdout + done.stderr
