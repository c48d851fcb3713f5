"""What evidence costs at ten million keys: writing every key of a report, and what `attest` reads of the journal.

The journal is the one that `benchmarks.status_cost` writes. CPU seconds are told beside the clock's, since other work
on the machine slows the clock only. The exit code is 1 if keys.csv.gz is written at less than 100,000 keys a second of
CPU time, or if memory grows with the number of keys.

    python -m benchmarks.evidence_cost --keys 10000000 --directory /tmp
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.journal_cost import judged
from benchmarks.status_cost import write
from daemon.report_keys import Level
from daemon.reporting import write_report
from journal.attestation import journal_facts, source_digests
from journal.checking import problems
from journal.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS_PER_SECOND_MIN = 100_000
RESIDENT_MB_MAX = 250


def timed(what: str, keys: int, work: Callable[[], object]) -> float:
    """Do the work and say what it took; return keys by second of CPU time."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{what:<28} {seconds:8.1f} s, {cpu_seconds:8.1f} s of CPU, {keys / cpu_seconds:10,.0f} keys/s of CPU,"
        f" {resident:5.0f} MB resident at most"
    )
    return keys / cpu_seconds


def main() -> int:
    """Run the benchmark; return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, default=None, help="where the journal goes, on a real disk")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        path = Path(directory) / "journal.db"
        now_us = write(path, given.keys)
        print(f"{given.keys:,} keys, journal of {path.stat().st_size / 1e6:,.0f} MB")
        with Reader.open(path) as reader:
            rate = timed(
                "report --level all",
                given.keys,
                lambda: write_report(
                    reader, Path(directory) / "report", level=Level.ALL, force=False, now_us=now_us
                ),
            )
            timed("attest: count every key", given.keys, lambda: journal_facts(reader))
            timed("attest: digest", given.keys, lambda: source_digests(reader))
            timed("attest: check the journal", given.keys, lambda: problems(reader))
        size = (Path(directory) / "report" / "keys.csv.gz").stat().st_size
        print(f"keys.csv.gz has {size / 1e6:,.0f} MB")
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    met = [
        judged("keys of a report, by CPU", rate, KEYS_PER_SECOND_MIN, "/s", at_least=True),
        judged("resident memory", resident, RESIDENT_MB_MAX, "MB"),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
