from __future__ import annotations

import hashlib
import json

import pytest

from daemon.errors import SourceUnfitError
from daemon.row_queries import Relation, RowQueries
from daemon.rows import INFINITY_US, MINUS_INFINITY_US, Exclusions, Wanted
from tests.source.sources import CUTOFF_US, TABLE, scan_all, spec, sweep_all, values

KEYS = {
    "text": ["plain", "ä ö \U0001f600", "", 'quo"te\\', "it's", "a,b{c}"],
    "varchar(40)": ["x", "trailing  ", "%41"],
    "uuid": ["49952ca9-cfb3-4e6f-9b28-fdbd70f081fa", "00000000-0000-0000-0000-000000000000"],
    "smallint": ["-32768", "7"],
    "integer": ["-2147483648", "0"],
    "bigint": ["9223372036854775807", "-1"],
    "bytea": ["", "00ff", "5c78"],
    "positive": ["1", "42"],
}


def literal(text):
    return "'" + text.replace("'", "''") + "'"


@pytest.mark.parametrize("kind", KEYS)
async def test_every_key_type_comes_back_by_its_text(kind, database, opening):
    prefix = "\\x" if kind == "bytea" else ""
    rows = ", ".join(f"({literal(prefix + key)}, now(), 'v{n}')" for n, key in enumerate(KEYS[kind]))
    database.sql(
        "create domain positive as bigint check (value > 0);"
        f"create table t (id {kind} primary key, created_at timestamptz, data bytea); insert into t values {rows}"
    )
    async with opening() as source:
        assert await values(source, spec()) == {key: f"v{n}".encode() for n, key in enumerate(KEYS[kind])}


async def test_a_composite_key_is_a_json_array_of_texts(database, opening):
    database.sql(
        "create table t (tenant uuid, part int, name text, created_at timestamptz, data bytea, primary key (tenant, part, name));"
        "insert into t values ('49952ca9-cfb3-4e6f-9b28-fdbd70f081fa', 1, 'a\"b\u00e4', now(), 'one'),"
        " ('49952ca9-cfb3-4e6f-9b28-fdbd70f081fa', 2, E'tab\\t', now(), 'two')"
    )
    expected = {
        ("49952ca9-cfb3-4e6f-9b28-fdbd70f081fa", "1", 'a"b\u00e4'): b"one",
        ("49952ca9-cfb3-4e6f-9b28-fdbd70f081fa", "2", "tab\t"): b"two",
    }
    async with opening() as source:
        found = await values(source, spec(key=("tenant", "part", "name")))
    assert found == {
        json.dumps(parts, ensure_ascii=False, separators=(",", ":")): value
        for parts, value in expected.items()
    }


async def test_hostile_identifiers_are_quoted(database, opening):
    name = 'My "table"; drop table x; --'
    quoted = name.replace('"', '""')
    database.sql(
        f'create schema "Sch ema"; create table "Sch ema"."{quoted}" ("Id ""x""" int primary key, "Created $1" timestamptz,'
        f' "da\'ta" bytea, "sel,ect" text);'
        f"insert into \"Sch ema\".\"{quoted}\" values (1, '2020-01-01', 'abc', 'meta')"
    )
    hostile = spec(
        name,
        schema_name="Sch ema",
        key=('Id "x"',),
        created_at="Created $1",
        value="da'ta",
        where='"Id ""x""" > 0',
    )
    async with opening() as source:
        assert await values(source, hostile) == {"1": b"abc"}


async def test_rows_that_tie_in_created_at_are_all_swept(database, opening):
    database.sql(
        TABLE + "insert into t select lpad(i::text, 6, '0'), '2020-01-01', '' from generate_series(1, 4000) i"
    )
    async with opening() as source:
        facts = await source.describe(spec())
        ranges = await sweep_all(source, spec(), facts)
    assert len(ranges) > 4
    keys = [row.row_key for swept in ranges for row in swept.rows]
    assert (len(keys), len(set(keys)), sum(swept.seen for swept in ranges)) == (4000, 4000, 4000)


async def test_an_unbounded_last_range_sees_rows_added_after_the_description(database, opening):
    database.sql(TABLE)
    async with opening() as source:
        facts = await source.describe(spec())
        database.sql("insert into t select i::text, '2020-01-01', '' from generate_series(1, 2000) i")
        (swept,) = await sweep_all(source, spec(), facts)
    assert len(swept.rows) == 2000


