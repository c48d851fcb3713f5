"""`restore` as an operator types it: rows that come back from their objects, in a real PostgreSQL."""

from __future__ import annotations

import json

import pytest

from daemon.demo.seaweed import signed_request
from daemon.errors import ExitCode
from journal.log import Journal
from tests.cli.migrations import Migration, refused
from tests.s3_servers import BUCKET

NOW_US = 1_768_400_000_000_000
LIKE = "create table restored (like attachments including all)"
BOTH_WAYS = (
    "select (select count(*) from (select {0} from attachments except select {0} from restored) a),"
    " (select count(*) from (select {0} from restored except select {0} from attachments) b)"
)


def put(migration: Migration, key: str, body: bytes) -> None:
    path = f"/{BUCKET}/{migration.prefix}{key}"
    names = {"access_key": migration.server.access_key, "secret_key": migration.server.secret_key}
    method = "PUT" if body else "DELETE"
    assert signed_request(migration.server.port, method, path, body, **names)[0] in {200, 204}


def rows(migration: Migration, table: str = "restored") -> int:
    return int(migration.database.sql(f"select count(*) from {table}"))


@pytest.fixture
def copied(inside: Migration) -> Migration:
    inside.changes["metadata"] = '["note"]'
    inside.database.sql("update attachments set note = 'żółć & co % ' || id where id::int % 2 = 0")
    assert inside("run").returncode == ExitCode.DONE
    inside.database.sql(LIKE)
    return inside


def test_without_yes_it_counts_and_writes_nothing(copied):
    with copied.untouched():
        done = copied("restore", "--all", "--into", "public.restored")
    assert done.returncode == ExitCode.DONE
    assert 'would restore 20 rows, 31 B, into "public"."restored"' in done.stdout
    assert rows(copied) == 0


def test_every_row_comes_back_as_it_was_also_after_the_table_is_gone(copied):
    copied.database.sql("create table kept as select * from attachments; drop table attachments")
    done = copied("restore", "--all", "--into", "public.restored", "--yes")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "restored 20 rows, 31 B" in done.stdout
    query = BOTH_WAYS.format("id, at, data, note").replace("attachments", "kept")
    assert copied.database.sql(query).split("|") == ["0", "0"]
    (event,) = map(json.loads, copied("events", "--json", "--kind", "rows_restored").stdout.splitlines())
    assert event["data"]["restored"] == 20
    assert event["data"]["into"] == '"public"."restored"'


def test_the_same_again_finds_all_there_and_reads_no_object(copied):
    copied("restore", "--all", "--into", "public.restored", "--yes")
    put(copied, "3", b"")
    done = copied("restore", "--all", "--into", "public.restored", "--yes")
    assert done.returncode == ExitCode.DONE
    assert "there already, with the value on record: 20 rows" in done.stdout
    assert rows(copied) == 20


def test_an_object_that_is_not_the_one_on_record_becomes_no_row(copied):
    put(copied, "3", b"x")
    put(copied, "4", b"longer")
    put(copied, "5", b"")
    done = copied("restore", "--all", "--into", "public.restored", "--yes")
    assert done.returncode == ExitCode.MISMATCH
    text = " ".join(done.stdout.split())
    assert "restored 17 rows" in text
    assert "not to be had from the bucket: 3 rows" in text
    assert "3 (its object differs: MD5" in text
    assert "5 (its object is missing)" in text
    assert rows(copied) == 17


def test_a_row_that_is_there_is_never_changed(copied):
    copied.database.sql("insert into restored (id, data) values ('7', 'mine'), ('8', '8')")
    done = copied("restore", "--all", "--into", "public.restored", "--yes")
    assert done.returncode == ExitCode.MISMATCH
    text = " ".join(done.stdout.split())
    assert "not as on record, and left: 1 row" in text
    assert "there already, with the value on record: 1 row" in text
    assert copied.database.sql("select data from restored where id = '7'") == "\\x6d696e65"


def test_single_keys_come_back_and_explain_tells_it(copied):
    done = copied("restore", "3", "12", "--into", "public.restored", "--yes")
    assert done.returncode == ExitCode.DONE
    assert copied.database.sql("select string_agg(id, ',' order by id::int) from restored") == "3,12"
    explained = json.loads(copied("explain", "3", "--json").stdout)
    assert "rows_restored" in [event["kind"] for event in explained["plans"][0]["events"]]


