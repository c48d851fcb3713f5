from __future__ import annotations

import pytest

from daemon.demo.postgres import EmbeddedPostgres
from daemon.errors import ExitCode, RefusedError, SourceUnfitError
from tests.source.sources import TABLE, spec


async def refusal(opening, wanted, kind=SourceUnfitError, dsn=None):
    async with opening(dsn) as source:
        with pytest.raises(kind) as caught:
            await source.describe(wanted)
    return caught.value


async def test_facts_tell_kind_heaps_types_and_the_proving_index(database, opening):
    database.sql(TABLE + "insert into t select i::text, now(), '' from generate_series(1, 2000) i; analyze t")
    oid = int(database.sql("select 't'::regclass::oid"))
    async with opening() as source:
        facts = await source.describe(spec())
    assert (facts.oid, facts.kind, facts.relations) == (oid, "table", (oid,))
    assert facts.blocks == {oid: int(database.sql("select pg_relation_size('t') / 8192"))}
    assert (facts.key_types, facts.value_type) == (("text",), "bytea")
    assert (facts.created_at_type, facts.estimated_rows) == ("timestamp with time zone", 2000)
    assert facts.unique == "public.t_pkey"


async def test_rows_are_unknown_before_the_first_analyze(database, opening):
    database.sql(TABLE)
    async with opening() as source:
        assert (await source.describe(spec())).estimated_rows == -1


async def test_server_facts_name_the_node(database, opening, postgres_server):
    async with opening() as source:
        server = await source.server()
    assert server.system_identifier == database.sql("select system_identifier from pg_control_system()")
    assert (server.timeline, server.database) == (1, database.name)
    assert (server.address, server.in_recovery) == (f"127.0.0.1:{postgres_server.port}", False)
    assert server.version // 10000 == 18


async def test_a_missing_table_is_named(opening, database):
    error = await refusal(opening, spec("missing"))
    assert f'"public"."missing"): database {database.name} has no such table' in error.problem
    assert error.exit_code == ExitCode.USAGE


async def test_every_problem_of_a_source_is_told_at_once(database, opening):
    database.sql('create table t (id char(8), "when" timestamp, data jsonb, created_at int)')
    wanted = spec(key=("id", "nokey"), metadata=("nometa",), created_at_zone="Mars/Olympus")
    problem = (await refusal(opening, wanted)).problem
    assert [line.partition("): ")[2][:40] for line in problem.splitlines()] == [
        "no column 'nokey'; it has created_at, da",
        "no column 'nometa'; it has created_at, d",
        "key column 'id' is of type character, wh",
        "value column 'data' is of type jsonb; ex",
        "created_at column 'created_at' is of typ",
        "the server knows no time zone 'Mars/Olym",
    ]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("char(8)", "character, which pads"),
        ("real", "real, which has no exact text"),
        ("double precision", "double precision, which has no exact text"),
        ("timestamptz", "timestamp with time zone, which"),
        ("timestamp", "timestamp without time zone, which"),
        ("numeric", "numeric; expected"),
        ("int[]", "integer[]; expected"),
    ],
)
async def test_a_key_of_a_type_without_one_exact_text_is_refused_by_name(kind, reason, database, opening):
    database.sql(f"create table t (id {kind} primary key, created_at timestamptz, data bytea)")
    assert f"key column 'id' is of type {reason}" in (await refusal(opening, spec())).problem


async def test_a_timestamp_without_zone_asks_for_the_zone(database, opening):
    database.sql("create table t (id int primary key, created_at timestamp, data bytea)")
    error = await refusal(opening, spec())
    assert "names no instant" in error.problem
    assert "created_at_zone" in error.hint


async def test_a_zone_for_a_timestamp_that_has_one_is_refused(database, opening):
    database.sql(TABLE)
    assert "created_at_zone has no meaning" in (await refusal(opening, spec(created_at_zone="UTC"))).problem


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("kind = 'x'", 'column "kind" does not exist'),
        ("data", "must be type boolean"),
        ("id = ", "syntax error"),
        ("true); drop table t; --", "syntax error"),
    ],
)
async def test_a_where_that_the_server_refuses_is_shown_with_its_reason(where, reason, database, opening):
    database.sql(TABLE)
    problem = (await refusal(opening, spec(where=where))).problem
    assert repr(where) in problem
    assert reason in problem
    assert database.sql("select to_regclass('t') is not null") == "t"


@pytest.mark.parametrize(
    ("index", "proof"),
    [
        ("create unique index i on t (a, b)", "public.i"),
        ("create unique index i on t (b)", "public.i"),
        ("create unique index i on t (a, b) include (data)", "public.i"),
        ("create unique index i on t (a, b, c)", None),
        ("create unique index i on t (a, b) where c > 0", None),
        ("create unique index i on t (a, (b || ''))", None),
        ("create index i on t (a, b)", None),
    ],
)
async def test_only_a_whole_unique_index_within_the_key_proves_it(index, proof, database, opening):
    database.sql(
        f"create table t (a int not null, b text not null, c int, created_at timestamptz, data bytea); {index}"
    )
    async with opening() as source:
        assert (await source.describe(spec(key=("a", "b")))).unique == proof


