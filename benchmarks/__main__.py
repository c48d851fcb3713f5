"""Measure backfillctl beside what else one would use, on this machine, and say which targets are met.

Starts its own PostgreSQL and sinks on loopback, makes an environment of its own for the peers, interleaves all arms
in rounds, prints tables as Markdown, and writes results.md, results.json and throughput.png into --out. Quiet cores
are needed for figures that mean something: clients, PostgreSQL and sink share them.

The exit code is 0 if everything ran, whether or not targets are met (that stands in the table), and 1 if an arm
failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import journal_at_scale, memory, planning_rate, table, targets, throughput
from benchmarks.arms import Bench
from benchmarks.measuring import CommandFailed
from benchmarks.peers_environment import Peers, cache_directory, prepare
from benchmarks.scenarios import SCENARIOS, quick
from benchmarks.servers import POSTGRES, client_environment
from daemon.demo.postgres import EmbeddedPostgres
from daemon.errors import BackfillError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.targets import Verdict

ROUNDS = 3
FREE_BYTES_MIN = 10_000_000_000
"""Ten million rows, their stage and their journal took 5 GB here."""
NOTES = """\
Clients, PostgreSQL and sink share these cores. Rates: ours from the first claim to the last outcome in the journal,
scripts from the first fetch to the last answer (plan and list of keys made before), s5cmd and rclone as whole
processes, from files on disk where it says alone. CPU and peak memory are of the client's whole process, start and
end included. "ours is" compares round by round. Only ours keeps a record of what it did."""
OTHER_GROUPS = ("planning", "journal", "memory")
GROUPS = (*dict.fromkeys(scenario.group for scenario in SCENARIOS), *OTHER_GROUPS)


@dataclass
class Results:
    """Everything that one command found."""

    machine: dict[str, Any]
    scenarios: dict[str, throughput.Measured] = field(default_factory=dict)
    planning: planning_rate.Planning | None = None
    journal: journal_at_scale.AtScale | None = None
    memory: memory.Memory | None = None
    failures: dict[str, str] = field(default_factory=dict)

    def verdicts(self) -> list[Verdict]:
        """Return every target, those too that this run did not measure."""
        return [
            *targets.of_throughput(self.scenarios),
            *targets.of_planning(self.planning),
            *targets.of_memory(self.memory, self.planning),
            *targets.of_journal(self.journal),
        ]

    def markdown(self) -> str:
        """Return what README shows."""
        parts = [table.of_scenario(measured) for measured in self.scenarios.values()]
        parts += [table.of_planning(self.planning)] if self.planning else []
        parts += [table.of_journal(self.journal)] if self.journal else []
        parts += [table.of_memory(self.memory)] if self.memory else []
        parts.append(table.of_targets(self.verdicts()))
        versions = ", ".join(f"{name} {version}" for name, version in self.machine["peers"].items())
        told = (
            f"{self.machine['at'][:10]}, {self.machine['cores']} cores ({self.machine['cpu']}), Python "
            f"{self.machine['python']}, {versions}; {self.machine['rounds']} rounds, median (lowest to highest)"
        )
        if self.machine["is_quick"]:
            told = f"SMOKE RUN, THESE FIGURES MEAN NOTHING. {told}"
        return "\n\n".join([told, NOTES, *parts]) + "\n"

    def json(self) -> str:
        """Return every single measurement."""
        scenarios = [
            {
                "name": name,
                "title": measured.scenario.title,
                "connections": measured.scenario.connections,
                "latency_ms": measured.scenario.latency_ms,
                "mean_bytes": measured.mean_bytes,
                "arms": {
                    arm: [asdict(sample) for sample in found] for arm, found in measured.samples.items()
                },
                "failures": measured.failures,
            }
            for name, measured in self.scenarios.items()
        ]
        told = {
            "machine": self.machine,
            "scenarios": scenarios,
            "planning": asdict(self.planning) if self.planning else None,
            "journal": asdict(self.journal) if self.journal else None,
            "memory": asdict(self.memory) if self.memory else None,
            "targets": [asdict(verdict) for verdict in self.verdicts()],
            "failures": self.failures,
        }
        return json.dumps(told, indent=1) + "\n"


def tell(line: str) -> None:
    """Say on standard error what was just found; standard output has the tables alone."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def machine(peers: Peers, options: argparse.Namespace) -> dict[str, Any]:
    """Return what figures depend on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "rounds": options.rounds,
        "is_quick": options.quick,
        "peers": dict(peers.versions),
    }


def measure(bench: Bench, results: Results, options: argparse.Namespace) -> None:
    """Run the groups that were asked for; one that fails does not keep the next from running.

    What was found so far is in results.json after each.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    for scenario in SCENARIOS:
        if scenario.group in options.only:
            chosen = quick(scenario) if options.quick else scenario
            found = throughput.measure(bench, chosen, options.rounds, tell)
            results.scenarios[scenario.name] = found
            results.failures |= {f"{scenario.name}: {arm}": text for arm, text in found.failures.items()}
            (options.out / "results.json").write_text(results.json(), encoding="utf-8")
    for group, module in zip(OTHER_GROUPS, (planning_rate, journal_at_scale, memory), strict=True):
        if group in options.only:
            try:
                setattr(results, group, module.measure(bench, is_quick=options.quick, tell=tell))
            except (CommandFailed, AssertionError, BackfillError) as failure:
                results.failures[group] = str(failure)
                tell(f"{group} FAILED: {failure}")
            (options.out / "results.json").write_text(results.json(), encoding="utf-8")


