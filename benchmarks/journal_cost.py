"""What the journal costs per key: CPU and bytes, against one row per key and event; and at ten million keys.

    python -m benchmarks.journal_cost                   # ours against the peer, and the ratios
    python -m benchmarks.journal_cost --keys 10000000   # also open, resume, status and memory at that size

Both sides plan, claim and settle the same keys (16 hex digits without order, as content hashes have none),
durably (synchronous=FULL), in chunks of 10,000 planned rows and batches of 500 claims and outcomes, ours without
its optional index by key. The peer is what one writes first: a row per key and event through executemany, and a
table of keys, unique, with their state and a partial index of those to do. It is measured with what the journal
gives (chained, guarded events), which is what the ratios are judged by, and without. CPU is user + system of this
process; the making of keys and outcomes is outside all measurements.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from journal.checkpoint import Order
from journal.entries import PlannedRow, Settled
from journal.lifecycle import Outcome
from journal.log import Journal
from journal.reader import Reader
from journal.schema import GUARDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

PEER_KEYS_MAX = 100_000
"""The peer's cost per key does not fall with size; more would only take longer."""
ROUNDS = 3
CHUNK = 10_000
BATCH = 500
NOW_US = 1_760_000_000_000_000
MD5 = "d41d8cd98f00b204e9800998ecf8427e"

CPU_RATIO_MIN = 3.0
SIZE_RATIO_MIN = 2.5
BYTES_PER_KEY_MAX = 130
OPEN_SECONDS_MAX = 0.050
STATUS_SECONDS_MAX = 0.100


@dataclass
class Cost:
    """CPU seconds by step, and the size of the file closed."""

    keys: int
    seconds: dict[str, float]
    size: int

    @property
    def microseconds(self) -> float:
        return sum(self.seconds.values()) / self.keys * 1e6

    @property
    def bytes(self) -> float:
        return self.size / self.keys

    def line(self, name: str) -> str:
        steps = "  ".join(
            f"{step} {seconds / self.keys * 1e6:5.2f}" for step, seconds in self.seconds.items()
        )
        return f"{name:30} {steps}  sum {self.microseconds:6.2f} us CPU  {self.bytes:6.1f} B"


