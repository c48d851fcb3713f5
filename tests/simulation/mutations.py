"""`python -m tests.simulation.mutations`: break the product on purpose, and see the simulation find it.

Each break is made in a copy of `daemon` and `journal`, and seeds are simulated with that copy until one fails.
A seed that takes more than a minute of real time is reported as hung, which is not found: the simulation's own
bounds are in virtual time, and whatever never waits passes them by.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.simulation.breaks import BREAKS, Break

ROOT = Path(__file__).parents[2]
SEEDS_MAX = 500
SEED_SECONDS_MAX = 60.0
"""Of real time; the slowest of the first 100 seeds of the unbroken product takes 0.4."""


@dataclass(frozen=True)
class Found:
    """What the seeds made of one product.

    Attributes:
        seed: the one that failed; None if none did.
        problem: what it says, in one line.
    """

    seed: int | None
    problem: str
    seconds: float
    hung: bool = False


def look_for(broken: Break | None, *, seeds: int = SEEDS_MAX, first: int = 0) -> Found:
    """Simulate seeds with a copy of the product that has this break, until one fails."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        for package in ("daemon", "journal"):
            shutil.copytree(ROOT / package, copy / package)
        if broken is not None:
            broken.apply(copy)
        ended = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from tests.simulation.mutations import search; search({first}, {seeds})",
            ],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([directory, str(ROOT)])},
            capture_output=True,
            text=True,
            check=False,
        )
    seconds = time.monotonic() - begun
    *_, last = ended.stdout.splitlines() or [""]
    told = json.loads(last or "{}")
    if ended.returncode == 0:
        return Found(told["failed"], told["problem"], seconds)
    if "Timeout (" in ended.stderr and "begun" in told:
        return Found(told["begun"], f"hung for {SEED_SECONDS_MAX:.0f} s", seconds, hung=True)
    raise RuntimeError(f"the simulation did not run:\n{ended.stderr[-2000:]}")


def search(first: int, seeds: int) -> None:
    """Simulate in this process and print what fails first, as JSON; a line for each seed that is begun."""
    import daemon
    from tests.simulation.simulation import simulate

    assert Path(daemon.__file__).parents[1] == Path.cwd(), "not the copy"
    logging.disable(logging.CRITICAL)
    failed, problem = None, ""
    for seed in range(first, first + seeds):
        _say(json.dumps({"begun": seed}))
        faulthandler.dump_traceback_later(SEED_SECONDS_MAX, exit=True)
        with tempfile.TemporaryDirectory() as directory:
            try:
                simulate(seed, Path(directory))
            except BaseException as error:  # noqa: BLE001 -- whatever ends a seed has found the break
                failed, problem = seed, _first_problem(error)
                break
    faulthandler.cancel_dump_traceback_later()
    _say(json.dumps({"failed": failed, "problem": problem}))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _first_problem(error: BaseException) -> str:
    from tests.simulation.observer import Violation

    leaves = _leaves(error)
    one = next((leaf for leaf in leaves if isinstance(leaf, Violation)), leaves[0])
    if isinstance(one, trio.TooSlowError):
        return "no end within the bound of virtual time"
    kind = "" if isinstance(one, Violation) else f"{type(one).__name__}: "
    return kind + (str(one).splitlines() or [""])[0]


def _leaves(error: BaseException) -> list[BaseException]:
    """Return what is in a group, and whatever that was raised in the middle of: a cleanup may fail as well."""
    waiting: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while waiting:
        one = waiting.pop()
        if one is None or any(one is other for other in seen):
            continue
        seen.append(one)
        waiting += [one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ())]
    return [one for one in seen if not isinstance(one, BaseExceptionGroup)]


def main() -> int:
    """Look for every break; the exit code says whether all were found, and nothing in the unbroken product."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these breaks")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help=f"seeds at most ({SEEDS_MAX})")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once (one per core)")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {broken.name for broken in BREAKS}
    if unknown:
        parser.error(f"no such break: {', '.join(sorted(unknown))}")
    chosen = [broken for broken in BREAKS if not arguments.names or broken.name in arguments.names]
    width = max(len(broken.name) for broken in BREAKS)
    _say(f"{'break':{width}}  seed  seconds  what was found")
    good = True
    with ThreadPoolExecutor(arguments.jobs) as pool:
        work: list[Break | None] = [None, *chosen]
        results = pool.map(
            lambda broken: look_for(broken, seeds=arguments.seeds, first=arguments.first), work
        )
        for broken, found in zip(work, results, strict=True):
            name = "(none)" if broken is None else broken.name
            good &= (found.seed is None) is (broken is None) and not found.hung
            problem = found.problem or f"nothing in {arguments.seeds} seeds"
            seed = "-" if found.seed is None else found.seed
            _say(f"{name:{width}}  {seed:>4}  {found.seconds:7.1f}  {problem:.150}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
