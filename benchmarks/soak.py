"""Run real daemons for minutes or days under random faults on real servers, and judge what they need and what they lose.

In rounds: a calm stretch of one daemon process; faults that a daemon must outlive, one after the other (PostgreSQL and
S3 killed and restarted, sessions cut, processes frozen, an upload process killed, a network that is slow, resets
connections or loses answers, pause and set); then deaths by SIGKILL and SIGTERM with all of that overlapping. The
table changes all the while. At the end faults stop, the rest is copied, and everything is compared.

The exit code is 0 only if nothing was lost and nothing leaked (`endurance/judging.py` says what that is). Writes
soak.json and soak.png into --out. The same seed draws the same faults at the same moments; what they meet is up to the
machine.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.endurance import journal_facts, judging, schedule
from benchmarks.endurance.churn import SETUP, Churn
from benchmarks.endurance.injecting import Injector
from benchmarks.endurance.journal_facts import Facts
from benchmarks.endurance.judging import Death
from benchmarks.endurance.migration import Migration, fill, tell, weed
from benchmarks.endurance.proving import Proof, prove
from benchmarks.endurance.sampling import Progress, Sample, progress, sizes, upload_processes, usage
from benchmarks.endurance.schedule import OUTAGES, Fault, Kind, Phase, Span
from benchmarks.endurance.telling import Soaked, document, summary
from benchmarks.peers_environment import cache_directory, prepare
from benchmarks.servers import POSTGRES, client_environment
from daemon.demo.postgres import EmbeddedPostgres
from daemon.errors import BackfillError
from tests.faults.fault_proxy import FaultProxy

CONCURRENCY = 64
ROWS_PER_SECOND = 400
PACE = 0.95
"""Slower than even, so that some rows are left in the end: a daemon that is done shows nothing."""
TICK_SECONDS = 0.25
SAMPLE_SECONDS = 1.0
TOLD_SECONDS = 30.0
END_SECONDS = 3600.0
REQUEUES_MAX = 3


@dataclass
class Soak:
    """The run itself: one daemon at a time, restarted as a supervisor would."""

    migration: Migration
    injector: Injector
    churn: Churn
    began: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    done: list[Fault] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    requeued: int = 0

    def __post_init__(self) -> None:
        self._in_force: list[Fault] = []
        self._sent: set[int] = set()
        self._met_outage = False
        self._seen: set[Kind] = set()

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    def run(self, spans: Sequence[Span], faults: Sequence[Fault]) -> None:
        """Let the time pass; a daemon is left that nothing is done to."""
        waiting = list(faults)
        sampled = told = -TOLD_SECONDS
        self._start(spans[0].processes)
        for span in spans:
            tell(f"{span.phase}: {span.end - span.begin:.0f} s")
            while (now := self.now) < span.end:
                self._end_due(now)
                while waiting and waiting[0].begin <= now:
                    self._begin(waiting.pop(0))
                if self.daemon.returncode is not None:
                    self._bury()
                    self._start(span.processes)
                if now - sampled >= SAMPLE_SECONDS:
                    sampled = now
                    self.injector.sql(self.churn.statements())
                    self._sample(span.phase)
                if now - told >= TOLD_SECONDS:
                    told = now
                    self._tell()
                self.daemon.wait(TICK_SECONDS)
        while self._in_force:
            self._end_due(float("inf"))
            self.daemon.wait(TICK_SECONDS)

    def finish(self) -> None:
        """Let the daemon copy the rest as fast as it goes, and end; keys that died too often are requeued.

        Raises:
            AssertionError: it does not come to an end.
        """
        tell("no more faults: the rest")
        deadline = self.now + END_SECONDS
        unleashed = False
        while self.now < deadline:
            unleashed = unleashed or self.migration.command("set", "rows-per-second=off")[0] == 0
            code = self.daemon.wait(SAMPLE_SECONDS)
            if code == 0:
                return
            if code == 3 and self.requeued < REQUEUES_MAX:
                self.requeued += 1
                self.migration.command("requeue", "--all")
                self._start(1)
            elif code is not None:
                self._bury()
                self._start(1)
            self._sample(Phase.REST)
        raise AssertionError(f"not done {END_SECONDS:,.0f} s after the last fault")

    def _start(self, processes: int) -> None:
        self.daemon = self.migration.start(processes)
        self._born = self.now
        self._sent.clear()
        self._met_outage = any(fault.kind in OUTAGES for fault in self._in_force)

    def _bury(self) -> None:
        code = self.daemon.returncode
        assert code is not None
        self.deaths.append(Death(self.now, code, frozenset(self._sent), self._met_outage))
        tell(f"the daemon ended with {code} after {self.now - self._born:.0f} s")

    def _begin(self, fault: Fault) -> None:
        if not self.injector.begin(fault, self.daemon):
            return
        self._met_outage = self._met_outage or fault.kind in OUTAGES
        if fault.kind in {Kind.KILL, Kind.TERMINATE}:
            self._sent.add(signal.SIGKILL if fault.kind is Kind.KILL else signal.SIGTERM)
        self.done.append(fault)
        self._in_force.append(fault)
        self._seen.add(fault.kind)

    def _end_due(self, now: float) -> None:
        self._in_force = [
            fault for fault in self._in_force if fault.end > now or not self.injector.end(fault)
        ]

    def _sample(self, phase: Phase) -> None:
        pid = self.daemon.pid if self.daemon.returncode is None else 0
        workers = upload_processes(pid) if pid else []
        journal, wal = sizes(self.migration.journal)
        kinds = self._seen | {fault.kind for fault in self._in_force}
        self._seen = set()
        self.samples.append(
            Sample(
                round(self.now, 1),
                pid,
                phase,
                tuple(sorted(kinds)),
                usage([pid] if pid else []),
                usage(workers),
                len(workers),
                journal,
                wal,
                progress(self.migration.journal),
            )
        )

    def _tell(self) -> None:
        last = self.samples[-1] if self.samples else None
        done: Progress = last.progress if last else Progress()
        rss = last.daemon.rss / 1e6 if last else 0.0
        tell(
            f"{self.now:,.0f} s: {done.settled:,} of {done.planned:,} keys, {len(self.done)} faults, "
            f"{len(self.deaths)} deaths, daemon {rss:.0f} MB"
        )


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, required=True, metavar="N")
    parser.add_argument("--rows", type=int, metavar="M",
                        help=f"copied at an even rate over the time (default: {ROWS_PER_SECOND} a second)")  # fmt: skip
    parser.add_argument(
        "--seed", type=int, metavar="S", help="of faults and changes (default: one at random)"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"), metavar="DIR")
    parser.add_argument("--work", type=Path, default=cache_directory(), metavar="DIR",
                        help="keeps the environment that draws the plot (default: below the user's cache)")  # fmt: skip
    parser.add_argument(
        "--no-plot", action="store_true", help="write no soak.png, and install nothing for it"
    )
    options = parser.parse_args(given)
    options.rows = options.rows or max(1000, round(ROWS_PER_SECOND * 60 * options.minutes))
    options.seed = random.randrange(2**31) if options.seed is None else options.seed
    return options


def soak(options: argparse.Namespace) -> Soaked:
    """Do it all but the plot."""
    spans = schedule.spans(options.minutes)
    faults = schedule.faults(spans, options.seed)
    rate = max(1, round(PACE * options.rows / (60 * options.minutes)))
    with (
        tempfile.TemporaryDirectory(prefix="backfill-soak-") as directory,
        EmbeddedPostgres(settings=POSTGRES) as postgres,
        weed() as server,
        FaultProxy(server.port) as proxy,
    ):
        tell(f"seed {options.seed}: {len(faults)} faults; filling a table of {options.rows:,} rows")
        fill(postgres, options.rows)
        postgres.sql(SETUP)
        migration = Migration(Path(directory), postgres.dsn(), proxy.endpoint, CONCURRENCY, rate)
        injector = Injector(migration, postgres, server, proxy)
        run = Soak(migration, injector, Churn(options.rows, options.seed))
        facts, proof, failure = Facts(), Proof(), ""
        try:
            run.run(spans, faults)
            run.finish()
            tell("comparing the bucket with the table")
            facts = journal_facts.read(migration.journal)
            proof = prove(migration, facts, postgres, server, seed=options.seed, churned=True)
        except (AssertionError, BackfillError) as error:
            # What was seen until then is worth keeping.
            failure = str(error)
        finally:
            run.daemon.kill()
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "soak.log").write_bytes(migration.log.read_bytes())
        log = migration.log.read_text(encoding="utf-8")
    verdicts = judging.verdicts(run.samples, run.deaths, facts, log, CONCURRENCY)
    return Soaked(
        options.minutes,
        options.rows,
        options.seed,
        rate,
        run.samples,
        run.done,
        run.deaths,
        run.requeued,
        facts,
        verdicts,
        proof,
        failure,
    )


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = soak(options)
    (options.out / "soak.json").write_text(document(found), encoding="utf-8")
    if not options.no_plot:
        peers = prepare(options.work)
        drawn = [*peers.script("plot_soak"), options.out / "soak.json", options.out / "soak.png"]
        subprocess.run(drawn, check=True, env=client_environment())
    print(summary(found))
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
