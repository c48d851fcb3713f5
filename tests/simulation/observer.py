"""A second opinion on the journal: folds its events anew, in memory, as they are committed.

Nothing of the product's fold, queries or checkpoint is used here; whatever contradicts is a `Violation`.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

UNCOUNTED = {"connection", "throttled"}
"""Failures that say nothing about a key, so that none may be parked for them."""


class Violation(AssertionError):  # noqa: N818
    """An invariant does not hold."""


def ensure(condition: object, problem: str) -> None:
    if not condition:
        raise Violation(problem)


class Planned(NamedTuple):
    source: int
    row_key: str
    created_at: int | None
    size: int
    supersedes: int | None


class Outcome(NamedTuple):
    code: str
    size: int
    md5: str


@dataclass
class Segment:
    source: int
    state: str = "open"
    lo: int | None = None
    hi: int | None = None
    frontier: int | None = None


@dataclass
class Observer:
    """What the log says, folded by rules written down a second time.

    Attributes:
        state: of each ordinal: "planned", "in_flight", "settled", "parked".
        timeline: of the server on record, or accepted last.
        on_outcome: called for each outcome when it is committed.
    """

    events: list[tuple[Any, ...]] = field(default_factory=list)
    plan: dict[int, Planned] = field(default_factory=dict)
    state: dict[int, str] = field(default_factory=dict)
    outcome: dict[int, Outcome] = field(default_factory=dict)
    recoveries: Counter[int] = field(default_factory=Counter)
    stragglers: set[int] = field(default_factory=set)
    parked_as: dict[int, str] = field(default_factory=dict)
    in_flight: set[int] = field(default_factory=set)
    segments: dict[int, Segment] = field(default_factory=dict)
    source_ids: dict[str, int] = field(default_factory=dict)
    closed: dict[int, bool] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    in_flight_max: int = 0
    suspects_alone: int = 0
    parks: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    window: int = 1 << 30
    completed: bool = False
    timeline: int | None = None
    on_outcome: Callable[[int, Planned, Outcome], None] = lambda _ordinal, _planned, _outcome: None

    @property
    def unsettled(self) -> set[int]:
        return {ordinal for ordinal, state in self.state.items() if state != "settled"}

    @property
    def all_closed(self) -> bool:
        no_open = all(segment.state != "open" for segment in self.segments.values())
        return bool(self.closed) and all(self.closed.values()) and no_open

    def newest(self) -> dict[tuple[int, str], int]:
        """Return the last ordinal of each planned (source, row key)."""
        return {(planned.source, planned.row_key): ordinal for ordinal, planned in sorted(self.plan.items())}

    def follow(self, connection: sqlite3.Connection) -> None:
        """Fold what was committed since the last call."""
        for row in connection.execute(
            "SELECT seq, ts, kind, version, source, data, chain FROM event WHERE seq > ? ORDER BY seq",
            (len(self.events),),
        ).fetchall():
            seq, ts, kind, version, source, text, chain = row
            ensure(seq == len(self.events) + 1, f"event {seq} after event {len(self.events)}")
            before = self.events[-1][6] if self.events else bytes(32)
            ensure(
                chain == _link(before, seq, ts, kind, version, source, text), f"chain breaks at event {seq}"
            )
            self.events.append(row)
            self.kinds[kind] += 1
            self._fold(connection, seq, kind, source, json.loads(text))
        self._bounds()

    def _bounds(self) -> None:
        self.in_flight_max = max(self.in_flight_max, len(self.in_flight))
        ensure(
            len(self.in_flight) <= self.window, f"{len(self.in_flight)} keys in flight, window {self.window}"
        )
        alone = [ordinal for ordinal in self.in_flight if self.recoveries[ordinal] >= 3]
        ensure(not alone or len(self.in_flight) == 1, f"suspects {alone} in flight with others")
        self.suspects_alone = len(alone)

    def _move(self, ordinals: Any, before: str, after: str) -> None:
        for ordinal in ordinals:
            found = self.state[ordinal]
            ensure(found == before, f"ordinal {ordinal} is {found}, expected {before} before {after}")
            self.state[ordinal] = after
            if after == "in_flight":
                self.in_flight.add(ordinal)
            else:
                self.in_flight.discard(ordinal)

    def _fold(self, connection: sqlite3.Connection, seq: int, kind: str, source: int, data: Any) -> None:
        match kind:
            case "source_added":
                self.source_ids[data["name"]] = source
                self.closed[source] = False
            case "source_closed":
                self.closed[source] = True
            case "source_reopened":
                self.closed[source] = False
            case "pass_begun":
                self.segments[data["segment"]] = Segment(source)
            case "chunk_sealed":
                self._chunk(connection, source, data)
            case "segment_sealed":
                self.segments[data["segment"]].state = "sealed"
            case "pass_abandoned":
                self.segments[data["segment"]].state = "abandoned"
            case "keys_claimed":
                segment = self.segments[data["segment"]]
                ensure(
                    segment.source == source and segment.state != "open",
                    f"event {seq} claims of an open pass",
                )
                ensure(
                    segment.frontier == data["lo"] and data["hi"] <= (segment.hi or 0),
                    f"event {seq}: frontier",
                )
                first = [o for o in self.stragglers if self.state[o] == "planned"]
                behind = [o for o in first if self.plan[o].source == source]
                ensure(not behind, f"event {seq} moves the frontier before the keys {behind} given back")
                segment.frontier = data["hi"] + 1
                self._move(range(data["lo"], data["hi"] + 1), "planned", "in_flight")
            case "keys_reclaimed":
                ensure(self.stragglers >= set(data["ordinals"]), f"event {seq} claims again what never was")
                self._move(data["ordinals"], "planned", "in_flight")
            case "outcomes_recorded":
                for ordinal, code, size, md5, *_ in data:
                    self._move([ordinal], "in_flight", "settled")
                    self.stragglers.discard(ordinal)
                    self.outcome[ordinal] = Outcome(code, size, md5)
                    self.on_outcome(ordinal, self.plan[ordinal], self.outcome[ordinal])
            case "attempt_failed":
                ensure(data["ordinal"] in self.in_flight, f"event {seq}: an attempt of a key not in flight")
                self.failed[data["failure"]] += 1
            case "key_parked":
                died = data["failure"] == "process_died"
                ensure(
                    not died or self.recoveries[data["ordinal"]] == 3,
                    f"event {seq}: parked too early or late",
                )
                ensure(data["message"], f"event {seq}: parked without a reason")
                ensure(data["failure"] not in UNCOUNTED, f"event {seq}: parked by {data['failure']}")
                self._move([data["ordinal"]], "in_flight", "parked")
                self.stragglers.add(data["ordinal"])
                self.parked_as[data["ordinal"]] = data["failure"]
                self.parks[data["failure"]] += 1
            case "keys_recovered":
                self._move(data["ordinals"], "in_flight", "planned")
                self.stragglers |= set(data["ordinals"])
                self.recoveries.update(data["ordinals"])
                deaths = max(self.recoveries[ordinal] for ordinal in data["ordinals"])
                ensure(deaths <= 3, f"event {seq}: a key that {deaths} processes died with goes on")
            case "keys_released":
                self._move(data["ordinals"], "in_flight", "planned")
                self.stragglers |= set(data["ordinals"])
            case "keys_requeued":
                self._move(data["ordinals"], "parked", "planned")
                for ordinal in data["ordinals"]:
                    self.recoveries[ordinal] = 0
                    del self.parked_as[ordinal]
                self.completed = False
            case "outcomes_revoked":
                for ordinal in data["ordinals"]:
                    del self.outcome[ordinal]
                    self.recoveries[ordinal] = 0
                self._move(data["ordinals"], "settled", "planned")
                self.stragglers |= set(data["ordinals"])
                self.completed = False
            case "server_recorded":
                accepted = self.timeline in {None, data["timeline"]}
                ensure(accepted, f"event {seq}: another server is recorded that nobody accepted")
                self.timeline = data["timeline"]
            case "server_accepted":
                self.timeline = data["facts"]["timeline"]
            case "throttle_began":
                self.kinds[f"throttle_began {data['cause']}"] += 1
            case "migration_completed":
                ensure(
                    not self.unsettled, f"event {seq}: completed with {len(self.unsettled)} keys unsettled"
                )

    def _chunk(self, connection: sqlite3.Connection, source: int, data: Any) -> None:
        lo, hi = data["lo"], data["lo"] + data["n"] - 1
        ensure(lo == len(self.plan) + 1, f"a chunk begins at ordinal {lo} after {len(self.plan)}")
        rows = connection.execute(
            "SELECT row_key, created_at, size, supersedes FROM plan WHERE ordinal BETWEEN ? AND ? ORDER BY ordinal",
            (lo, hi),
        ).fetchall()
        ensure(_chunk_hash(rows) == data["sha256"], f"hash of the chunk at {lo}")
        segment = self.segments[data["segment"]]
        segment.lo = lo if segment.lo is None else segment.lo
        segment.frontier = lo if segment.frontier is None else segment.frontier
        segment.hi = hi
        for ordinal, row in enumerate(rows, lo):
            self.plan[ordinal] = Planned(source, *row)
            self.state[ordinal] = "planned"


def _link(before: bytes, seq: int, ts: int, kind: str, version: int, source: int | None, text: str) -> bytes:
    of = "null" if source is None else str(source)
    return hashlib.sha256(before + f'[{seq},{ts},"{kind}",{version},{of}]\n{text}'.encode()).digest()


def _chunk_hash(rows: list[Any]) -> str:
    digest = hashlib.sha256("\0".join(row[0] for row in rows).encode())
    for column in (1, 2, 3):
        values = [row[column] for row in rows]
        digest.update(bytes(value is None for value in values))
        digest.update(b"".join(struct.pack("<q", value or 0) for value in values))
    return digest.hexdigest()
