"""Planning of tables that PostgreSQL changes meanwhile, judged by a checker that asks the server itself."""

from __future__ import annotations

import random
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from daemon.config import PostgresConfig
from daemon.errors import SourceUnfitError
from daemon.source import PostgresSource, open_source
from tests.planning.migration import CUTOFF_US, Migration, drive, planner, spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daemon.config import SourceConfig
    from daemon.rows import SweptRange
    from journal.log import Journal

ROWS = 400
CUTOFF = f"to_timestamp({CUTOFF_US // 1_000_000})"
TABLE = "create table t (id text primary key, created_at timestamptz not null, data bytea not null, pad text)"
FILL = (
    f"insert into t select 'k' || n, {CUTOFF} - n % 50 * interval '1 s', decode(repeat('ab', n % 7), 'hex'),"
    f" repeat('x', 300) from generate_series(1, {ROWS}) n"
)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.scanning.RANGE_BLOCKS_FIRST", 2)
    monkeypatch.setattr("daemon.planning.RANGE_BLOCKS_MAX", 2)


class MeddledWith:
    """A real source; `meddle` runs after each range of a sweep, with the range's number from 1."""

    def __init__(self, inner: PostgresSource, meddle: Callable[[int], None]) -> None:
        self._inner = inner
        self._meddle = meddle
        self._ranges = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def sweep_range(self, *arguments: Any, **named: Any) -> SweptRange:
        swept = await self._inner.sweep_range(*arguments, **named)
        self._ranges += 1
        self._meddle(self._ranges)
        return swept