class Meter:
    """Sums CPU seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, step: str, work: Callable[[], T]) -> T:
        began = time.process_time()
        result = work()
        self.seconds[step] = self.seconds.get(step, 0.0) + time.process_time() - began
        return result


def rows_of(first: int, count: int) -> list[PlannedRow]:
    return [
        PlannedRow(hashlib.md5(b"%d" % i).hexdigest()[:16], NOW_US - i * 1000, 4096 + i % 100)
        for i in range(first, first + count)
    ]


def batches(keys: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, keys, size):
        yield first, min(size, keys - first)


def ours(path: Path, keys: int, *, left: int = 0) -> Cost:
    """Plan all keys, claim and settle all but the last `left`, which stay in flight."""
    meter = Meter()
    journal = Journal.create(
        path, name="benchmark", cutoff_us=NOW_US, order=Order.NEWEST_FIRST, now_us=NOW_US
    )
    journal.start_session(now_us=NOW_US, facts={})
    source = journal.add_source("keys", {"table": "public.keys"}, now_us=NOW_US)
    journal.begin_pass(source, kind="sweep", now_us=NOW_US)
    for first, count in batches(keys, CHUNK):
        rows = rows_of(first, count)
        meter("plan", partial(journal.seal_chunk, source, rows, now_us=NOW_US))
    journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
    for _first, count in batches(keys - left, BATCH):
        claim = meter("claim", partial(journal.claim, source, limit=count, window=2 * BATCH, now_us=NOW_US))
        assert claim is not None
        settled = [Settled(key.ordinal, Outcome.STORED, key.size, MD5) for key in claim.keys]
        meter("outcome", partial(journal.record, settled, now_us=NOW_US))
    if left:
        journal.claim(source, limit=left, window=left, now_us=NOW_US)
    journal.close()
    return Cost(keys, meter.seconds, path.stat().st_size)


class Peer:
    """One row per key and event, each with its JSON, and a table of keys that follows.

    `guarded` gives it what ours has: each event chained by SHA-256 to the one before, and append-only triggers.
    """

    def __init__(self, path: Path, *, guarded: bool) -> None:
        self._guarded = guarded
        self._seq = 0
        self._chain = bytes(32)
        self.connection = sqlite3.connect(path, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "CREATE TABLE event (seq INTEGER PRIMARY KEY, ts INTEGER, kind TEXT, key TEXT, data TEXT, chain BLOB)",
            "CREATE TABLE object (key TEXT PRIMARY KEY, created_at INTEGER, size INTEGER, state TEXT, md5 TEXT)",
            "CREATE INDEX object_to_do ON object (created_at) WHERE state = 'planned'",
        ):
            self.connection.execute(statement).fetchall()
        if guarded:
            self.connection.execute(GUARDS["event_takes_the_next"])

    def _events(self, kind: str, events: list[tuple[str, str]]) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for key, data in events:
            self._seq += 1
            if self._guarded:
                self._chain = hashlib.sha256(
                    self._chain + f"{self._seq}{NOW_US}{kind}{key}{data}".encode()
                ).digest()
            rows.append((self._seq, NOW_US, kind, key, data, self._chain if self._guarded else None))
        return rows

    def _commit(
        self, events: list[tuple[object, ...]], statement: str, rows: list[tuple[object, ...]]
    ) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", events)
        self.connection.executemany(statement, rows)
        self.connection.execute("COMMIT")

    def plan(self, rows: list[PlannedRow]) -> None:
        told = [(r.row_key, json.dumps({"created_at": r.created_at, "size": r.size})) for r in rows]
        self._commit(
            self._events("planned", told),
            "INSERT INTO object (key, created_at, size, state) VALUES (?, ?, ?, 'planned')",
            [(r.row_key, r.created_at, r.size) for r in rows],
        )

    def claim(self, rows: list[PlannedRow]) -> None:
        self._commit(
            self._events("claimed", [(r.row_key, "{}") for r in rows]),
            "UPDATE object SET state = 'in_flight' WHERE key = ?",
            [(r.row_key,) for r in rows],
        )

    def settle(self, rows: list[PlannedRow]) -> None:
        told = [(r.row_key, json.dumps({"size": r.size, "md5": MD5})) for r in rows]
        self._commit(
            self._events("stored", told),
            "UPDATE object SET state = 'stored', md5 = ? WHERE key = ?",
            [(MD5, r.row_key) for r in rows],
        )


def peer(path: Path, keys: int, *, guarded: bool) -> Cost:
    meter = Meter()
    journal = Peer(path, guarded=guarded)
    for first, count in batches(keys, CHUNK):
        meter("plan", partial(journal.plan, rows_of(first, count)))
    for first, count in batches(keys, BATCH):
        rows = rows_of(first, count)
        meter("claim", partial(journal.claim, rows))
        meter("outcome", partial(journal.settle, rows))
    journal.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    journal.connection.close()
    return Cost(keys, meter.seconds, path.stat().st_size)


def timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resume(path: Path) -> tuple[float, float]:
    """Return the seconds that open + recover + first claim, and one status query, take."""

    def start() -> Journal:
        journal = Journal.open(path, now_us=NOW_US)
        journal.start_session(now_us=NOW_US, facts={})
        journal.recover(now_us=NOW_US)
        return journal

    opened, journal = timed(start)
    journal.claim(1, limit=100, window=1000, now_us=NOW_US)
    with Reader.open(path) as reader:
        asked, _ = timed(lambda: reader.status(now_us=NOW_US))
    journal.close()
    return opened, asked


def judged(name: str, value: float, limit: float, unit: str, *, at_least: bool = False) -> bool:
    good = value >= limit if at_least else value <= limit
    print(
        f"{name:28} {value:8.2f} {unit:3} ({'>=' if at_least else '<='} {limit:g}: {'yes' if good else 'NO'})"
    )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=PEER_KEYS_MAX)
    parser.add_argument(
        "--directory", type=Path, help="where the files go; must be on a disk (default: TMPDIR)"
    )
    options = parser.parse_args()
    compared = min(options.keys, PEER_KEYS_MAX)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        place = Path(directory)
        # Taken in turn, the cheapest of each: what else this machine does hits all alike, and only adds.
        rounds = [
            (
                ours(place / f"ours-{turn}.db", compared),
                peer(place / f"guarded-{turn}.db", compared, guarded=True),
                peer(place / f"plain-{turn}.db", compared, guarded=False),
            )
            for turn in range(ROUNDS)
        ]
        mine, guarded, plain = (
            min(costs, key=lambda cost: cost.microseconds) for costs in zip(*rounds, strict=True)
        )
        print(f"{compared} keys, us CPU and bytes per key")
        print(mine.line("journal, batch events"))
        print(guarded.line("a row per key and event"))
        print(plain.line("the same without chain, guard"))
        good = [
            judged("CPU ratio", guarded.microseconds / mine.microseconds, CPU_RATIO_MIN, "x", at_least=True),
            judged("size ratio", guarded.bytes / mine.bytes, SIZE_RATIO_MIN, "x", at_least=True),
            judged("bytes per key", mine.bytes, BYTES_PER_KEY_MAX, "B"),
        ]
        print(
            f"without chain and guard:     {plain.microseconds / mine.microseconds:8.2f} x CPU,"
            f" {plain.bytes / mine.bytes:.2f} x size"
        )
        large = place / "large.db"
        before = resident_mb()
        cost = ours(large, options.keys, left=min(1000, options.keys // 2))
        print(cost.line(f"journal, {options.keys} keys"))
        print(f"resident memory, peak        {resident_mb():8.1f} MB (before: {before:.1f} MB)")
        opened, asked = resume(large)
        good += [
            judged("bytes per key", cost.bytes, BYTES_PER_KEY_MAX, "B"),
            judged("open + resume", opened * 1e3, OPEN_SECONDS_MAX * 1e3, "ms"),
            judged("status query", asked * 1e3, STATUS_SECONDS_MAX * 1e3, "ms"),
        ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
