"""Mutation testing: change one thing in one function, and see whether a test fails.

    python -m tests.mutation journal/checkpoint.py daemon/planning.py --tests tests/journal tests/planning

Needs `pip install mutmut coverage` (not among the development dependencies: CI does not run it). Tests are
collected once; they run once under coverage, each line noting who executes it; then each mutant has a process of
its own, forked, in which the tests run that execute the changed line, until one fails: first those whose file names the module, the fastest first. A mutant
that no test executes has survived. `SURVIVORS.md` beside this file explains those that are left.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import pickle
import re
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import coverage
import pytest

from tests.mutation.mutants import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
TEST_SECONDS_MAX = 4.0
"""A test that takes longer under coverage is left out."""
MUTANT_SECONDS_MAX = 15.0
"""Seconds of tests (as they took under coverage) for one mutant at most: of thousands, those that name its module."""


@dataclass
class Tests:
    """What the tests of the unchanged product do: who executes each line, and how long each test takes."""

    by_line: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, mutant: Mutant) -> list[str]:
        """Return the tests that run what is changed, fastest first."""
        by_line = self.by_line.get(mutant.path, {})
        for first, last in (mutant.lines, mutant.body):
            found = set().union(*(by_line.get(line, set()) for line in range(first, last + 1)))
            if found:
                break
        module = mutant.path.removesuffix(".py").replace("/", ".")
        chosen, left = [], MUTANT_SECONDS_MAX
        for test in sorted(
            found & self.seconds.keys(), key=lambda test: (not _names(test, module), self.seconds[test])
        ):
            left -= self.seconds[test]
            if left >= 0 or not chosen:
                chosen.append(test)
        return chosen


@cache
def _names(test: str, module: str) -> bool:
    """Say whether the file of a test names the module, or all of it by `from package import module`."""
    text = (ROOT / test.partition("::")[0]).read_text()
    package, _, name = module.partition(".")
    return (
        module in text or re.search(rf"^from {package} import .*\b{name}\b", text, re.MULTILINE) is not None
    )


class Driver:
    """A plugin that runs pytest's items in forked processes instead of in its own loop."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._failed = False
        self._scratch = Path(tempfile.mkdtemp(prefix="mutation-"))
        self.results: list[tuple[Mutant, str]] = []
        self.totals: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed |= report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        for path in self._arguments.modules:
            importlib.import_module(path.removesuffix(".py").replace("/", "."))
        self._say(f"{len(items)} tests, looking which lines each executes")
        tests = self._measure(items, session.config)
        slow = len(items) - len(tests.seconds)
        self._say(f"{slow} tests left out (slower than {TEST_SECONDS_MAX} s, skipped or failing)")
        waiting = [(mutant, tests.of(mutant)) for mutant in self._sample()]
        self._run_all(waiting, items, tests, session.config)
        shutil.rmtree(self._scratch)
        return True

    def _sample(self) -> Iterator[Mutant]:
        for path in self._arguments.modules:
            found = mutants_of(path, ROOT)
            self.totals[path] = len(found)
            # A seed of each module's own, so that one module alone has the same sample.
            rng = Random(f"{self._arguments.seed} {path}")
            yield from rng.sample(found, min(self._arguments.sample or len(found), len(found)))

    def _measure(self, items: dict[str, pytest.Item], config: pytest.Config) -> Tests:
        told = self._scratch / "tests"

        def run() -> int:
            files = {str(ROOT / path): path for path in self._arguments.modules}
            measured = coverage.Coverage(data_file=None, include=list(files), config_file=False)
            tests = Tests()
            measured.start()
            for item in items.values():
                measured.switch_context(item.nodeid)
                begun, self._failed = time.monotonic(), False
                item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
                seconds = time.monotonic() - begun
                if not self._failed and seconds <= TEST_SECONDS_MAX:
                    tests.seconds[item.nodeid] = seconds
            measured.stop()
            for file, path in files.items():
                lines = measured.get_data().contexts_by_lineno(file)
                tests.by_line[path] = {line: set(names) for line, names in lines.items()}
            told.write_bytes(pickle.dumps(tests))
            return 0

        status = os.waitpid(self._fork(run, config), 0)[1]
        assert status == 0, "the tests could not be measured"
        found = pickle.loads(told.read_bytes())
        assert isinstance(found, Tests)
        return found

    def _run_all(
        self,
        waiting: list[tuple[Mutant, list[str]]],
        items: dict[str, pytest.Item],
        tests: Tests,
        config: pytest.Config,
    ) -> None:
        running: dict[int, tuple[int, Mutant, float]] = {}
        waiting.reverse()
        while waiting or running:
            while waiting and len(running) < self._arguments.jobs:
                mutant, names = waiting.pop()
                if not names:
                    self._note(mutant, "unreached")
                    continue
                run = self._trial(mutant, [items[name] for name in names])
                allowed = 30 + 10 * sum(tests.seconds[name] for name in names)
                pid = self._fork(run, config)
                running[os.pidfd_open(pid)] = (pid, mutant, time.monotonic() + allowed)
            ended, _, _ = select.select(running, [], [], 1)
            for handle, (pid, mutant, due) in list(running.items()):
                if handle in ended:
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    self._note(mutant, {0: "survived", 3: "impossible"}.get(code, "killed"))
                elif time.monotonic() > due:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    self._note(mutant, "timeout")
                else:
                    continue
                del running[handle]
                os.close(handle)
                shutil.rmtree(self._scratch / str(pid), ignore_errors=True)

    def _trial(self, mutant: Mutant, chosen: list[pytest.Item]) -> Callable[[], int]:
        def run() -> int:
            if not mutant.apply(sys.modules[mutant.path.removesuffix(".py").replace("/", ".")]):
                return 3
            for item in chosen:
                item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
                if self._failed:
                    return 1
            return 0

        return run

    def _fork(self, run: Callable[[], int], config: pytest.Config) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 4
        try:
            config.pluginmanager.unregister(name="terminalreporter")
            factory: Any = config._tmp_path_factory  # type: ignore[attr-defined]
            factory._basetemp = self._scratch / str(os.getpid())
            factory._basetemp.mkdir()
            code = run()
        finally:
            os._exit(code)

    def _note(self, mutant: Mutant, verdict: str) -> None:
        self.results.append((mutant, verdict))
        if verdict in {"survived", "unreached"}:
            self._say(
                f"{verdict}: {mutant.path}:{mutant.lines[0]} {mutant.function}\n- {mutant.old}\n+ {mutant.new}"
            )

    def _say(self, line: str) -> None:
        with Path(self._arguments.log).open("a") as log:
            log.write(f"{line}\n")