class OpenTransaction:
    """A session of psql with a transaction open."""

    def __init__(self, database: Any) -> None:
        self._psql = subprocess.Popen(
            [database.server.psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", database.dsn],
            env=database.server.client_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.run("begin")

    def run(self, statement: str) -> None:
        assert self._psql.stdin is not None
        assert self._psql.stdout is not None
        self._psql.stdin.write(f"{statement}; select 'done';\n")
        self._psql.stdin.flush()
        while (line := self._psql.stdout.readline()).strip() != "done":
            assert line, "psql ended"

    def end(self) -> None:
        self._psql.communicate()


@contextmanager
def open_transaction(database: Any) -> Iterator[OpenTransaction]:
    transaction = OpenTransaction(database)
    try:
        yield transaction
    finally:
        transaction.end()


def opened(database: Any) -> Any:
    return open_source(
        PostgresConfig(dsn=database.dsn), migration="test", give_up_after=5.0, random=random.Random(1)
    )


def in_scope(database: Any, where: str = f"created_at < {CUTOFF}") -> dict[str, int]:
    """Row keys and sizes that belong to the migration, as the server tells them by the rule alone."""
    lines = database.sql(f"select id || ' ' || octet_length(data) from t where {where}").split("\n")
    return {key: int(size) for key, size in (line.split(" ") for line in lines if line)}


def latest(journal: Journal, keys: dict[str, int]) -> dict[str, int]:
    source = journal.sources["t"].id
    return {key: known.size for key, known in journal.latest(source, list(keys)).items()}


def churn(database: Any, late: OpenTransaction, seed: int) -> Callable[[int], None]:
    """Return a `meddle` that changes the table in every way that planning must bear."""
    dice = random.Random(seed)

    def meddle(number: int) -> None:
        victim = f"'k{dice.randrange(1, ROWS)}'"
        if number == 5:
            database.sql("vacuum full t")
            # Only now: its lock would keep VACUUM FULL waiting.
            late.run(f"insert into t values ('uncommitted', {CUTOFF} - interval '1 s', '\\x0102')")
            return
        database.sql(
            f"update t set data = data || '\\x01', pad = pad || 'y' where id = {victim};"
            f"delete from t where id = 'k{dice.randrange(1, ROWS)}';"
            f"insert into t values ('late{number}', {CUTOFF} - interval '1 h', '\\x00');"
            f"update t set id = id || 'm' where id = 'k{dice.randrange(1, ROWS)}'"
        )
        if number % 3 == 0:
            # Rows of the far end may now move into free room of blocks that have been read.
            database.sql(
                "delete from t where id in (select id from t order by ctid limit 30); vacuum t;"
                "update t set pad = pad || 'z' where id in (select id from t order by ctid desc limit 30)"
            )

    return meddle


@pytest.mark.parametrize("seed", range(3))
async def test_every_row_in_scope_is_planned_while_the_table_changes(
    seed: int, database: Any, tmp_path: Path
) -> None:
    database.sql(f"{TABLE}; {FILL}")
    migration = Migration(tmp_path / "journal.db")
    with open_transaction(database) as late, migration.journal() as journal:
        async with opened(database) as inner:
            source = MeddledWith(inner, churn(database, late, seed))
            await planner(journal, source).plan([spec()])
            drive(journal, "t")
            late.run("commit")
            await planner(journal, source).close_source(spec())
            drive(journal, "t")
        checked = in_scope(database)
        assert "uncommitted" in checked
        assert latest(journal, checked) == checked
        assert journal.sources["t"].proven


async def test_the_closing_snapshot_waits_for_a_transaction_that_began_before_the_cutoff(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.planning.WAIT_SECONDS_MAX", 0.05)
    database.sql(f"{TABLE}; {FILL}")
    migration = Migration(tmp_path / "journal.db", cutoff_us=None)
    waits: list[str] = []
    with open_transaction(database) as late, migration.journal() as journal:
        late.run("insert into t values ('late', now(), '\\x01')")

        def on_wait(_source: str, reason: str) -> None:
            waits.append(reason)
            late.run("commit")

        async with opened(database) as source:
            await planner(journal, source).plan([spec()])
            assert "late" not in {key.row_key for key in drive(journal, "t")}
            await planner(journal, source, on_wait=on_wait).close_source(spec())
            assert [key.row_key for key in drive(journal, "t")] == ["late"]
    assert len(waits) == 1
    assert "transactions from before the cutoff are open" in waits[0]


async def test_rows_that_move_between_partitions_are_planned(database: Any, tmp_path: Path) -> None:
    database.sql(
        "create table t (id text, created_at timestamptz not null, data bytea, part int, primary key (id, part))"
        " partition by list (part); create table t1 partition of t for values in (1);"
        "create table t2 partition of t for values in (2); create table t3 partition of t for values in (3);"
        f"insert into t select 'k' || n, {CUTOFF} - interval '1 d', '\\x00', 1 + n % 3 from generate_series(1, 600) n"
    )
    given = spec(key=("id", "part"))
    migration = Migration(tmp_path / "journal.db", sources=(given,))

    def meddle(number: int) -> None:
        database.sql(f"update t set part = 1 where part = 3 and id like 'k{number}%'")

    with migration.journal() as journal:
        async with opened(database) as inner:
            source = MeddledWith(inner, meddle)
            await planner(journal, source).plan([given])
            await planner(journal, source).close_source(given)
        expected = database.sql("select array_to_json(array[id, part::text])::text from t").split("\n")
        found = latest(journal, dict.fromkeys([line for line in expected if line], 0))
        assert len(found) == 600


async def test_a_rewritten_table_is_swept_again_whole(database: Any, tmp_path: Path) -> None:
    database.sql(f"{TABLE}; {FILL}; delete from t where ctid < '(4,0)'")
    migration = Migration(tmp_path / "journal.db")

    def meddle(number: int) -> None:
        if number == 4:
            database.sql("vacuum full t")

    with migration.journal() as journal:
        async with opened(database) as inner:
            await planner(journal, MeddledWith(inner, meddle)).plan([spec()])
        keys = drive(journal, "t")
    assert {key.row_key: key.size for key in keys} == in_scope(database)


@pytest.mark.parametrize(
    ("made", "given"),
    [
        ("create view v as select * from t", {"table_name": "v"}),
        ("alter table t drop constraint t_pkey; create index on t (id)", {}),
        ("", {"created_at": None}),
    ],
    ids=["view", "no unique index", "no created_at"],
)
async def test_one_snapshot_plans_what_can_not_be_swept(
    made: str, given: dict[str, Any], database: Any, tmp_path: Path
) -> None:
    database.sql(f"{TABLE}; {FILL}; {made}")
    config: SourceConfig = spec("t", **given)
    migration = Migration(tmp_path / "journal.db")
    with migration.journal() as journal:
        async with opened(database) as source:
            await planner(journal, source).plan([config])
            await planner(journal, source).close_source(config)
        keys = drive(journal, "t")
    expected = in_scope(database, "true" if config.created_at is None else f"created_at < {CUTOFF}")
    assert {key.row_key: key.size for key in keys} == expected
    assert len(keys) == len(expected)


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ("insert into t select * from t where id = 'k7'", "repeat the key of another, such as 'k7'"),
        ("insert into t values (null, '2001-01-01', '')", "NULL"),
    ],
)
async def test_keys_that_are_not_unique_or_null_are_refused(
    made: str, problem: str, database: Any, tmp_path: Path
) -> None:
    database.sql(
        f"{TABLE}; {FILL}; alter table t drop constraint t_pkey; alter table t alter id drop not null;"
        f"create index on t (id); {made}"
    )
    with Migration(tmp_path / "journal.db").journal() as journal:
        async with opened(database) as source:
            with pytest.raises(SourceUnfitError, match=problem):
                await planner(journal, source).plan([spec()])
        assert journal.counts()["t"].planned_rows == 0
        assert journal.open_pass(1) is None
