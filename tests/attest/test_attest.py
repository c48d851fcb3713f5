"""A verdict through the command line, on a real table, a real bucket and the journal of a real migration."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import jsonschema
import pytest

from daemon.demo.seaweed import signed_request
from journal.log import Journal
from journal.reader import Reader
from tests.cli.migrations import Migration
from tests.conftest import Database
from tests.journal.tampering import tamper
from tests.s3_servers import BUCKET

SCHEMA = json.loads((Path(__file__).parents[2] / "daemon" / "attestation.schema.json").read_text())


def attested(migration: Migration, *flags: str) -> tuple[int, dict[str, object]]:
    done = migration("attest --json", *flags)
    assert done.returncode in {0, 4}, done.stderr
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    return done.returncode, document


def not_met(migration: Migration, *flags: str) -> dict[str, str]:
    """What keeps it from GO: subject and text."""
    code, document = attested(migration, *flags)
    failed = {each["subject"]: each["text"] for each in document["conditions"] if not each["met"]}  # type: ignore[attr-defined]
    assert (code, document["verdict"]) == ((4, "NO-GO") if failed else (0, "GO"))
    return failed


def sql_of(migration: Migration, *flags: str) -> str:
    code, document = attested(migration, *flags)
    assert code == 0
    return document["sources"][0]["sql"]  # type: ignore[index,no-any-return]


def spoil(migration: Migration, key: str, body: bytes) -> None:
    server = migration.server
    status, _ = signed_request(
        server.port,
        "PUT",
        f"/{BUCKET}/{migration.prefix}{key}",
        body=body,
        access_key=server.access_key,
        secret_key=server.secret_key,
    )
    assert status == 200


def test_a_copied_and_verified_migration_is_a_go_and_changes_neither_end(verified: Migration) -> None:
    listing, rows = verified.listing(), verified.database.sql("table attachments")
    done = verified("attest")
    assert done.returncode == 0
    assert done.stdout.startswith("GO: every row in scope is copied, and its copy was verified.\n")
    assert "TRUNCATE TABLE" in done.stdout
    assert (verified.listing(), verified.database.sql("table attachments")) == (listing, rows)


def test_the_verdict_is_on_record_with_what_it_speaks_of(verified: Migration) -> None:
    _, document = attested(verified)
    with Reader.open(verified.journal) as reader:
        *_, event = reader.events(kinds=["attested"])
    journal = document["journal"]
    assert event.data["verdict"] == "GO"
    assert {"head_seq": event.data["head_seq"], "chain": event.data["chain"]} == journal
    assert event.seq == journal["head_seq"] + 1  # type: ignore[index]


def test_the_digest_can_be_computed_by_a_third_party(verified: Migration) -> None:
    _, document = attested(verified)
    lines = [
        json.dumps([key, len(key), hashlib.md5(key.encode()).hexdigest()], separators=(",", ":")) + "\n"
        for key in sorted(map(str, range(1, 21)))
    ]
    [source] = document["sources"]  # type: ignore[misc]
    assert source["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert (source["objects"], source["bytes"]) == (20, 31)


def test_without_a_verification_it_is_no_go(copied: Migration) -> None:
    assert not_met(copied) == {
        "verified by list": "not since the last key was copied",
        "verified by content": "not since the last key was copied",
    }


def test_a_verification_from_before_the_last_copy_does_not_count(verified: Migration) -> None:
    verified.database.sql("insert into attachments values ('late', now() - interval '3 days', 'late')")
    assert verified("plan --reconcile").returncode == verified("run").returncode == 0
    assert set(not_met(verified)) == {"verified by list", "verified by content"}


def test_damage_found_later_is_no_go(verified: Migration) -> None:
    spoil(verified, "7", b"else")
    assert verified("verify --tier list").returncode == 4
    failed = not_met(verified)
    assert set(failed) == {"verified by list"}
    assert failed["verified by list"].endswith("mismatch: 1 differing")


def test_a_required_tier_must_have_looked_at_every_key(verified: Migration) -> None:
    assert set(not_met(verified, "--require-tier", "source")) == {"verified by source"}
    assert verified("verify --tier source").returncode == 0
    assert not_met(verified, "--require-tier", "source") == {}


def test_a_late_row_with_an_old_timestamp_is_no_go(verified: Migration) -> None:
    verified.database.sql("insert into attachments values ('late', now() - interval '3 days', 'late')")
    assert not_met(verified) == {
        "attachments: rows": "rows without a copy: 1 unknown to the journal, such as late"
    }


def test_a_row_of_another_length_is_no_go_and_a_deleted_one_is_no_reason(verified: Migration) -> None:
    verified.database.sql("delete from attachments where id = '3'")
    assert not_met(verified) == {}
    verified.database.sql("update attachments set data = 'longer than before' where id = '4'")
    assert not_met(verified) == {
        "attachments: rows": "rows without a copy: 1 of another length than copied, such as 4"
    }


def parked(migration: Migration) -> None:
    """Let row "late" find another object under its key."""
    spoil(migration, "late", b"theirs")
    migration.database.sql("insert into attachments values ('late', now() - interval '3 days', 'late')")
    assert migration("plan --reconcile").returncode == 0
    assert migration("run").returncode == 3
    assert migration("verify").returncode == 0


def test_a_parked_key_is_no_go_unless_it_is_excused_by_name(verified: Migration) -> None:
    parked(verified)
    assert list(not_met(verified)) == ["attachments: parked"]
    assert not_met(verified, "--excuse", "late") == {}
    assert not_met(verified, "--excuse", "attachments:late") == {}


def test_an_excuse_for_what_is_not_parked_is_refused(verified: Migration) -> None:
    done = verified("attest --excuse 7 --excuse nobody")
    assert done.returncode == 2
    assert "--excuse: 7 is not parked" in done.stderr
    assert "--excuse: nobody is not parked" in done.stderr


def test_excuses_are_read_from_a_file(verified: Migration, tmp_path: Path) -> None:
    parked(verified)
    (tmp_path / "excused").write_text("late\n")
    assert not_met(verified, "--excuse-from", str(tmp_path / "excused")) == {}
    assert verified("attest", "--excuse-from", str(tmp_path / "nowhere")).returncode == 2


def test_what_was_skipped_is_no_go(copied: Migration) -> None:
    copied.sections["s3"] = 'existing = "skip"'
    spoil(copied, "late", b"theirs")
    copied.database.sql("insert into attachments values ('late', now() - interval '3 days', 'late')")
    assert (
        copied("plan --reconcile").returncode == copied("run").returncode == copied("verify").returncode == 0
    )
    assert not_met(copied) == {"attachments: skipped": "1 key had an object that nobody compared"}


def test_keys_that_are_not_settled_and_a_source_that_is_not_closed_are_no_go(
    database: Database, copied: Migration
) -> None:
    del database
    copied.database.sql("insert into attachments values ('late', now() - interval '3 days', 'late')")
    assert copied("plan --reconcile").returncode == 0
    assert "attachments: settled" in not_met(copied)


def test_an_undone_object_is_no_go(verified: Migration) -> None:
    assert verified("undo --key 7 --yes").returncode == 0
    failed = not_met(verified)
    assert failed["attachments: parked"] == "1 key without a copy, such as 7 (undone)"


def test_an_altered_journal_is_no_go(verified: Migration) -> None:
    tamper(verified.journal, "UPDATE plan SET created_at = created_at - 1 WHERE ordinal = 7")
    assert not_met(verified)["journal"].startswith("plan: the chunk of ordinals 1 to 20")


def test_a_journal_that_does_not_go_on_from_the_manifest_is_no_go(
    verified: Migration, tmp_path: Path
) -> None:
    with Reader.open(verified.journal) as reader:
        identity = json.loads(verified("attest --json").stdout)["migration_id"]
        manifest = {"journal": {"head_seq": reader.head_seq(), "chain": "00" * 32, "migration_id": identity}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    flags = ("--manifest", str(tmp_path / "manifest.json"))
    assert "is another one than the manifest's" in not_met(verified, *flags)["manifest"]


def test_beside_a_running_session_it_is_refused_and_names_the_owner(verified: Migration) -> None:
    with Journal.open(verified.journal, now_us=1):
        done = verified("attest")
    assert done.returncode == 7
    assert f"pid {os.getpid()}" in done.stderr


def test_without_a_database_nothing_is_attested(verified: Migration) -> None:
    verified.changes["dsn"] = "postgresql://nobody@127.0.0.1:1/none"
    assert verified("attest").returncode == 5
    with Reader.open(verified.journal) as reader:
        assert list(reader.events(kinds=["attested"])) == []


def test_the_sql_empties_the_table_that_was_copied_whole(verified: Migration) -> None:
    sql = sql_of(verified)
    verified.database.sql(sql)
    assert verified.database.sql("select count(*) from attachments").strip() == "0"


def test_the_sql_stops_if_the_table_has_changed_since(verified: Migration) -> None:
    sql = sql_of(verified)
    verified.database.sql("insert into attachments values ('new', now(), 'new')")
    with pytest.raises(Exception, match="the table has changed since it was attested"):
        verified.database.sql(sql)
    assert verified.database.sql("select count(*) from attachments").strip() == "21"


def test_rows_out_of_scope_are_left_by_the_sql(verified: Migration) -> None:
    verified.database.sql(
        "insert into attachments values ('newer', now() + interval '1 hour', 'x'), ('undated', now() + interval '1 day', null)"
    )
    sql = sql_of(verified)
    assert "TRUNCATE" not in sql
    verified.database.sql(sql)
    assert verified.database.sql("select id from attachments order by 1").split() == ["newer", "undated"]


def test_an_excused_row_is_left_by_the_sql(verified: Migration) -> None:
    parked(verified)
    verified.database.sql(sql_of(verified, "--excuse", "late"))
    assert verified.database.sql("select id from attachments").split() == ["late"]


def test_a_position_that_is_none_is_refused(verified: Migration) -> None:
    done = verified("attest --primary-lsn yesterday")
    assert done.returncode == 2
    assert 'found "yesterday"; expected a position such as 16/B374D848' in done.stderr


def recopied(migration: Migration, table: str) -> None:
    """Copy another table in the place of the first."""
    for path in migration.directory.glob("journal.db*"):
        path.unlink()
    migration.database.sql(table)
    migration.prefix = f"{migration.prefix}again/"
    assert migration("run").returncode == migration("verify").returncode == 0


def test_rows_dated_by_day_are_deleted_by_the_clock_that_planning_goes_by(copied: Migration) -> None:
    copied.sections["migration"] = "cutoff = 2024-03-02T00:00:00Z"
    recopied(
        copied,
        "drop table attachments; create table attachments (id text primary key, at date, data bytea, note text);"
        " insert into attachments values ('old', '2024-03-01', 'x'), ('new', '2024-03-02', 'y')",
    )
    copied.database.sql(f"set timezone = 'Pacific/Kiritimati'; {sql_of(copied)}")
    assert copied.database.sql("select id from attachments").split() == ["new"]


def test_an_excused_binary_key_is_left_by_the_sql(copied: Migration) -> None:
    spoil(copied, "again/ff00", b"theirs")
    for path in copied.directory.glob("journal.db*"):
        path.unlink()
    copied.database.sql(
        "drop table attachments;"
        " create table attachments (id bytea primary key, at timestamptz, data bytea, note text);"
        r" insert into attachments values ('\xff00', '2024-03-01', 'x'), ('\x0001', '2024-03-01', 'y')"
    )
    copied.prefix = f"{copied.prefix}again/"
    assert copied("run").returncode == 3
    assert copied("verify").returncode == 0
    copied.database.sql(sql_of(copied, "--excuse", "ff00"))
    assert copied.database.sql("select encode(id, 'hex') from attachments").split() == ["ff00"]


def test_a_where_that_holds_our_quotes_and_a_comment_is_right_in_the_sql(copied: Migration) -> None:
    copied.sections["source"] = """where = "note <> '$backfill$' and note is not null -- of ours\""""
    copied.changes["value"] = "$backfill_$"
    recopied(
        copied,
        "update attachments set note = 'n'; update attachments set note = '$backfill$' where id = '7';"
        ' alter table attachments rename data to "$backfill_$"',
    )
    copied.database.sql(sql_of(copied))
    assert copied.database.sql("select id from attachments").split() == ["7"]


def test_a_partitioned_table_is_emptied_of_what_was_copied_in_every_partition(copied: Migration) -> None:
    recopied(
        copied,
        "drop table attachments; create table attachments (id int, at timestamptz, data bytea, note text,"
        " primary key (id)) partition by range (id);"
        " create table low partition of attachments for values from (0) to (10);"
        " create table high partition of attachments for values from (10) to (100);"
        " insert into attachments select n, now() - interval '1 day', 'x' from generate_series(1, 20) n",
    )
    copied.database.sql("insert into attachments values (50, now() + interval '1 day', 'x')")
    copied.database.sql(sql_of(copied))
    assert copied.database.sql("select id from attachments").split() == ["50"]
