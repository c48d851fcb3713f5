"""Run a command and know what it cost: seconds on the clock, CPU seconds, peak memory of all its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.demo.processes import descendants

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOOK_SECONDS = 0.05
"""Between two looks at the memory; peaks are the kernel's own, so only the last of a process's life is missed."""
OUTPUT_TAIL = 3000
LIMIT_SECONDS = 900.0
"""A command that takes longer is killed, and so fails."""
ROOT = Path(__file__).parent.parent


class CommandFailed(Exception):  # noqa: N818 -- the name is the message
    """A command of a benchmark ended with another exit code than 0, or did not end."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one command took.

    Attributes:
        seconds: on the clock, from start to end.
        cpu_seconds: user and system of it and all children that it waited for.
        peak_mb: 10^6 bytes; resident peaks summed over its processes, as each was at its largest.
        output: what it wrote to standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    output: str


def run(arguments: Sequence[str | Path], *, env: Mapping[str, str], ended: int = 0) -> Cost:
    """Run `arguments` to their end, in the root of the repository; `ended` is the exit code that is right.

    Raises:
        CommandFailed: with the end of what it printed.
    """
    words = [str(word) for word in arguments]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=dict(env), cwd=ROOT
        )
        peaks: dict[int, int] = {}
        try:
            while True:
                reaped, status, usage = os.wait4(process.pid, os.WNOHANG)
                if reaped:
                    break
                _look(process.pid, peaks)
                if time.perf_counter() - began > LIMIT_SECONDS:
                    _kill(process.pid)
                time.sleep(LOOK_SECONDS)
        except BaseException:
            _kill(process.pid)
            process.wait()
            raise
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read().decode(errors="replace")
        errors.seek(0)
        if process.returncode != ended:
            said = (printed + errors.read().decode(errors="replace"))[-OUTPUT_TAIL:]
            raise CommandFailed(f"{' '.join(words[:5])} ...: exit code {process.returncode}\n{said}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, sum(peaks.values()) / 1e6, printed)


def _kill(pid: int) -> None:
    for each in [*descendants(pid), pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def _look(pid: int, peaks: dict[int, int]) -> None:
    """Note how large `pid` and all below it have been so far, in bytes.

    Not rusage's ru_maxrss: what a process was before exec counts there, which is a copy of this one.
    """
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        try:
            status = Path(f"/proc/{current}/status").read_text(encoding="ascii", errors="replace")
            for thread in Path(f"/proc/{current}/task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
        _, found, after = status.partition("VmHWM:")
        if found:
            peaks[current] = int(after.split(maxsplit=1)[0]) * 1024


def python() -> list[str]:
    """Return the words that run this interpreter on a module."""
    return [sys.executable, "-m"]
