"""What must be no GO, and SQL that must delete nothing: each was one once, or removed rows without a copy."""

from __future__ import annotations

import pytest

from daemon import drop_sql
from journal.events import Kind
from journal.log import Journal
from tests.attest.test_attest import attested, not_met, parked, recopied, spoil, sql_of
from tests.cli.migrations import ROWS, TABLE, Migration
from tests.conftest import fresh_database

UNWARY = "\\unset ON_ERROR_STOP\n\\set ON_ERROR_ROLLBACK on\n"
"""How psql goes on behind a statement that has failed, even inside a transaction."""


def late(migration: Migration, *keys: str) -> None:
    """Insert rows that no pass has seen, with a date that makes them ones."""
    for key in keys:
        migration.database.sql(
            f"insert into attachments values ('{key}', now() - interval '3 days', '{key}')"
        )


@pytest.mark.parametrize(
    "change",
    [
        "insert into attachments values ('late', now() - interval '3 days', 'late')",
        "update attachments set data = 'longer' where id = '7'",
        "delete from attachments where id = '7'; insert into attachments values ('late', now() - interval '3 days', 'late')",
    ],
    ids=["a row more", "a longer row", "another row instead"],
)
@pytest.mark.parametrize("left_out", [False, True], ids=["emptied", "deleted in batches"])
def test_a_client_that_ignores_errors_removes_no_row_of_a_table_that_has_changed(
    verified: Migration, left_out: bool, change: str
) -> None:
    if left_out:
        verified.database.sql("insert into attachments values ('newer', now() + interval '1 hour', 'x')")
    sql = sql_of(verified)
    assert ("TRUNCATE" in sql) is not left_out
    verified.database.sql(change)
    before = verified.database.sql("table attachments")
    verified.database.sql(UNWARY + sql)
    assert verified.database.sql("table attachments") == before


def test_the_sql_of_two_sources_runs_in_one_session(verified: Migration) -> None:
    verified.database.sql("insert into attachments values ('newer', now() + interval '1 hour', 'x')")
    sql = sql_of(verified)
    verified.database.sql(f"{sql}\n{ROWS};\n{sql}")
    assert verified.database.sql("select id from attachments").split() == ["newer"]


def copied_anew(migration: Migration) -> None:
    assert migration("plan --reconcile").returncode == migration("run").returncode == 0


def test_a_mismatch_stands_though_another_row_was_copied_and_other_tiers_see_nothing(
    verified: Migration,
) -> None:
    spoil(verified, "7", b"7")
    assert verified("verify --tier head").returncode == 4
    late(verified, "late")
    copied_anew(verified)
    assert verified("verify").returncode == 0
    assert not_met(verified) == {
        "mismatch by head": "1 foreign, such as 7 of attachments; not found right since, nor copied anew"
    }
    assert not_met(verified, "--require-tier", "content").keys() == {"mismatch by head"}


def test_a_mismatch_is_over_once_the_key_was_copied_anew_whatever_tier_looks_then(
    verified: Migration,
) -> None:
    verified.sections["s3"] = 'existing = "overwrite"'
    spoil(verified, "7", b"7")
    assert verified("verify --tier head --repair").returncode == 4
    assert verified("run").returncode == verified("verify").returncode == 0
    assert not_met(verified) == {}


@pytest.mark.parametrize("value", ["8", "longer than before"])
def test_a_row_that_has_changed_is_copied_anew_by_a_repair_and_a_go_again(
    verified: Migration, value: str
) -> None:
    verified.database.sql(f"update attachments set data = '{value}' where id = '7'")
    assert verified("verify --tier source --repair").returncode == 4
    assert verified("run").returncode == 0
    assert verified("verify --tier source --tier content").returncode == 0
    assert not_met(verified) == {}


def test_what_a_verification_found_before_it_was_interrupted_stands(verified: Migration) -> None:
    with Journal.open(verified.journal, now_us=1) as journal:
        run = journal.note(Kind.VERIFICATION_STARTED, {"tier": "content", "sources": [1]}, now_us=1)
        finding = {"run": run, "tier": "content", "findings": [["differing", 7, "7", ""]], "ordinals": [7]}
        journal.note(Kind.FINDING_RECORDED, finding, source=1, now_us=1)
    assert not_met(verified).keys() == {"mismatch by content"}
    assert verified("verify --tier list").returncode == 0
    assert not_met(verified).keys() == {"mismatch by content"}
    assert verified("verify --tier content").returncode == 0
    assert not_met(verified) == {}