@pytest.mark.parametrize("bounded", [True, False])
async def test_a_range_is_read_by_its_blocks_only(bounded, database, opening):
    database.sql(
        TABLE + "insert into t select i::text, '2020-01-01', '' from generate_series(1, 4000) i; analyze t"
    )
    async with opening() as source:
        facts = await source.describe(spec())
    sweep = RowQueries(spec(), facts, utf8=True).sweep(Relation("public", "t"), bounded=bounded)
    plan = database.sql(f"explain (generic_plan) {sweep}")
    assert "Tid Range Scan on t" in plan
    assert "Seq Scan" not in plan


async def test_a_rewritten_table_shows_another_filenode(database, opening):
    database.sql(TABLE + "insert into t values ('a', now(), '')")
    async with opening() as source:
        facts = await source.describe(spec())
        (before,) = await sweep_all(source, spec(), facts)
        database.sql("vacuum full t")
        (after,) = await sweep_all(source, spec(), facts)
    assert before.filenode != after.filenode
    assert str(after.filenode) == database.sql("select pg_relation_filenode('t')")


async def test_an_empty_range_still_shows_the_filenode(database, opening):
    database.sql(TABLE)
    async with opening() as source:
        facts = await source.describe(spec())
        (swept,) = await sweep_all(source, spec(), facts)
    assert (swept.rows, swept.seen) == ([], 0)
    assert str(swept.filenode) == database.sql("select pg_relation_filenode('t')")


async def test_a_dropped_heap_yields_nothing_under_filenode_0(database, opening):
    database.sql(TABLE)
    async with opening() as source:
        facts = await source.describe(spec())
        database.sql("drop table t")
        (swept,) = await sweep_all(source, spec(), facts)
    assert (swept.rows, swept.filenode) == ([], 0)


EXTREMES = {
    "infinity": INFINITY_US,
    "-infinity": MINUS_INFINITY_US,
    "4713-01-01 00:00:00+00 BC": -210863520000000000,
    "1969-12-31 23:59:59.999999+00": -1,
    "2026-01-14 15:30:45.123456+00": 1768404645123456,
    "294000-01-01 00:00:00+00": 9215576668800000000,
}


async def test_created_at_is_exact_to_the_microsecond_at_every_extreme(database, opening):
    database.sql(TABLE + "".join(f"insert into t values ('{text}', '{text}', '');" for text in EXTREMES))
    async with opening() as source:
        facts = await source.describe(spec())
        (swept,) = await sweep_all(source, spec(), facts, cutoff_us=INFINITY_US)
        found = {row.row_key: row.created_at for row in swept.rows}
        assert found == {text: us for text, us in EXTREMES.items() if text != "infinity"}
        fetched = await source.fetch(spec(), facts, [Wanted(text, 0) for text in EXTREMES])
    assert {row.row_key: row.created_at_text for row in fetched} == {text: text for text in EXTREMES}


@pytest.mark.parametrize(
    ("kind", "zone", "text", "expected"),
    [
        ("date", None, "2026-01-14", "2026-01-14 00:00:00+00"),
        ("date", "Europe/Berlin", "2026-01-14", "2026-01-13 23:00:00+00"),
        ("timestamp", "Europe/Berlin", "2026-07-14 15:30:45.123456", "2026-07-14 13:30:45.123456+00"),
        ("timestamp", "UTC", "-infinity", "-infinity"),
    ],
)
async def test_dates_and_zoneless_timestamps_become_instants(kind, zone, text, expected, database, opening):
    database.sql(
        f"create table t (id text primary key, created_at {kind}, data bytea); insert into t values ('a', '{text}', '')"
    )
    wanted = spec(created_at_zone=zone)
    async with opening() as source:
        facts = await source.describe(wanted)
        (swept,) = await sweep_all(source, wanted, facts)
        (fetched,) = await source.fetch(wanted, facts, [Wanted("a", 0)])
    microseconds = (
        database.sql(f"select (extract(epoch from '{expected}'::timestamptz) * 1000000)::bigint")
        if expected[0] == "2"
        else MINUS_INFINITY_US
    )
    assert (swept.rows[0].created_at, fetched.created_at_text) == (int(microseconds), expected)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("date", "5000000-01-01"), ("date", "infinity"), ("timestamp", "294276-12-31 23:59:59")],
)
async def test_a_date_beyond_every_timestamp_is_merely_newer_than_the_cutoff(kind, text, database, opening):
    database.sql(
        f"create table t (id text primary key, created_at {kind}, data bytea); insert into t values ('a', '{text}', '')"
    )
    wanted = spec(created_at_zone="America/New_York")
    async with opening() as source:
        facts = await source.describe(wanted)
        (swept,) = await sweep_all(source, wanted, facts)
    assert swept.excluded == Exclusions(newer_than_cutoff=1)