def write(results: Results, peers: Peers, out: Path) -> None:
    """Print the tables, and write them, the figures and the plot."""
    print(results.markdown())
    (out / "results.md").write_text(results.markdown(), encoding="utf-8")
    (out / "results.json").write_text(results.json(), encoding="utf-8")
    drawn = [*peers.script("plot"), out / "results.json", out / "throughput.png"]
    subprocess.run(drawn, check=True, env=client_environment())
    tell(f"written: results.md, results.json, throughput.png in {out}")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP",
                        help=f"of {', '.join(GROUPS)}; default: all")  # fmt: skip
    parser.add_argument("--rounds", type=int, help=f"at least {ROUNDS}, unless --quick (default: {ROUNDS})")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"), metavar="DIR")
    parser.add_argument("--work", type=Path, default=cache_directory(), metavar="DIR",
                        help="keeps the peers' environment between runs (default: below the user's cache)")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="one round of an eighth: whether all of it runs")
    options = parser.parse_args(given)
    least = 1 if options.quick else ROUNDS
    options.rounds = options.rounds or least
    if options.rounds < least:
        parser.error(f"--rounds: expected at least {least}, found {options.rounds}")
    return options


def stopped(*_: object) -> None:
    """End by SIGTERM: every `finally` on the way out ends its children and removes its files."""
    tell("stopped by SIGTERM; what was found so far is in results.json")
    sys.exit(143)


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, stopped)
    began = time.monotonic()
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if not options.quick and free < FREE_BYTES_MIN:
        tell(f"{tempfile.gettempdir()}: expected {FREE_BYTES_MIN:,} bytes free, found {free:,}; set TMPDIR")
        return 1
    tell("preparing the peers' environment")
    peers = prepare(options.work)
    results = Results(machine(peers, options))
    with (
        tempfile.TemporaryDirectory(prefix="backfill-benchmarks-") as directory,
        EmbeddedPostgres(settings=POSTGRES) as postgres,
    ):
        measure(Bench(postgres, peers, Path(directory)), results, options)
    results.machine["minutes"] = round((time.monotonic() - began) / 60, 1)
    write(results, peers, options.out)
    tell(f"took {results.machine['minutes']} minutes")
    for name, text in results.failures.items():
        tell(f"FAILED: {name}: {text}")
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
