"""`run --dry-run` says what a resume will do; then the resume does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from daemon.demo.seaweed import signed_request
from tests.faults.worlds import World

ROWS = 900
LEFT_ALONE = ["journal.db", "journal.db-wal", "backfill.toml"]
"""SQLite's shared memory apart, which every reader of a killed journal makes anew."""


def preview(world: World) -> dict[str, Any]:
    done = world.command("run", "--dry-run", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def asked(world: World, method: str, key: str, body: bytes = b"") -> None:
    server = world.server
    status, _ = signed_request(
        server.port,
        method,
        f"/{server.bucket}/{quote(key)}",
        body,
        access_key=server.access_key,
        secret_key=server.secret_key,
    )
    assert status < 300


def contents(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in LEFT_ALONE}


def events_after(world: World, seq: int, kind: str) -> list[Any]:
    return [data for number, _, found, _, data in world.ledger().events if number > seq and found == kind]


def keys_of(events: list[Any]) -> list[int]:
    return [ordinal for data in events for ordinal in data["ordinals"]]


def test_what_a_dry_run_says_of_a_killed_migration_is_what_its_resume_then_does(world: World) -> None:
    (table,) = world.tables
    world.fill(table, ROWS)
    world.upload = {"concurrency": 8, "key_batch_size": 40}
    world.throttle = {"rows_per_second": 60}
    foreign = world.object_key("rows", "897-row")
    asked(world, "PUT", foreign, b"another's")
    with world.daemon() as daemon:
        world.until_recorded(daemon, "key_parked")
        world.until_settled(daemon, 200)
        alive = preview(world)
        assert daemon.kill()
    assert (alive["owned"], alive["state"]) == (True, "running")
    assert alive["settings_changed"] == []
    world.throttle = {}
    world.configure()
    objects = world.bucket.listing(world.prefix)
    before = contents(world.directory)
    document = preview(world)
    assert contents(world.directory) == before
    assert world.bucket.listing(world.prefix) == objects

    assert document["settings_changed"] == ["throttle.rows_per_second: 60, now not set"]
    (source,) = document["sources"]
    left = world.ledger()
    head = document["head_seq"]
    assert (document["state"], document["owned"], head) == ("killed", False, left.events[-1][0])
    assert source["in_flight"]["keys"] == len(left.in_flight) > 0
    assert source["settled"] == len(left.outcomes) >= 200
    assert {failure: group["keys"] for failure, group in source["parked"].items()} == {"foreign_object": 1}
    assert (source["half_sealed"], source["open_pass"], source["closed_seq"]) == (None, None, None)
    kinds = {number: kind for number, _, kind, _, _ in left.events}
    for group, kind in (
        (source["in_flight"], "keys_claimed"),
        (source["unclaimed"], "chunk_sealed"),
        (source["parked"]["foreign_object"], "key_parked"),
    ):
        assert {kinds[group["first_seq"]], kinds[group["last_seq"]]} == {kind}
    assert kinds[source["claimed_seq"]] == "keys_claimed"
    assert max(number for number, kind in kinds.items() if kind == "keys_claimed") == source["claimed_seq"]

    with world.daemon() as daemon:
        assert daemon.exit_code() == 3
    ledger = world.ledger()
    assert sorted(keys_of(events_after(world, head, "keys_recovered"))) == sorted(left.in_flight)
    claimed = sum(data["hi"] + 1 - data["lo"] for data in events_after(world, head, "keys_claimed"))
    assert claimed == source["unclaimed"]["keys"]
    settled = {entry[0] for data in events_after(world, head, "outcomes_recorded") for entry in data}
    assert not settled & set(left.outcomes)
    assert len(settled) == source["driven"]
    assert len(ledger.parked) == 1
    assert events_after(world, head, "source_closed")

    again = preview(world)
    assert (again["driven"], again["state"]) == (0, "complete_with_parked")
    asked(world, "DELETE", foreign)
    assert world.command("requeue", "--all").returncode == 0
    requeued = preview(world)
    assert requeued["driven"] == 1
    assert list(requeued["sources"][0]["waiting"]) == ["keys_requeued"]
    with world.daemon() as daemon:
        assert daemon.exit_code() == 0
    done = preview(world)
    assert done["driven"] == 0
    assert ledger.events[-1][0] < done["completed_seq"]
    world.assert_copied()