async def test_the_cutoff_is_exclusive_and_exact(database, opening):
    database.sql(
        TABLE
        + "insert into t select i::text, timestamptz '2026-01-01' + i * interval '1 microsecond', '' from generate_series(-1, 1) i"
    )
    cutoff_us = 1767225600000000
    async with opening() as source:
        facts = await source.describe(spec())
        (swept,) = await sweep_all(source, spec(), facts, cutoff_us)
        scanned = await scan_all(source, spec(), facts, cutoff_us)
    assert [row.row_key for row in swept.rows] == ["-1"]
    assert swept.excluded == Exclusions(newer_than_cutoff=2)
    assert scanned == (swept.rows, swept.excluded, 3)


MIXED = TABLE + (
    "alter table t add kind text;"
    "insert into t values ('kept', '2020-01-01', 'x', 'a'), ('undated', null, 'x', 'a'), ('null', '2020-01-01', null, 'a'),"
    " ('empty', '2020-01-01', '', 'a'), ('new', '2200-01-01', 'x', 'a'), ('draft', '2020-01-01', 'x', 'draft'), ('unknown', '2020-01-01', 'x', null)"
)


@pytest.mark.parametrize(
    ("rules", "kept", "excluded"),
    [
        ({}, {"kept", "empty"}, Exclusions(newer_than_cutoff=1, where=2, null_created_at=1, null_value=1)),
        (
            {"null_created_at": "include", "null_value": "exclude"},
            {"kept", "empty", "undated"},
            Exclusions(newer_than_cutoff=1, where=2, null_value=1),
        ),
        (
            {"null_created_at": "exclude", "null_value": "empty"},
            {"kept", "empty", "null"},
            Exclusions(newer_than_cutoff=1, where=2, null_created_at=1),
        ),
    ],
)
async def test_every_exclusion_is_counted_by_the_scan_that_made_it(rules, kept, excluded, database, opening):
    database.sql(MIXED)
    wanted = spec(where="kind <> 'draft' -- a comment", **rules)
    async with opening() as source:
        facts = await source.describe(wanted)
        (swept,) = await sweep_all(source, wanted, facts)
        scanned = await scan_all(source, wanted, facts)
    assert {row.row_key for row in swept.rows} == kept
    assert (swept.excluded, swept.seen) == (excluded, 7)
    assert scanned == (swept.rows, swept.excluded, swept.seen)


@pytest.mark.parametrize("with_sha256", [True, False])
async def test_the_server_digests_values_and_by_sha256_only_where_asked(database, opening, with_sha256):
    database.sql(TABLE + "insert into t values ('a', now(), '\\x00ff'), ('n', now(), null)")
    value = b"\x00\xff"
    async with opening() as source:
        facts = await source.describe(spec())
        found = await source.row_digests(spec(), facts, ["a", "n", "gone"], with_sha256=with_sha256)
    md5 = hashlib.md5(value, usedforsecurity=False).hexdigest()
    sha256 = hashlib.sha256(value).hexdigest() if with_sha256 else ""
    assert {key: (row.size, row.md5, row.sha256) for key, row in found.items()} == {"a": (2, md5, sha256)}


async def test_null_values_are_empty_or_absent_by_the_rule_and_empty_values_are_empty(database, opening):
    database.sql(MIXED)
    wanted = [Wanted("null", 0), Wanted("empty", 0), Wanted("gone", 0)]
    async with opening() as source:
        facts = await source.describe(spec())
        by_default = await source.fetch(spec(), facts, wanted)
        as_empty = await source.fetch(spec(null_value="empty"), facts, wanted)
    assert {row.row_key: row.value for row in by_default} == {"empty": b""}
    assert {row.row_key: row.value for row in as_empty} == {"empty": b"", "null": b""}


