from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.demo.postgres import EmbeddedPostgres
from tests.attest.test_attest import not_met
from tests.cli import conftest as cli
from tests.cli.migrations import ROWS, TABLE, Migration
from tests.conftest import Database
from tests.s3_servers import RunningServers

NEVER_REACHED = "FFFF/0"


@pytest.fixture
def primary() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres() as server:
        server.sql(f"{TABLE}; {ROWS}; analyze attachments")
        yield server


@pytest.fixture
def standby(primary: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(standby_of=primary) as server:
        yield server


def test_on_a_standby_it_is_no_go_unless_replay_is_past_the_primarys_last_write(
    primary: EmbeddedPostgres,
    standby: EmbeddedPostgres,
    database: Database,
    s3_servers: RunningServers,
    invoke: cli.Invoke,
    write_config: cli.WriteConfig,
    tmp_path: Path,
) -> None:
    with cli.in_this_process(database, invoke, write_config, tmp_path) as made:
        migration: Migration = made(s3_servers.get("weed"))
        migration.changes["dsn"] = standby.dsn()
        assert migration("plan").returncode == 0
        primary.sql("create table anything ()")
        last_write = primary.sql("select pg_current_wal_lsn()")
        primary.sql("drop table anything")
        done = migration("run")
        assert done.returncode == 0, done.stderr
        assert migration("verify").returncode == 0
        assert set(not_met(migration)) == {"standby", "attachments: closed"}
        assert list(not_met(migration, "--accept-unproven")) == ["standby"]
        assert not_met(migration, "--accept-unproven", "--primary-lsn", last_write) == {}
        failed = not_met(migration, "--accept-unproven", "--primary-lsn", NEVER_REACHED)
        assert failed["standby"].endswith(f"the primary had written up to {NEVER_REACHED}")
