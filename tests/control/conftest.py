"""Fixtures of the control tests: a real daemon that copies from a real table to a real bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Database
from tests.faults.worlds import Table, World
from tests.s3_servers import RunningServers, S3Server

ROWS = 200


@pytest.fixture
def weed(s3_servers: RunningServers) -> S3Server:
    return s3_servers.get("weed")


@pytest.fixture
def world(database: Database, weed: S3Server, tmp_path: Path) -> World:
    """One table "rows" of ROWS rows, straight to the shared S3 server."""
    world = World(tmp_path, database.dsn, database.sql, weed, [Table("rows")])
    world.fill(world.tables[0], ROWS)
    return world


@pytest.fixture
def paused(world: World) -> World:
    """A planned migration that is paused: its daemon starts and copies nothing until it is told to."""
    assert world.command("plan").returncode == 0
    assert world.command("pause").returncode == 0
    return world