async def test_a_value_of_some_mebibytes_arrives_whole_and_its_size_was_known(database, opening):
    database.sql(
        TABLE + "alter table t alter data set storage external;"
        "insert into t select 'big', '2020-01-01', string_agg(decode(md5(i::text), 'hex'), '') from generate_series(1, 300000) i"
    )
    async with opening() as source:
        facts = await source.describe(spec())
        (swept,) = await sweep_all(source, spec(), facts)
        assert swept.rows[0].size == 4_800_000
        (row,) = await source.fetch(spec(), facts, [Wanted("big", 4_800_000)])
    assert hashlib.md5(row.value).hexdigest() == database.sql("select md5(data) from t")


async def test_a_value_larger_than_reserved_is_withheld_and_its_size_told(database, opening):
    database.sql(
        TABLE + "insert into t values ('grown', now(), 'twelve bytes'), ('fits', now(), 'twelve bytes')"
    )
    async with opening() as source:
        facts = await source.describe(spec())
        rows = await source.fetch(spec(), facts, [Wanted("grown", 11), Wanted("fits", 12)])
    assert {row.row_key: (row.size, row.value) for row in rows} == {
        "grown": (12, None),
        "fits": (12, b"twelve bytes"),
    }


async def test_texts_are_copied_as_utf8_and_metadata_as_text_without_nulls(database, opening):
    database.sql(
        "create table t (id text primary key, created_at timestamptz, data varchar(20), lang text, n int, none text);"
        "insert into t values ('a', '2020-01-01', 'gr\u00fc\u00df', 'de', 5, null)"
    )
    wanted = spec(metadata=("lang", "n", "none"))
    async with opening() as source:
        facts = await source.describe(wanted)
        (swept,) = await sweep_all(source, wanted, facts)
        (row,) = await source.fetch(wanted, facts, [Wanted("a", swept.rows[0].size)])
    assert (row.size, row.value, row.metadata) == (6, "gr\u00fc\u00df".encode(), {"lang": "de", "n": "5"})


async def test_texts_of_a_latin1_database_are_measured_and_copied_as_utf8(postgres_server, database, opening):
    postgres_server.sql(f"create database {database.name}_latin1 template template0 encoding 'latin1'")
    try:
        postgres_server.sql(
            "create table t (id text primary key, created_at timestamptz, data text); insert into t values ('\u00e4', '2020-01-01', '\u00fc\u00fc')",
            f"{database.name}_latin1",
        )
        async with opening(postgres_server.dsn(f"{database.name}_latin1")) as source:
            assert await values(source, spec()) == {"\u00e4": "\u00fc\u00fc".encode()}
            assert (await scan_all(source, spec(), await source.describe(spec())))[0][0].size == 4
    finally:
        postgres_server.sql(f"drop database {database.name}_latin1 with (force)")


async def test_leaves_of_a_partitioned_table_are_swept_one_by_one(database, opening):
    database.sql(
        "create table t (id text, day date, created_at timestamptz, data bytea, primary key (id, day)) partition by range (day);"
        "create table t_1 partition of t for values from ('2020-01-01') to ('2021-01-01') partition by hash (id);"
        "create table t_1a partition of t_1 for values with (modulus 2, remainder 0);"
        "create table t_1b partition of t_1 for values with (modulus 2, remainder 1);"
        "create table t_2 partition of t default;"
        "insert into t select i::text, date '2020-06-01' + i * 100, '2020-01-01', i::text::bytea from generate_series(1, 9) i"
    )
    wanted = spec(key=("id", "day"))
    with_text_day = spec(key=("id",), where="t.day is not null")
    async with opening() as source:
        with pytest.raises(SourceUnfitError, match="'day' is of type date"):
            await source.describe(wanted)
        facts = await source.describe(with_text_day)
        assert (facts.kind, len(facts.relations), facts.unique) == ("partitioned table", 3, None)
        ranges = await sweep_all(source, with_text_day, facts)
        assert sorted(row.row_key for swept in ranges for row in swept.rows) == [str(i) for i in range(1, 10)]
        await source.check_fetch_plan(with_text_day, facts)
        rows = await source.fetch(with_text_day, facts, [Wanted(str(i), 1) for i in range(1, 10)])
    assert {row.row_key: row.value for row in rows} == {str(i): str(i).encode() for i in range(1, 10)}


