"""The journal alone at ten million keys: cost per key, open and resume, `status`. What `journal_cost` measures, in brief.

In a process of its own, so that its memory can be told:

    python -m benchmarks.journal_at_scale KEYS DIRECTORY
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import journal_cost, status_cost
from benchmarks.measuring import python, run
from benchmarks.servers import client_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.arms import Bench

KEYS = 10_000_000
KEYS_QUICK = 100_000
IN_FLIGHT = 1000
COMMANDS = 5


@dataclass(frozen=True, slots=True)
class AtScale:
    """Costs of the journal.

    Attributes:
        plan_us, claim_us, outcome_us: CPU microseconds per key.
        resume_ms: open, recover what was in flight, claim.
        status_query_ms, status_command_ms: on the clock; the command from process start to end, median.
        peak_mb: of the process that wrote it all, 10^6 bytes.
    """

    keys: int
    plan_us: float
    claim_us: float
    outcome_us: float
    bytes_per_key: float
    resume_ms: float
    status_query_ms: float
    status_command_ms: float
    peak_mb: float


def measure(bench: Bench, *, is_quick: bool, tell: Callable[[str], None]) -> AtScale:
    """Write a journal, settle all but a thousand keys, and time what an operator waits for."""
    keys = KEYS_QUICK if is_quick else KEYS
    place = bench.directory / bench.fresh()
    place.mkdir()
    cost = run([*python(), "benchmarks.journal_at_scale", str(keys), place], env=client_environment())
    found = AtScale(**json.loads(cost.output.splitlines()[-1]), peak_mb=cost.peak_mb)
    for leftover in place.iterdir():
        leftover.unlink()
    tell(
        f"journal, {keys:,} keys: {found.plan_us + found.claim_us + found.outcome_us:.1f} us CPU and "
        f"{found.bytes_per_key:.0f} B a key, resume {found.resume_ms:.1f} ms, status {found.status_command_ms:.0f} ms"
    )
    return found


def main() -> None:
    keys, path = int(sys.argv[1]), Path(sys.argv[2]) / "journal.db"
    cost = journal_cost.ours(path, keys, left=IN_FLIGHT)
    steps = {f"{name}_us": seconds / keys * 1e6 for name, seconds in cost.seconds.items()}
    resumed, asked = journal_cost.resume(path)
    commands = [status_cost.status(path)[0] for _ in range(COMMANDS)]
    told = {
        "keys": keys,
        **steps,
        "bytes_per_key": cost.bytes,
        "resume_ms": resumed * 1e3,
        "status_query_ms": asked * 1e3,
        "status_command_ms": statistics.median(commands) * 1e3,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