def test_another_database_of_the_same_server_is_neither_attested_nor_compared_with(
    verified: Migration,
) -> None:
    other = fresh_database(verified.database.server)
    other.sql(TABLE)
    late(verified, "late")
    verified.changes["dsn"] = other.dsn
    change = f"another PostgreSQL: database {verified.database.name} on record, {other.name} found"
    assert not_met(verified) == {"server": change}
    done = verified("verify --tier source")
    assert done.returncode == 2
    assert "PostgreSQL is not the server on record" in done.stderr
    assert verified("verify --tier list").returncode == 0


def test_a_source_that_was_added_to_the_configuration_and_never_copied_is_no_go(verified: Migration) -> None:
    verified.database.sql("create table more as table attachments; alter table more add primary key (id)")
    verified.sections["source"] = f"""
            [[source]]
            name = "more"
            table = "public.more"
            key = "id"
            created_at = "at"
            value = "data"
            prefix = "{verified.prefix[:-1]}-more/"
    """
    assert not_met(verified) == {"more: planned": "configured, and none of its rows was ever planned"}
    assert verified("run").returncode == verified("verify").returncode == 0
    assert not_met(verified) == {}
    verified.sections.pop("source")
    done = verified("attest")
    assert done.returncode == 2
    assert "more.source: journal has present, config has missing" in done.stderr


def test_the_sql_is_right_also_where_an_excused_row_is_gone(verified: Migration) -> None:
    parked(verified)
    verified.database.sql("delete from attachments where id = 'late'")
    verified.database.sql(sql_of(verified, "--excuse", "late"))
    assert verified.database.sql("select id from attachments") == ""


def test_the_sql_is_right_also_where_an_excused_row_is_out_of_scope(verified: Migration) -> None:
    parked(verified)
    verified.database.sql("update attachments set at = now() + interval '1 hour' where id = 'late'")
    verified.database.sql(sql_of(verified, "--excuse", "late"))
    assert verified.database.sql("select id from attachments") == "late"


def test_a_where_means_the_same_rows_in_the_sql_whatever_session_runs_it(
    copied: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop_sql, "BATCH_ROWS", 1)
    monkeypatch.setattr(drop_sql, "PAUSE_SECONDS", 0)
    copied.sections["source"] = 'where = "extract(hour from at) = 3"'
    rows = ", ".join(f"('{hour}.{n}', '2024-03-01 {hour}:00Z', 'x')" for hour in ("03", "13") for n in (1, 2))
    recopied(copied, f"truncate attachments; insert into attachments values {rows}")
    # Three in the morning of the next day there is 13:00 UTC.
    copied.database.sql(f"set timezone = 'Pacific/Kiritimati'; {sql_of(copied)}")
    assert copied.database.sql("select id from attachments order by 1").split() == ["13.1", "13.2"]


def test_no_sql_removes_a_row_of_which_another_source_has_not_copied_its_column(copied: Migration) -> None:
    copied.database.sql("update attachments set note = 'n' where id::int <= 15")
    copied.sections["source"] = f"""
            [[source]]
            name = "notes"
            table = "public.attachments"
            key = "id"
            created_at = "at"
            value = "note"
            null_value = "exclude"
            prefix = "{copied.prefix[:-1]}-notes/"
    """
    done = copied("run")
    assert done.returncode == 0, done.stderr
    done = copied("verify")
    assert done.returncode == 0, done.stderr
    assert not_met(copied) == {}
    _, document = attested(copied)
    of_data, of_notes = (source["sql"] for source in document["sources"])  # type: ignore[attr-defined]
    copied.database.sql(of_data)
    assert copied.database.sql("select count(*) from attachments") == "20"
    copied.database.sql(of_notes)
    assert copied.database.sql("select count(*), count(note) from attachments") == "5|0"


def test_sources_may_be_verified_one_by_one(verified: Migration) -> None:
    verified.database.sql("create table more as table attachments; alter table more add primary key (id)")
    verified.sections["source"] = f"""
            [[source]]
            name = "more"
            table = "public.more"
            key = "id"
            created_at = "at"
            value = "data"
            prefix = "{verified.prefix[:-1]}-more/"
    """
    assert verified("run").returncode == 0
    assert not_met(verified).keys() == {"more: verified by list", "more: verified by content"}
    assert verified("verify --source attachments").returncode == 0
    assert not_met(verified).keys() == {"more: verified by list", "more: verified by content"}
    assert verified("verify --source more").returncode == 0
    assert not_met(verified) == {}
