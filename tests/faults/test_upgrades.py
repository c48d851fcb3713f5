"""A daemon of today goes on in mid-run with the journal that an older release left, killed while it upgrades it, too.

An older release can't be run here, so its journal is made of a present one: without the kinds of events, the tables
and the record of the schemas since. The shapes of older events are tests/journal/test_schema_migration.py's.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from journal.events import CHAIN_START, link
from journal.log import Journal
from journal.schema import GUARDS, SCHEMA_VERSION
from tests.faults.counting_proxy import CountingProxy
from tests.faults.waiting import eventually
from tests.faults.watched import Watched, run_to_the_end
from tests.faults.worlds import PROBE, World

GOLDEN = Path(__file__).parents[1] / "journal" / "golden"
TABLES_SINCE = {
    1: ("movement", "retry", "sample", "spent", "slow_down", "verification"),
    2: ("verification",),
}
"""Tables that later schemas added, by the version that lacks them."""


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def age(path: Path, version: int) -> None:
    """Turn a journal into what the release of an older schema would have left, by the events that its golden one has."""
    with closing(sqlite3.connect(f"file:{GOLDEN}/schema-{version}.db?immutable=1", uri=True)) as golden:
        known = {kind for (kind,) in golden.execute("SELECT DISTINCT kind FROM event")}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for name in GUARDS:
            connection.execute(f"DROP TRIGGER {name}")
        events = connection.execute(
            "SELECT ts, kind, version, source, data FROM event ORDER BY seq"
        ).fetchall()
        connection.execute("DELETE FROM event")
        chain = CHAIN_START
        for seq, event in enumerate((each for each in events if each[1] in known), start=1):
            chain = link(chain, seq, *event)
            connection.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", (seq, *event, chain))
        for trigger in GUARDS.values():
            connection.execute(trigger)
    Journal.rebuild(path, now_us=1)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in TABLES_SINCE[version]:
            connection.execute(f"DROP TABLE {table}")
        names = [name for (name,) in connection.execute("SELECT name FROM _sqlite_migrations ORDER BY name")]
        for name in names[version:]:
            connection.execute("DELETE FROM _sqlite_migrations WHERE name = ?", (name,))
        connection.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_run_that_an_older_release_began_is_upgraded_and_ends_right_even_if_the_upgrade_is_killed(
    world: World, proxy: CountingProxy, version: int
) -> None:
    (table,) = world.tables
    world.fill(table, 300)
    world.upload = {"concurrency": 8, "key_batch_size": 100}
    watched = Watched.of(world, concurrency=8)
    with world.daemon() as daemon:
        world.until_settled(daemon, 1)
        proxy.hold(lambda key: not key.endswith(PROBE))
        world.until_held(daemon, 8)
        assert daemon.kill()
    proxy.release()
    eventually(lambda: not proxy.waiting(), "the proxy lets go")
    watched.note_death(watched.check())
    age(world.journal, version)
    backup = world.journal.with_name(f"journal.db.before-schema-{version + 1}")
    refused = world.command("status")
    assert (refused.returncode, "backfillctl journal rebuild" in refused.stderr) == (7, True), refused.stderr
    with world.daemon() as daemon:
        eventually(backup.exists, "the backup before the upgrade")
        daemon.kill()
    watched.note_death(world.ledger())
    assert version_of(world.journal) in {version, SCHEMA_VERSION}
    run_to_the_end(watched)
    assert (version_of(world.journal), version_of(backup)) == (SCHEMA_VERSION, version)
    upgrades = [data for _, data in world.ledger().of_kind("schema_migrated")]
    assert len(upgrades) <= 1, (
        "an upgrade that was killed before its commit is made again, one after it is not"
    )
    assert {upgrade["from"] for upgrade in upgrades} <= {version}
