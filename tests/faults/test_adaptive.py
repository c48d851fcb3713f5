"""A real daemon before a real bucket that asks to slow down now and then: why it did is on record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.dashboards.faulty_proxy import FaultyProxy
from tests.faults.worlds import Table, World
from tests.s3_servers import S3Server

ROWS = 600


@pytest.fixture
def slowed(database: Database, weed: S3Server, tmp_path: Path) -> Iterator[World]:
    """A table whose keys that end in 7 meet one 503 each."""
    with FaultyProxy(weed.port, lost="nothing") as proxy:
        world = World(tmp_path, database.dsn, database.sql, weed, [Table("rows")], proxy=proxy)
        world.sql(
            "create table public.rows (id text primary key, created_at timestamptz, data bytea);"
            " insert into public.rows select 'k' || n, timestamptz '2024-05-01 12:00Z', 'v'"
            f" from generate_series(1, {ROWS}) n; analyze public.rows"
        )
        yield world


def test_a_503_halves_the_uploads_at_once_and_log_events_and_explain_say_so(slowed: World) -> None:
    with slowed.daemon() as daemon:
        assert daemon.exit_code() == 0
        output = daemon.output()
    slowed.assert_copied()
    done = slowed.command("events", "--kind", "concurrency_changed", "--json")
    changes = [json.loads(line)["data"] for line in done.stdout.splitlines()]
    cut = next(change for change in changes if change["cause"] == "s3_slow_down")
    assert cut["to"] < cut["from"]
    assert (cut["ceiling"], cut["cuts"] >= 1) == (64, True)
    assert "uploads at once: " in output
    assert "by S3 503" in output
    assert "by S3 503" in slowed.command("events", "--kind", "concurrency_changed").stdout
    key = slowed.ledger().plan[cut["ordinal"]].row_key
    assert key.endswith("7")
    assert "concurrency_changed: " in slowed.command("explain", key).stdout


def test_a_fixed_concurrency_stays_as_it_is(slowed: World) -> None:
    slowed.upload = {"adaptive": False}
    with slowed.daemon() as daemon:
        assert daemon.exit_code() == 0
    assert slowed.ledger().of_kind("concurrency_changed") == []
