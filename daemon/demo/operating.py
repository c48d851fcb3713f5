"""The operator of the demo: types `backfillctl` commands, and kills a daemon in the middle of its work."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.demo.processes import ChildProcess
from daemon.errors import BackfillError
from journal.reader import Reader
from journal.status import MigrationState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from daemon.demo.stopping import Stops
    from journal.status import MigrationStatus

COMMAND_SECONDS_MAX = 300.0
"""The longest command took 25 s here; a loaded machine gets twelve times that."""
POLL_SECONDS = 0.1
"""Between two looks at the journal of a running daemon."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended, and what it printed to stdout and stderr, in that order of writing."""

    exit_code: int
    output: str


class Operator:
    """Runs commands in one directory and one environment, each a process of its own."""

    def __init__(self, directory: Path, environment: Mapping[str, str], stops: Stops) -> None:
        self._directory = directory
        self._environment = environment
        self._stops = stops
        self._numbers = count(1)

    def backfillctl(self, *words: str) -> Answer:
        """Run a command to its end.

        Raises:
            BackfillError: it did not end in time.
        """
        with self._running(*words) as child:
            if child.wait(COMMAND_SECONDS_MAX) is None:
                raise BackfillError(f"backfillctl {words[0]} did not end within {COMMAND_SECONDS_MAX:.0f} s")
            return _answer(child)

    def run_and_kill(self, *words: str, journal: Path, share: float) -> MigrationStatus:
        """Start a session and SIGKILL it once `share` of the planned keys are settled and some are in flight.

        Returns:
            The journal's state after the kill.

        Raises:
            BackfillError: the session ended before it could be killed.
        """
        with self._running(*words) as child:
            while child.wait(POLL_SECONDS) is None:
                if journal.exists() and _is_at(journal, share):
                    child.kill()
                    break
            status = _status(journal) if journal.exists() else None
            if status is None or status.state is not MigrationState.KILLED:
                raise BackfillError(
                    f"backfillctl {words[0]} ended with exit code {child.returncode} before it could be killed;"
                    f" it printed:\n{child.log_tail()}"
                )
            return status

    @contextmanager
    def _running(self, *words: str) -> Iterator[ChildProcess]:
        # Run from its source tree, the program is found through the working directory only.
        source = Path(__file__).parents[2]
        with ExitStack() as stack:
            with self._stops.held_back():
                child = ChildProcess(
                    [sys.executable, "-m", "daemon", *words],
                    log=self._directory / f"command-{next(self._numbers)}.log",
                    env=self._environment,
                    cwd=source if Path.cwd() == source else self._directory,
                )
                stack.callback(child.kill)
            yield child


def _answer(child: ChildProcess) -> Answer:
    if child.returncode is None:
        raise BackfillError(f"process {child.pid} is still running")
    return Answer(child.returncode, child.log.read_text(encoding="utf-8", errors="replace"))


def _is_at(journal: Path, share: float) -> bool:
    sources = _status(journal).sources
    planned = sum(one.counts.planned_rows for one in sources)
    settled = sum(one.counts.settled for one in sources)
    return (
        all(any(made.state == "sealed" for made in one.passes) for one in sources)
        and settled >= share * planned > 0
        and any(one.counts.in_flight for one in sources)
    )


def _status(journal: Path) -> MigrationStatus:
    with Reader.open(journal) as reader:
        return reader.status(now_us=time.time_ns() // 1000)