async def test_a_unique_index_of_a_partitioned_table_proves_the_key(database, opening):
    database.sql(
        "create table t (id int primary key, created_at timestamptz, data bytea) partition by hash (id);"
        "create table t1 partition of t for values with (modulus 1, remainder 0)"
    )
    async with opening() as source:
        facts = await source.describe(spec())
        assert (facts.unique, len(facts.relations)) == ("public.t_pkey", 1)
        await source.check_fetch_plan(spec(), facts)


async def test_a_key_without_an_index_is_refused_by_the_plan(database, opening):
    database.sql("create table t (id text, part int, created_at timestamptz, data bytea)")
    for key in [("id",), ("id", "part")]:
        async with opening() as source:
            facts = await source.describe(spec(key=key))
            with pytest.raises(
                SourceUnfitError, match=r"no index serves to fetch rows by id.*Seq Scan on t"
            ) as caught:
                await source.check_fetch_plan(spec(key=key), facts)
        assert "--allow-seqscan" in caught.value.hint


async def test_the_plan_of_an_empty_indexed_table_passes(database, opening):
    database.sql(
        "create table t (id text, part int, created_at timestamptz, data bytea, primary key (id, part))"
    )
    async with opening() as source:
        for key in [("id",), ("id", "part")]:
            await source.check_fetch_plan(spec(key=key), await source.describe(spec(key=key)))


@pytest.fixture
def reader(database, postgres_server):
    """A role that may connect and nothing else."""
    role = f"{database.name}_reader"
    database.sql(f"create role {role} login password 'secret'")
    yield role
    database.sql(f"drop owned by {role}; drop role {role}")


async def test_missing_rights_are_a_refusal_that_names_the_grants(database, opening, reader):
    database.sql(
        "create schema s; create table s.t (id text primary key, created_at timestamptz, data bytea)"
    )
    dsn = database.dsn_of(reader, "secret")
    error = await refusal(opening, spec(schema_name="s"), RefusedError, dsn)
    assert error.exit_code == ExitCode.REFUSED
    assert "has no USAGE on its schema" in error.problem
    assert f"{reader} has no SELECT on column 'data'" in error.problem
    assert f'GRANT SELECT ON "s"."t" TO {reader}' in error.hint


async def test_rights_on_the_needed_columns_suffice(database, opening, reader):
    database.sql(
        TABLE + f"alter table t add secret text; grant select (id, created_at, data) on t to {reader}"
    )
    async with opening(database.dsn_of(reader, "secret")) as source:
        facts = await source.describe(spec())
        await source.check_fetch_plan(spec(), facts)
        server = await source.server()
        writers = await source.writers_before(0)
    assert server.system_identifier
    assert writers.visible is False


async def test_pg_read_all_stats_makes_writers_visible(database, opening, reader):
    database.sql(f"grant pg_read_all_stats to {reader}")
    async with opening(database.dsn_of(reader, "secret")) as source:
        assert (await source.writers_before(0)).visible is True


async def test_row_level_security_that_would_hide_rows_is_refused(database, opening, reader):
    database.sql(
        TABLE
        + f"alter table t enable row level security; create policy p on t using (id <> 'hidden'); grant select on t to {reader}"
    )
    dsn = database.dsn_of(reader, "secret")
    error = await refusal(opening, spec(), RefusedError, dsn)
    assert f"row-level security would hide rows from {reader}" in error.problem
    assert "BYPASSRLS" in error.hint


async def test_row_level_security_below_a_view_is_refused(database, opening, reader):
    database.sql(
        TABLE + "alter table t enable row level security; create policy p on t using (id <> 'hidden');"
        f"create view v with (security_invoker) as select * from t; grant select on t, v to {reader}"
    )
    error = await refusal(opening, spec("v"), RefusedError, database.dsn_of(reader, "secret"))
    assert "row-level security" in error.problem


async def test_leaves_that_may_not_be_read_by_themselves_are_read_through_their_parent(
    database, opening, reader
):
    database.sql(
        "create table t (id int primary key, created_at timestamptz, data bytea) partition by hash (id);"
        f"create table t1 partition of t for values with (modulus 1, remainder 0); grant select on t to {reader}"
    )
    async with opening(database.dsn_of(reader, "secret")) as source:
        assert (await source.describe(spec())).relations == ()


async def test_a_nondeterministic_collation_is_refused(debian_binaries, opening):
    with EmbeddedPostgres(binaries=debian_binaries) as server:
        server.sql(
            "create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
            "create table t (id text collate loose primary key, created_at timestamptz, data bytea)"
        )
        error = await refusal(opening, spec(), dsn=server.dsn())
    assert "key column 'id' has a nondeterministic collation" in error.problem