async def test_inheritance_children_are_swept_and_no_index_of_the_parent_proves_the_key(database, opening):
    database.sql(
        TABLE + "create table child (extra int) inherits (t); create unique index on child (id);"
        "insert into t values ('parent', '2020-01-01', 'p'); insert into child values ('child', '2020-01-01', 'c')"
    )
    async with opening() as source:
        facts = await source.describe(spec())
        assert (len(facts.relations), facts.unique) == (2, None)
        assert await values(source, spec()) == {"parent": b"p", "child": b"c"}


@pytest.mark.parametrize("kind", ["view", "materialized view"])
async def test_views_are_read_by_a_cursor(kind, database, opening):
    database.sql(
        TABLE + "insert into t select i::text, '2020-01-01', 'x' from generate_series(1, 12000) i;"
        f"create {kind} v as select * from t"
    )
    async with opening() as source:
        facts = await source.describe(spec("v"))
        assert (facts.kind, facts.relations, facts.unique) == (kind, (), None)
        rows, _, seen = await scan_all(source, spec("v"), facts)
    assert (len({row.row_key for row in rows}), seen) == (12000, 12000)


async def test_a_source_without_created_at_is_swept_whole_whatever_the_cutoff(database, opening):
    database.sql(TABLE + "insert into t values ('a', '2200-01-01', 'x')")
    wanted = spec(created_at=None)
    async with opening() as source:
        facts = await source.describe(wanted)
        (swept,) = await sweep_all(source, wanted, facts)
        (row,) = await source.fetch(wanted, facts, [Wanted("a", 1)])
    assert [(row.row_key, row.created_at) for row in swept.rows] == [("a", None)]
    assert row.created_at_text is None


async def test_a_scan_sees_one_snapshot_however_long_it_takes(database, opening):
    database.sql(TABLE + "insert into t select i::text, '2020-01-01', '' from generate_series(1, 6000) i")
    async with opening() as source:
        facts = await source.describe(spec())
        seen = 0
        async with source.scan(spec(), facts, cutoff_us=CUTOFF_US) as batches:
            async for rows, _, _ in batches:
                seen += len(rows)
                database.sql("delete from t; insert into t values ('late', '2020-01-01', '')")
    assert seen == 6000


async def test_a_scan_that_is_left_early_returns_its_connection(database, opening):
    database.sql(TABLE + "insert into t select i::text, '2020-01-01', '' from generate_series(1, 6000) i")
    async with opening(connections=2) as source:
        facts = await source.describe(spec())
        for _ in range(3):
            async with source.scan(spec(), facts, cutoff_us=CUTOFF_US) as batches:
                await anext(batches)
        assert await source.fetch(spec(), facts, [Wanted("1", 0)])


@pytest.mark.parametrize("where", [None, "id <> 'other'"])
async def test_null_keys_in_scope_are_counted_and_refused_by_the_scans(where, database, opening):
    database.sql(
        "create table t (id text unique, created_at timestamptz, data bytea); insert into t values (null, '2020-01-01', ''), (null, '2020-01-01', ''), ('a', '2020-01-01', '')"
    )
    wanted = spec(where=where)
    async with opening() as source:
        facts = await source.describe(wanted)
        assert facts.unique == "public.t_id_key"
        for read in (sweep_all, scan_all):
            if where is None:
                with pytest.raises(SourceUnfitError, match="2 rows have a NULL in their key"):
                    await read(source, wanted, facts)
            else:
                assert await read(source, wanted, facts)


async def test_describing_a_table_reads_none_of_its_rows(database, opening):
    database.sql("create table t (id text unique, created_at timestamptz, data bytea)")
    read = "select seq_tup_read + idx_tup_fetch from pg_stat_user_tables where relname = 't'"
    database.sql("insert into t select i::text, '2020-01-01', '' from generate_series(1, 100) i; analyze t")
    async with opening() as source:
        await source.describe(spec())
    # The session's counts are sent when it ends, and we have waited for that.
    assert database.sql(f"select pg_stat_force_next_flush(); {read}").split() == ["0"]