def test_keys_without_an_object_are_all_named(copied):
    message = refused(copied("restore", "3", "x", "y", "--into", "public.restored", "--yes"), ExitCode.USAGE)
    assert 'restore "x"' in message
    assert 'restore "y"' in message
    assert rows(copied) == 0


def test_a_table_that_does_not_fit_is_refused_with_everything_that_is_wrong(copied):
    copied.database.sql("create table narrow (id text, must int not null)")
    message = refused(copied("restore", "--all", "--into", "public.narrow"), ExitCode.USAGE)
    for problem in ('no column "at"', 'no column "data"', 'no column "note"', 'column "must" is NOT NULL'):
        assert problem in message
    assert 'CREATE TABLE "public"."narrow" (LIKE "public"."attachments" INCLUDING ALL)' in message
    missing = refused(copied("restore", "--all", "--into", "public.nowhere"), ExitCode.USAGE)
    assert 'CREATE TABLE "public"."nowhere" (LIKE "public"."attachments" INCLUDING ALL)' in missing


def test_the_sources_own_table_takes_only_what_it_lacks_and_only_if_that_is_said(copied):
    copied.database.sql("delete from attachments where id in ('1', '2')")
    refused(copied("restore", "--all", "--into", "public.attachments", "--yes"), ExitCode.USAGE)
    done = copied("restore", "--all", "--into", "public.attachments", "--own-table", "--yes")
    assert done.returncode == ExitCode.DONE
    assert "restored 2 rows" in done.stdout
    assert rows(copied, "attachments") == 20


def test_a_role_that_may_only_read_is_told_what_it_lacks(copied):
    copied.database.sql(
        "drop role if exists reader_only; create role reader_only login password 'reading';"
        " grant select on restored, attachments to reader_only"
    )
    dsn = copied.database.dsn_of("reader_only", "reading")
    message = refused(
        copied("restore", "--all", "--into", "public.restored", BACKFILL_RESTORE_DSN=dsn), ExitCode.USAGE
    )
    assert 'role "reader_only" may not INSERT into "id", "at", "data", "note"' in message
    copied.database.sql("drop owned by reader_only; drop role reader_only")


def test_a_password_on_the_command_line_is_refused_unread(copied):
    message = refused(
        copied("restore", "--all", "--into", "public.restored", "--dsn", "postgresql://u:hunter2@h/d"),
        ExitCode.USAGE,
    )
    assert "found a password" in message
    assert "hunter2" not in message


def test_a_trigger_that_changes_what_is_written_shows(copied):
    copied.database.sql(
        "create function mangle() returns trigger language plpgsql as"
        " $$begin if new.id = '9' then new.data := 'mangled'; end if; return new; end$$;"
        " create trigger mangle before insert on restored for each row execute function mangle()"
    )
    done = copied("restore", "--all", "--into", "public.restored", "--yes")
    assert done.returncode == ExitCode.MISMATCH
    assert "restored 19 rows" in done.stdout
    assert "9 (written, but the table has not that value" in " ".join(done.stdout.split())


def test_a_running_daemon_is_not_disturbed(copied):
    with Journal.open(copied.journal, now_us=NOW_US):
        refused(copied("restore", "--all", "--into", "public.restored", "--yes"), ExitCode.JOURNAL)
        assert copied("restore", "--all", "--into", "public.restored").returncode == ExitCode.DONE


def test_what_undo_took_away_is_not_restored(copied):
    assert copied("undo", "--key", "3", "--yes").returncode == ExitCode.DONE
    done = copied("restore", "--all", "--into", "public.restored", "--yes")
    assert done.returncode == ExitCode.DONE
    assert rows(copied) == 19
    refused(copied("restore", "3", "--into", "public.restored"), ExitCode.USAGE)


def test_an_object_of_somebody_else_gives_its_bytes_and_the_planned_time(inside):
    inside.changes["metadata"] = '["note"]'
    put(inside, "7", b"7")
    assert inside("run").returncode == ExitCode.DONE
    inside.database.sql(LIKE)
    done = inside("restore", "--all", "--into", "public.restored", "--yes")
    assert done.returncode == ExitCode.DONE
    assert "without metadata, since somebody else wrote their objects: 1 row" in " ".join(done.stdout.split())
    assert inside.database.sql(BOTH_WAYS.format("id, at, data")).split("|") == ["0", "0"]
