"""What must be no GO, and SQL that must delete nothing: each was one once, or removed rows without a copy."""

from __future__ import annotations

import pytest

from tests.attest.test_attest import sql_of
from tests.cli.migrations import Migration

UNWARY = "\\unset ON_ERROR_STOP\n\\set ON_ERROR_ROLLBACK on\n"
"""How psql goes on behind a statement that has failed, even inside a transaction."""


def late(migration: Migration, *keys: str) -> None:
    """Insert rows that no pass has seen, with a date that makes them ones."""
    for key in keys:
        migration.database.sql(
            f"insert into attachments values ('{key}', now() - interval '3 days', '{key}')"
        )


@pytest.mark.parametrize("left_out", [False, True], ids=["emptied", "deleted in batches"])
def test_a_client_that_ignores_errors_removes_no_row_of_a_table_that_has_changed(
    verified: Migration, left_out: bool
) -> None:
    if left_out:
        verified.database.sql("insert into attachments values ('newer', now() + interval '1 hour', 'x')")
    sql = sql_of(verified)
    assert ("TRUNCATE" in sql) is not left_out
    late(verified, "late")
    before = verified.database.sql("table attachments")
    verified.database.sql(UNWARY + sql)
    assert verified.database.sql("table attachments") == before


def test_the_sql_of_two_sources_runs_in_one_session(verified: Migration) -> None:
    verified.database.sql("insert into attachments values ('newer', now() + interval '1 hour', 'x')")
    sql = sql_of(verified)
    again = "insert into attachments select n, now() - interval '1 day', 'x' from generate_series(1, 20) n;"
    verified.database.sql(f"{sql}\n{again}\n{sql}")
    assert verified.database.sql("select id from attachments").split() == ["newer"]