def interval(killed: int, number: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    if not number:
        return 0.0, 1.0
    z, share = 1.96, killed / number
    centre = share + z * z / (2 * number)
    spread = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    return (centre - spread) / (1 + z * z / number), (centre + spread) / (1 + z * z / number)


def _tried(counts: Counter[str]) -> int:
    return counts.total() - counts["impossible"]


def main() -> int:
    """Try mutants and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("modules", nargs="+", help="paths such as journal/checkpoint.py")
    parser.add_argument("--tests", nargs="+", required=True, help="which tests may kill")
    parser.add_argument("--sample", type=int, help="mutants of a module, drawn by --seed; all if left out")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at once (one per core)")
    parser.add_argument("--log", default="mutation.log", help="where survivors are told as they are found")
    arguments = parser.parse_args()
    driver = Driver(arguments)
    pytest.main(
        [*arguments.tests, "-q", "-n", "0", "-p", "no:cacheprovider"],
        plugins=[driver],
    )
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant, verdict in driver.results:
        table[mutant.path][verdict] += 1
        table["all"][verdict] += 1
    lines = [f"{'module':32} mutants tried killed   %   95 %"]
    for path, counts in sorted(table.items(), key=lambda entry: entry[0] == "all"):
        killed = counts["killed"] + counts["timeout"]
        tried = _tried(counts)
        low, high = interval(killed, tried)
        number = driver.totals[path] if path != "all" else sum(driver.totals.values())
        share = 100 * killed / max(tried, 1)
        lines.append(
            f"{path:32} {number:7} {tried:5} {killed:6} {share:4.0f} {100 * low:3.0f}-{100 * high:.0f}"
        )
    weights = driver.totals.total()
    weighted = sum(
        driver.totals[path] / weights * (counts["killed"] + counts["timeout"]) / max(1, _tried(counts))
        for path, counts in table.items()
        if path != "all"
    )
    lines.append(f"killed, each module weighed by its mutants: {100 * weighted:.0f} %")
    sys.stdout.write("\n".join(lines) + "\n")
    Path(arguments.log + ".json").write_text(
        json.dumps({path: dict(counts) for path, counts in table.items()})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
