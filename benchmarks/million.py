"""Copy a million small rows through a real S3 server while the daemon is killed again and again, and prove the result.

Starts PostgreSQL and `weed` on loopback. Exit code 0 only if every row is in the bucket with its own MD5 and nothing
else is, `verify` and `journal check` find nothing, and no death repeated more uploads than it may.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.endurance import journal_facts
from benchmarks.endurance.journal_facts import Facts
from benchmarks.endurance.migration import Migration, claim_window, fill, tell, weed
from benchmarks.endurance.proving import Proof, prove
from benchmarks.endurance.sampling import progress, sizes
from benchmarks.quietness import machine_cpu_seconds
from benchmarks.servers import POSTGRES
from daemon.demo.postgres import EmbeddedPostgres

CONCURRENCY = 64
LOOK_SECONDS = 0.25
TOLD_SECONDS = 15.0
END_SECONDS = 7200.0


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL.

    Attributes:
        settled: keys by then.
        in_flight: keys that the next session found without an outcome.
        repeated: of these, uploads that the dead process had already done.
    """

    settled: int
    in_flight: int
    repeated: int


@dataclass
class Result:
    """What was found; `proof` is of the end."""

    rows: int
    processes: int
    window: int
    seconds: float = 0.0
    cores_busy: float = 0.0
    journal_bytes: int = 0
    kills: list[Kill] = field(default_factory=list)
    proof: Proof = field(default_factory=Proof)

    def problems(self) -> list[str]:
        """Return what is wrong; empty: nothing."""
        beyond = [kill for kill in self.kills if kill.in_flight > self.window]
        told = [f"{kill.in_flight} keys in flight at a kill; at most {self.window} may be" for kill in beyond]
        if self.proof.rows != self.rows:
            told.append(f"expected {self.rows:,} rows in the table, found {self.proof.rows:,}")
        return [*told, *self.proof.problems()]

    def summary(self) -> str:
        repeated = sum(kill.repeated for kill in self.kills)
        most = max((kill.in_flight for kill in self.kills), default=0)
        lines = [
            f"{self.rows:,} rows, upload.processes = {self.processes}, {len(self.kills)} SIGKILLs",
            f"{self.seconds:,.0f} s from start to end, {self.rows / self.seconds:,.0f} keys/s, restarts included",
            f"{self.cores_busy:.1f} cores of the machine were busy on average",
            f"in flight at a kill: {most} at most (bound {self.window}); uploads repeated: {repeated} in all",
            f"journal: {self.journal_bytes / 1e6:,.1f} MB, {self.journal_bytes / self.rows:.0f} B a key",
            *self.proof.lines(),
        ]
        return "\n".join(lines)


def copy(migration: Migration, rows: int, kills: int, processes: int) -> list[int]:
    """Run to the end with `kills` deaths on the way; return how many keys were settled at each."""
    deaths: list[int] = []
    daemon = migration.start(processes)
    told = deadline = time.monotonic()
    deadline += END_SECONDS
    try:
        while daemon.returncode is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"not done after {END_SECONDS:,.0f} s")
            settled = progress(migration.journal).settled
            if len(deaths) < kills and settled >= rows * (len(deaths) + 1) / (kills + 1):
                daemon.send(signal.SIGKILL)
                daemon.wait(TOLD_SECONDS)
                deaths.append(settled)
                tell(f"killed at {settled:,} keys")
                daemon = migration.start(processes)
            if time.monotonic() - told > TOLD_SECONDS:
                told = time.monotonic()
                tell(f"{settled:,} of {rows:,} keys settled")
            daemon.wait(LOOK_SECONDS)
        if daemon.returncode != 0:
            raise daemon.ended_early()
    finally:
        daemon.kill()
    return deaths


def kill(facts: Facts, number: int, settled: int) -> Kill:
    """Return what the next session, the one after `number` deaths and itself, took back."""
    taken: set[int] = set().union(
        *(one.ordinals for one in facts.taken_back if one.process is None and one.session == number + 2)
    )
    return Kill(settled, len(taken), len(taken & facts.repeated))


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.million",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2, help="upload.processes (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"), metavar="DIR",
                        help="million.json goes there")  # fmt: skip
    return parser.parse_args(given)


def main() -> int:
    options = arguments()
    result = Result(options.rows, options.processes, claim_window(CONCURRENCY))
    with (
        tempfile.TemporaryDirectory(prefix="backfill-million-") as directory,
        EmbeddedPostgres(settings=POSTGRES) as postgres,
        weed() as server,
    ):
        tell(f"filling a table of {options.rows:,} rows")
        fill(postgres, options.rows)
        migration = Migration(Path(directory), postgres.dsn(), server.endpoint, CONCURRENCY)
        began, busy = time.monotonic(), machine_cpu_seconds()
        deaths = copy(migration, options.rows, options.kills, options.processes)
        result.seconds = time.monotonic() - began
        result.cores_busy = (machine_cpu_seconds() - busy) / result.seconds
        facts = journal_facts.read(migration.journal)
        result.kills = [kill(facts, number, settled) for number, settled in enumerate(deaths)]
        result.journal_bytes = sizes(migration.journal)[0]
        tell("comparing the bucket with the table")
        result.proof = prove(migration, facts, postgres, server, seed=options.rows, churned=False)
    options.out.mkdir(parents=True, exist_ok=True)
    told = {**asdict(result), "problems": result.problems()}
    (options.out / "million.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(result.summary())
    for problem in result.problems():
        print(f"PROBLEM: {problem}")
    return 1 if result.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
