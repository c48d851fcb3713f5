"""Judges a run: the raw journal, the bucket and the table's history, held against each other.

None of the program's query code is used, but where it is itself judged (the checkpoint).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import defaultdict
from typing import TYPE_CHECKING

from daemon.errors import ExitCode
from journal import queries
from journal.checkpoint import Order
from journal.maintenance import check
from tests.simulation.observer import Observer, Outcome, Planned, ensure
from tests.simulation.s3_end import PROBE
from tests.simulation.worlds import effective, object_key

if TYPE_CHECKING:
    from daemon.config import SourceConfig
    from tests.simulation.simulation import Simulation

STATES = {"S": "stored", "R": "recovered", "P": "present", "K": "skipped", "V": "vanished"}


def outcome(simulation: Simulation, ordinal: int, planned: Planned, found: Outcome) -> None:
    """I2, when an outcome is committed: the object is there, with bytes that the row has had."""
    simulation.reached[f"outcome {STATES[found.code]}"] += 1
    if planned.supersedes is not None:
        simulation.reached["key planned again"] += 1
    spec = _spec_of(simulation, planned.source)
    _check_object(simulation, spec, planned.row_key, found, f"ordinal {ordinal}")
    if found.code == "V":
        absent = simulation.history.was_absent(spec.name, planned.row_key)
        ensure(absent, f"{planned.row_key!r} is recorded as vanished and always existed")


def _check_object(simulation: Simulation, spec: SourceConfig, row_key: str, found: Outcome, who: str) -> None:
    stored = simulation.s3.current(spec.bucket, object_key(spec, row_key))
    if found.code == "K":
        ensure(simulation.world.config.s3.existing == "skip", f"{who} skipped")
        ensure(stored is not None, f"{who} skipped without an object")
    if found.code not in "SRP":
        return
    if stored is None:
        ensure(False, f"{who} is {STATES[found.code]}, and nothing is under {object_key(spec, row_key)!r}")
        return
    md5 = hashlib.md5(stored.body).hexdigest()
    told = f"{who} is {STATES[found.code]} with MD5 {found.md5}, {found.size} bytes"
    ensure(
        (md5, len(stored.body)) == (found.md5, found.size),
        f"{told}; the object has {md5}, {len(stored.body)}",
    )
    ensure(
        stored.body in simulation.history.values(spec.name, row_key),
        f"{told}: a value that the row never had",
    )
    ours = "backfill-migration" in stored.metadata
    ensure(ours is (found.code != "P"), f"{told}, and the object is {'ours' if ours else 'foreign'}")
    if ours:
        ensure(stored.metadata.get("backfill-md5") == md5, f"{told}: its metadata says otherwise")


def honest(simulation: Simulation, code: ExitCode) -> None:
    """I12: the exit code says what the log says."""
    observer = simulation.observer
    parked = {ordinal for ordinal in observer.unsettled if observer.state[ordinal] == "parked"}
    if code in {ExitCode.DONE, ExitCode.MISMATCH}:
        ensure(not observer.unsettled, f"exit {code} with {len(observer.unsettled)} keys unsettled")
        ensure(observer.all_closed, f"exit {code} with a source that is not closed")
    elif code is ExitCode.PARKED:
        ensure(parked and parked == observer.unsettled, "exit 3 with work left, or with nothing parked")
        ensure(observer.all_closed, "exit 3 with a source that is not closed")
    else:
        ensure(
            code in {ExitCode.TERMINATED, ExitCode.INTERRUPTED, ExitCode.STOPPED}, f"ended with {code.name}"
        )
        work_left = observer.unsettled or not observer.all_closed
        ensure(work_left or simulation.world.weather.verify, "stopped with nothing left to do")


def checkpoints(simulation: Simulation, connection: sqlite3.Connection) -> None:
    """I3: the safe checkpoint is the one found by looking at every key."""
    observer = simulation.observer
    if not observer.events:
        return
    order = Order(simulation.world.config.migration.order.value)
    keys: dict[int, list[tuple[tuple[int, int, list[int]], int]]] = defaultdict(list)
    for ordinal, planned in observer.plan.items():
        keys[planned.source].append((_place(order, planned), ordinal))
    for name, found in queries.checkpoints(connection, order).items():
        position: Planned | None = None
        unsettled: list[Planned] = []
        by_place = sorted(keys[observer.source_ids[name]])
        stop = min(
            (place for place, ordinal in by_place if observer.state[ordinal] != "settled"), default=None
        )
        for place, ordinal in by_place:
            if stop is None or place < stop:
                position = observer.plan[ordinal]
            if observer.state[ordinal] != "settled":
                unsettled.append(observer.plan[ordinal])
        told = None if found.position is None else (found.position.created_at, found.position.row_key)
        expected = None if position is None else (position.created_at, position.row_key)
        ensure(told == expected, f"the checkpoint of {name} is {told}, expected {expected}")
        dated = [planned.created_at for planned in unsettled if planned.created_at is not None]
        if found.cutoff_us is not None:
            simulation.reached["checkpoint with cutoff"] += 1
            missed = [at for at in dated if at >= found.cutoff_us]
            ensure(
                not missed, f"the ancestor's rule from {found.cutoff_us} misses unsettled keys of {missed}"
            )
        if found.floor_us is not None:
            simulation.reached["checkpoint with floor"] += 1
            missed = [at for at in dated if at <= found.floor_us]
            ensure(not missed, f"the mirror rule from {found.floor_us} misses unsettled keys of {missed}")
        if unsettled and found.complete:
            ensure(False, f"the checkpoint of {name} claims to be complete")


def _place(order: Order, planned: Planned) -> tuple[int, int, list[int]]:
    raw = list(planned.row_key.encode())
    if planned.created_at is None:
        return (1, 0, raw)
    if order is Order.OLDEST_FIRST:
        return (0, planned.created_at, raw)
    # Greater bytes first, and of two keys the longer first: 256 stands for the end.
    return (0, -planned.created_at, [-byte for byte in raw] + [1])


def on_disk(simulation: Simulation, connection: sqlite3.Connection) -> None:
    """I4, after each session: what was committed is there, nothing else is, and projections equal a fold."""
    observer = simulation.observer
    if not observer.events:
        return
    rows = connection.execute(
        "SELECT seq, ts, kind, version, source, data, chain FROM event ORDER BY seq"
    ).fetchall()
    ensure(rows == observer.events, f"{len(rows)} events on disk, {len(observer.events)} were committed")
    plan = connection.execute(
        "SELECT ordinal, row_key, created_at, size, supersedes FROM plan ORDER BY ordinal"
    )
    expected = [(ordinal, *planned[1:]) for ordinal, planned in sorted(observer.plan.items())]
    ensure(plan.fetchall() == expected, "the plan on disk differs from what was sealed")
    _check_projections(connection, observer)


def _check_projections(connection: sqlite3.Connection, observer: Observer) -> None:
    def table(statement: str) -> set[tuple[object, ...]]:
        return set(connection.execute(statement))

    outcomes = {(ordinal, found.code) for ordinal, found in observer.outcome.items()}
    ensure(table("SELECT ordinal, code FROM outcome") == outcomes, "table outcome")
    names = {"planned": "waiting", "in_flight": "claimed", "parked": "parked"}
    stragglers = {(ordinal, names[observer.state[ordinal]]) for ordinal in observer.stragglers}
    ensure(table("SELECT ordinal, state FROM straggler") == stragglers, "table straggler")
    claimed = {
        ordinal
        for lo, hi in connection.execute("SELECT lo, hi FROM claim").fetchall()
        for ordinal in range(lo, hi + 1)
        if observer.state[ordinal] == "in_flight" and ordinal not in observer.stragglers
    }
    ensure(claimed == observer.in_flight - observer.stragglers, "table claim")
    segments = {
        (number, s.source, s.state, s.lo, s.hi, s.frontier) for number, s in observer.segments.items()
    }
    ensure(table("SELECT id, source, state, lo, hi, frontier FROM segment") == segments, "table segment")
    ensure(table("SELECT id, closed FROM source") == set(observer.closed.items()), "table source")
    for source, planned, *settled in connection.execute(
        "SELECT source, planned_rows, stored, recovered, present, skipped, vanished FROM tally"
    ):
        found = [
            observer.outcome[o].code
            for o, p in observer.plan.items()
            if p.source == source and o in observer.outcome
        ]
        ensure(planned == sum(p.source == source for p in observer.plan.values()), "planned_rows")
        ensure(settled == [found.count(code) for code in "SRPKV"], "table tally")


def final(simulation: Simulation) -> None:
    """I1, I2, I5, I6 at the end of everything."""
    observer = simulation.observer
    newest = observer.newest()
    for (source, row_key), ordinal in newest.items():
        if observer.state[ordinal] == "settled":
            spec = _spec_of(simulation, source)
            _check_object(
                simulation, spec, row_key, observer.outcome[ordinal], f"at the end, ordinal {ordinal}"
            )
    for spec in simulation.world.config.sources:
        _check_nothing_lost(simulation, spec, newest)
    _check_bucket(simulation)
    ensure(
        simulation.s3.repeated <= simulation.claimed_at_deaths,
        f"{simulation.s3.repeated} uploads repeated, {simulation.claimed_at_deaths} keys were claimed at the deaths",
    )
    concurrency = simulation.world.config.upload.concurrency
    ensure(simulation.s3.in_flight_max <= concurrency, f"{simulation.s3.in_flight_max} PUTs at once")
    problems = check(simulation.world.config.migration.journal)
    ensure(not problems, f"journal check: {problems}")
    simulation.reached.update({f"event {kind}": count for kind, count in observer.kinds.items()})
    simulation.reached.update({f"failed {failure}": count for failure, count in observer.failed.items()})
    simulation.reached.update({f"parked {failure}": count for failure, count in observer.parks.items()})
    budget = simulation.world.config.upload.max_in_flight
    large = [
        ordinal for ordinal, found in observer.outcome.items() if found.code in "SR" and found.size > budget
    ]
    simulation.reached["value beyond the budget"] += len(large)
    simulation.reached["keys beyond one claim"] += observer.kinds["keys_claimed"] > len(observer.source_ids)


def _check_nothing_lost(
    simulation: Simulation, spec: SourceConfig, newest: dict[tuple[int, str], int]
) -> None:
    observer, history = simulation.observer, simulation.history
    source = observer.source_ids[spec.name]
    cutoff_us = _cutoff_us(simulation)
    ensure(spec.name in history.snapshots, f"{spec.name}: closed, and no snapshot was ever taken")
    begun, rows = history.snapshots[spec.name]
    proven = simulation.world.visible and spec.created_at is not None
    there = history.now_there(spec, cutoff_us) if proven else set()
    expected = set(rows) | {key for key in there if (spec.name, key) not in history.uncovered}
    for key in sorted(expected):
        ordinal = newest.get((source, key))
        ensure(ordinal is not None, f"{spec.name}: {key!r} is in scope and was never planned")
        assert ordinal is not None
        if observer.state[ordinal] == "parked":
            continue
        ensure(observer.state[ordinal] == "settled", f"{spec.name}: {key!r} is {observer.state[ordinal]}")
        found = observer.outcome[ordinal]
        if found.code == "V":
            absent = history.was_absent(spec.name, key, since=begun)
            ensure(absent, f"{spec.name}: {key!r} is vanished, and was there when the closing snapshot began")
        if found.code in "SRP" and key in rows:
            stored = simulation.s3.current(spec.bucket, object_key(spec, key))
            assert stored is not None
            late_enough = stored.body in history.values(spec.name, key, since=begun)
            ensure(
                late_enough or len(stored.body) == len(rows[key]),
                f"{spec.name}: {key!r} has a value from before the closing snapshot, of another length",
            )


def _check_bucket(simulation: Simulation) -> None:
    """Nothing is in the bucket that nobody planned; where no table changed, it is exactly what it should be."""
    world, observer = simulation.world, simulation.observer
    planned = {
        (spec.bucket, object_key(spec, p.row_key))
        for p in observer.plan.values()
        for spec in [_spec_of(simulation, p.source)]
    }
    objects = {
        (bucket, key): body
        for bucket in ("bucket", "other")
        for key, body in simulation.s3.objects(bucket).items()
        if not key.endswith(PROBE)
    }
    simulation.objects = objects
    foreign = {**world.foreign, **simulation.s3.raced}
    ensure(set(objects) <= planned | set(foreign), "objects that nobody planned")
    for place, (body, _) in foreign.items():
        if place not in planned:
            ensure(objects.get(place) == body, f"the foreign object {place} has changed")
    if world.weather.changes or world.weather.late:
        return
    simulation.reached["bucket compared whole"] += 1
    expected = {place: body for place, (body, _) in foreign.items()}
    for spec in world.config.sources:
        scope = simulation.source.in_scope(spec, _cutoff_us(simulation))
        for row in world.rows[spec.name]:
            value, key = effective(spec, row.value), object_key(spec, row.key)
            replaces = world.config.s3.existing == "overwrite" or (spec.bucket, key) not in expected
            if value is not None and row.key in scope and "//" not in key and replaces:
                expected[spec.bucket, key] = value
    differing = {
        place for place in expected.keys() | objects.keys() if expected.get(place) != objects.get(place)
    }
    ensure(not differing, f"objects differ from a run without faults: {sorted(differing)[:5]}")


def _cutoff_us(simulation: Simulation) -> int:
    configured = simulation.world.config.migration.cutoff_us
    if configured is not None:
        return configured
    fixed = [event for event in simulation.observer.events if event[2] == "cutoff_fixed"]
    ensure(len(fixed) == 1, f"the cutoff was fixed {len(fixed)} times")
    return int(fixed[0][5].partition(":")[2].rstrip("}"))


def _spec_of(simulation: Simulation, source: int) -> SourceConfig:
    ids = simulation.observer.source_ids
    return next(spec for spec in simulation.world.config.sources if ids.get(spec.name) == source)
