"""A daemon of today goes on in mid-run with the journal that an older release left, killed while it upgrades it, too.

The older release is itself: the last commit of each schema, out of this repository's history. The events that its run
has no occasion for are tests/journal/test_schema_migration.py's, on the golden journals.
"""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from journal.schema import SCHEMA_VERSION
from tests.faults.counting_proxy import CountingProxy
from tests.faults.waiting import eventually
from tests.faults.watched import Watched, run_to_the_end
from tests.faults.worlds import ROOT, World, is_row

LAST_OF = {
    1: "626146a6717d0226657ab3e0b218b6ae1c7b2467",
    2: "a3c06f350161e69cb91c03b43596e0176a51c73b",
}
"""The last commit that wrote a schema, by its version."""


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_out(version: int, to: Path) -> Path:
    """Lay the last release of a schema out, as a tree to be put on Python's path."""
    if not (ROOT / ".git").exists() or git("cat-file", "-e", LAST_OF[version]).returncode:
        pytest.skip(f"NOT TESTED: no commit {LAST_OF[version]} here: a clone with its history has it")
    made = git("archive", LAST_OF[version], "daemon", "journal")
    assert made.returncode == 0, made.stderr
    to.mkdir()
    subprocess.run(["tar", "-x", "-C", str(to)], input=made.stdout, check=True)
    return to


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)


def test_the_last_commit_of_each_older_schema_is_known() -> None:
    assert set(LAST_OF) == set(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_run_that_an_older_release_began_is_upgraded_and_ends_right_even_if_the_upgrade_is_killed(
    world: World, proxy: CountingProxy, tmp_path: Path, version: int
) -> None:
    world.variables = {"PYTHONPATH": str(check_out(version, tmp_path / "older"))}
    (table,) = world.tables
    world.fill(table, 300)
    world.upload = {"concurrency": 8, "key_batch_size": 100}
    watched = Watched.of(world, concurrency=8)
    proxy.hold(is_row, after=1)
    with world.daemon() as daemon:
        world.until_settled(daemon, 1)
        world.until_held(daemon, 8)
        assert daemon.kill()
    proxy.release()
    eventually(lambda: not proxy.waiting(), "the proxy lets go")
    assert version_of(world.journal) == version
    watched.note_death(world.ledger())
    world.variables = {}
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
