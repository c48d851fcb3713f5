"""What `status` costs at ten million keys: the query, the command from process start, and the fold of --as-of.

A migration of eight sources with a sample of progress in 15 s, slow-downs, failed attempts and parked keys is
written as a daemon would write it, at 500 keys a second by its own clock; then each is timed. The last lines say
whether the targets are met, and the exit code is 1 if not.

    python -m benchmarks.status_cost --keys 10000000 --directory /tmp
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.journal_cost import MD5, NOW_US, judged, rows_of
from daemon.rendering_units import moment
from journal.checkpoint import Order
from journal.entries import AttemptFailed, Parked, Settled
from journal.lifecycle import Outcome
from journal.log import Journal
from journal.reader import Reader

SOURCES = ("cas", "workspace_snapshots", "encrypted_secrets", "rebase_batches", "change_batches",
           "split_snapshot_subgraphs", "split_snapshot_supergraphs", "split_snapshot_rebase_batches")  # fmt: skip
CHUNK = 10_000
BATCH = 500
KEYS_PER_SECOND = 500
SAMPLE_SECONDS = 15
SLOW_DOWN_EVERY_SAMPLES = 20
FAILED_EVERY_BATCHES = 10
PARKED_EVERY_BATCHES = 100
LEFT_IN_FLIGHT = 128
ROUNDS = 15

QUERY_SECONDS_MAX = 0.100
COMMAND_SECONDS_MAX = 0.400


class Writer:
    """Writes the migration; `now_us` is its clock."""

    def __init__(self, path: Path) -> None:
        self.now_us = NOW_US
        self._sampled_us = NOW_US
        self._samples = 0
        self._batches = 0
        self.journal = Journal.create(
            path, name="layer-cache", cutoff_us=NOW_US, order=Order.NEWEST_FIRST, now_us=NOW_US
        )
        self.journal.start_session(now_us=NOW_US, facts={"pid": os.getpid(), "host": "benchmark"})

    def plan(self, name: str, first: int, keys: int) -> int:
        identity = {
            "table": f"public.{name}",
            "key": ["id"],
            "bucket": "blobs",
            "prefix": f"{name}/",
            "layout": "tiered",
            "reverse_key": False,
        }
        source = self.journal.add_source(name, identity, now_us=self.now_us)
        self.journal.begin_pass(source, kind="sweep", now_us=self.now_us)
        for begin in range(first, first + keys, CHUNK):
            rows = rows_of(begin, min(CHUNK, first + keys - begin))
            self.journal.seal_chunk(source, rows, now_us=self.now_us)
        self.journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=self.now_us)
        return source

    def drive(self, source: int) -> bool:
        """Claim and settle one batch; return False where the source has none left."""
        claim = self.journal.claim(source, limit=BATCH, window=2 * BATCH, now_us=self.now_us)
        if claim is None:
            return False
        self._batches += 1
        self.now_us += len(claim.keys) * 1_000_000 // KEYS_PER_SECOND
        first, *others = claim.keys
        entries: list[AttemptFailed | Parked | Settled] = []
        if self._batches % FAILED_EVERY_BATCHES == 0:
            entries.append(AttemptFailed(first.ordinal, "PUT", "server", "answered 500", 500))
        if self._batches % PARKED_EVERY_BATCHES == 0:
            entries.append(Parked(first.ordinal, "foreign_object", "another object is there"))
        else:
            others = list(claim.keys)
        entries += [Settled(key.ordinal, Outcome.STORED, key.size, MD5) for key in others]
        self.journal.record(entries, now_us=self.now_us)
        if self.now_us - self._sampled_us >= SAMPLE_SECONDS * 1_000_000:
            self._sample()
        return True

    def _sample(self) -> None:
        self._samples += 1
        passed_ms = (self.now_us - self._sampled_us) // 1000
        self._sampled_us = self.now_us
        spent = {"network": passed_ms}
        if self._samples % SLOW_DOWN_EVERY_SAMPLES == 0:
            self.journal.begin_throttle("replica_lag", detail="12.1 s, limit 10 s", now_us=self.now_us)
            self.journal.end_throttle(
                "replica_lag", detail="4.0 s, limit 10 s", milliseconds=2000, now_us=self.now_us
            )
            spent = {"network": passed_ms - 2000, "replica_lag": 2000}
        self.journal.sample(spent, now_us=self.now_us)


def write(path: Path, keys: int) -> int:
    """Write the migration and let go of it in mid-run; return the time of its last event."""
    writer = Writer(path)
    each = keys // len(SOURCES)
    sources = [writer.plan(name, number * each, each) for number, name in enumerate(SOURCES)]
    turns = (each - LEFT_IN_FLIGHT) // BATCH
    for _ in range(turns):
        for source in sources:
            writer.drive(source)
    writer.journal.claim(sources[0], limit=LEFT_IN_FLIGHT, window=2 * BATCH, now_us=writer.now_us)
    writer.journal.close()
    return writer.now_us


def timed_query(path: Path) -> list[float]:
    """Return the seconds of opening, asking and closing, time and again, the first one on a cold connection."""
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        with Reader.open(path) as reader:
            reader.status(now_us=NOW_US)
        found.append(time.perf_counter() - began)
    return found


def status(path: Path, *options: str) -> tuple[float, float]:
    """Run the command; return its seconds on the clock and of CPU."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "daemon", "status", "--journal", str(path), *options],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    passed, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return passed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def timed_command(name: str, path: Path, *options: str) -> bool:
    """Judge the clock's seconds; those of CPU say what it would be on a machine with nothing else to do."""
    found = [status(path, *options) for _ in range(ROUNDS)]
    print(f"{name}, CPU, median: {statistics.median(cpu for _, cpu in found) * 1e3:.0f} ms")
    return told(name, [passed for passed, _ in found], COMMAND_SECONDS_MAX)


def told(name: str, seconds: list[float], limit: float) -> bool:
    print(f"{name}: {min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f} ms, {len(seconds)} times")
    return judged(f"{name}, median", statistics.median(seconds) * 1e3, limit * 1e3, "ms")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument(
        "--directory", type=Path, help="where the file goes; must be on a disk (default: TMPDIR)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = Path(directory) / "journal.db"
        ended_us = write(path, options.keys)
        print(f"{options.keys} keys, {path.stat().st_size / 1e6:.0f} MB")
        good = [
            told("status query", timed_query(path), QUERY_SECONDS_MAX),
            timed_command("status command", path),
            timed_command("status --json command", path, "--json"),
        ]
        passed, cpu = status(path, "--as-of", moment(ended_us))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"status --as-of the end: {passed:.1f} s, {cpu:.1f} s of CPU, {options.keys / passed:,.0f} keys/s;"
            f" resident memory, peak: {peak:.0f} MB"
        )
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