async def test_null_keys_that_no_index_finds_are_refused_by_the_sweep(database, opening):
    database.sql(
        "create table t (id text, created_at timestamptz, data bytea); insert into t values (null, '2020-01-01', '')"
    )
    async with opening() as source:
        facts = await source.describe(spec())
        with pytest.raises(SourceUnfitError, match="1 rows have a NULL in their key"):
            await sweep_all(source, spec(), facts)
        with pytest.raises(SourceUnfitError, match="1 rows have a NULL in their key"):
            await scan_all(source, spec(), facts)


async def test_writers_are_running_and_prepared_transactions_begun_before(database, opening):
    async with opening() as source:
        calm = await source.writers_before(CUTOFF_US)
        database.sql(TABLE + "begin; insert into t values ('p', now(), ''); prepare transaction 'the gid'")
        try:
            busy = await source.writers_before(CUTOFF_US)
        finally:
            database.sql("rollback prepared 'the gid'")
        ended = await source.writers_before(CUTOFF_US)
    assert (calm.pids, calm.prepared, calm.visible, calm.in_recovery) == ((), (), True, False)
    assert busy.prepared == ("the gid",)
    assert ended.prepared == ()
    assert calm.now_us < busy.now_us < ended.now_us


async def test_a_running_writer_is_seen_by_its_pid_until_it_ends(database, opening):
    database.sql(TABLE)
    async with opening() as source, opening(database.dsn) as writer:
        facts = await writer.describe(spec())
        async with writer.scan(spec(), facts, cutoff_us=CUTOFF_US):
            busy = await source.writers_before(CUTOFF_US)
            before_it_began = await source.writers_before(0)
        ended = await source.writers_before(CUTOFF_US)
    assert len(busy.pids) == 1
    assert before_it_began.pids == ended.pids == ()


UNTRACKED = "?options=-c%20track_activities%3Doff"


@pytest.mark.parametrize("options", ["", UNTRACKED])
async def test_a_session_that_tracks_no_activities_leaves_writers_invisible(options, database, opening):
    async with opening() as source:
        async with opening(database.dsn + options):
            beside = await source.writers_before(CUTOFF_US)
        alone = await source.writers_before(CUTOFF_US)
    assert (beside.visible, alone.visible) == (options == "", True)


async def test_a_writer_that_hid_its_start_for_a_while_leaves_writers_invisible(database, opening):
    database.sql(TABLE)
    async with opening() as source, opening(connections=2) as writer:
        facts = await writer.describe(spec())
        (session,) = writer._fetching
        async with writer.scan(spec(), facts, cutoff_us=CUTOFF_US):
            for setting in ("off", "on"):
                sql = f"select set_config('track_activities', '{setting}', false)"
                await session.fetch(sql, operation="FETCH")
            hidden = await source.writers_before(CUTOFF_US)
    assert (hidden.pids, hidden.visible) == ((), False)


async def test_an_untracked_session_of_another_database_hides_no_writer(database, opening, postgres_server):
    async with opening() as source, opening(postgres_server.dsn("postgres") + UNTRACKED):
        assert (await source.writers_before(CUTOFF_US)).visible is True


async def test_our_own_scan_is_no_writer(database, opening):
    database.sql(TABLE)
    async with opening() as source:
        facts = await source.describe(spec())
        async with source.scan(spec(), facts, cutoff_us=CUTOFF_US):
            assert (await source.writers_before(CUTOFF_US)).pids == ()


async def test_the_session_can_not_write_and_names_the_migration(database, opening):
    database.sql(
        TABLE
        + "create function f() returns boolean language sql volatile as 'insert into public.t values (''x''); select true'"
    )
    async with opening() as source:
        wanted = spec(where="public.f()")
        facts = await source.describe(wanted)
        database.sql("insert into t values ('a', now(), '')")
        with pytest.raises(SourceUnfitError, match="cannot execute INSERT in a read-only transaction"):
            await sweep_all(source, wanted, facts)
        named = database.sql(
            "select distinct application_name from pg_stat_activity where datname = current_database() and application_name ~ 'backfillctl'"
        )
    assert named == "backfillctl test"
    assert database.sql("select count(*) from t where id = 'x'") == "0"
