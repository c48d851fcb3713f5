"""What `explain` costs at ten million keys, for each kind of life a key may have had, and what `run --dry-run` costs.

The migration of `status_cost` is written, then what makes lives long: keys that failed 400 times each in a storm, one
that was held through all of it, recovered and parked keys, a key planned twice, a verification of each day of a month
and a sample. Each is asked for by a reader of its own, before and after the plan is indexed by row key. The last lines
say whether the target is met, and the exit code is 1 if not.

    python -m benchmarks.explain_cost --keys 10000000 --directory /tmp
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.journal_cost import MD5, NOW_US, judged
from benchmarks.status_cost import write
from daemon.layouts import object_key, recorded_layout
from daemon.object_lookup import object_name, rows_of_object
from journal.entries import AttemptFailed, PlannedRow, Settled
from journal.events import Kind
from journal.lifecycle import Outcome
from journal.log import Journal
from journal.queries import sources
from journal.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

STORM_KEYS = 128
STORM_ATTEMPTS = 400
VERIFICATIONS = 30
SAMPLE = 1000
ROUNDS = 15
QUERY_SECONDS_MAX = 0.050


def lengthen(path: Path, now_us: int) -> dict[str, str]:
    """Add the events that make lives long; return a row key of each kind of life."""
    with Journal.open(path, now_us=now_us) as journal:
        journal.start_session(now_us=now_us, facts={"pid": 1, "host": "benchmark"})
        journal.recover(now_us=now_us)
        source = next(iter(journal.sources.values())).id
        recovered = journal.claim(source, limit=8, window=1000, now_us=now_us)
        journal.record(
            [Settled(key.ordinal, Outcome.STORED, key.size, MD5) for key in recovered.keys], now_us=now_us
        )
        while (claim := journal.claim(source, limit=1000, window=1000, now_us=now_us)).keys[0].recoveries:
            journal.record(
                [Settled(key.ordinal, Outcome.STORED, key.size, MD5) for key in claim.keys], now_us=now_us
            )
        held, *stormed = claim.keys[: STORM_KEYS + 1]
        for attempt in range(1, STORM_ATTEMPTS + 1):
            failed = [
                AttemptFailed(
                    key.ordinal, "PUT", "throttled", "503 Slow Down", 503, "SlowDown", "R1", 12.0, attempt
                )
                for key in stormed
            ]
            journal.record(failed, now_us=now_us)
        journal.record(
            [Settled(key.ordinal, Outcome.STORED, key.size, MD5) for key in claim.keys], now_us=now_us
        )
        again = next(iter(recovered.keys))
        journal.begin_pass(source, kind="snapshot", now_us=now_us)
        row = PlannedRow(again.row_key, again.created_at, again.size, again.ordinal)
        journal.seal_chunk(source, [row], now_us=now_us)
        journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=now_us)
        for _ in range(VERIFICATIONS):
            verify(journal, now_us)
        verify(journal, now_us, sample=range(1, SAMPLE + 1))
    with Reader.open(path) as reader:
        settled = reader.row_keys(limit=1)[0][1]
        parked = next(iter(reader.events(kinds=[Kind.KEY_PARKED]))).data["ordinal"]
        parked_key = reader.row_keys(after=parked - 1, limit=1)[0][1]
    return {
        "settled at first": settled,
        "failed 400 times": stormed[0].row_key,
        "held through a storm": held.row_key,
        "recovered": recovered.keys[1].row_key,
        "planned twice": again.row_key,
        "parked": parked_key,
        "unknown": "no such key",
    }


def verify(journal: Journal, now_us: int, sample: range | None = None) -> None:
    with Reader.open(journal.path) as reader:
        until = reader.head_seq()
    drawn = None if sample is None else {"keys": len(sample), "of": 10 * len(sample), "seed": 1}
    data = {"tier": "list", "until_seq": until, "sources": None, "sample": drawn}
    journal.note(Kind.VERIFICATION_STARTED, data, now_us=now_us)
    if sample is not None:
        named = {"run": until + 1, "tier": "content", "after_seq": 0, "counts": {}, "ordinals": list(sample)}
        journal.note(Kind.VERIFICATION_PROGRESSED, named, now_us=now_us)
    journal.note(Kind.VERIFICATION_FINISHED, {**data, "run": until + 1, "exit_code": 0}, now_us=now_us)


def seconds_of(path: Path, ask: Callable[[Reader], object]) -> float:
    """Return the median of opening the journal, asking and closing it."""
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        with Reader.open(path) as reader:
            ask(reader)
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def by_object_key(reader: Reader, name: str) -> None:
    rows = rows_of_object(object_name(name), reader.read(sources).values())
    assert rows
    for _, row_key in rows:
        reader.explain(row_key)


def command_seconds(path: Path, *arguments: str) -> float:
    found = []
    for _ in range(5):
        began = time.perf_counter()
        command = [sys.executable, "-m", "daemon", *arguments, "--journal", str(path)]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        found.append(time.perf_counter() - began)
    return statistics.median(found)


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
        lives = lengthen(path, ended_us)
        print(f"{options.keys} keys, {path.stat().st_size / 1e6:.0f} MB")
        began = time.perf_counter()
        with Reader.open(path) as reader:
            reader.explain(lives["unknown"])
        print(f"without the index by row key: {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        with Journal.open(path, now_us=NOW_US) as journal:
            journal.build_key_index()
        print(f"the index took {time.perf_counter() - began:.1f} s, {path.stat().st_size / 1e6:.0f} MB")
        good = [
            judged(
                f"explain, {life}",
                seconds_of(path, lambda reader, key=key: reader.explain(key)) * 1e3,
                QUERY_SECONDS_MAX * 1e3,
                "ms",
            )
            for life, key in lives.items()
        ]
        with Reader.open(path) as reader:
            record = next(iter(reader.read(sources).values()))
        layout = recorded_layout(record.identity)
        assert layout is not None
        name = f"s3://{record.identity['bucket']}/{object_key(layout, lives['settled at first'])}"
        found = seconds_of(path, lambda reader: by_object_key(reader, name)) * 1e3
        good.append(judged("explain, by object key", found, QUERY_SECONDS_MAX * 1e3, "ms"))
        print(f"run --dry-run, the query: {seconds_of(path, Reader.resumption) * 1e3:.1f} ms")
        explained = command_seconds(path, "explain", lives["settled at first"])
        print(f"command explain from process start: {explained * 1e3:.0f} ms")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
