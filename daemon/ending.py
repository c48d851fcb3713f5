"""The frame of `run`, `plan` and `verify`: failures become log lines, and the last line comes on every way out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from daemon.allocation import collect_less_often
from daemon.config import Config
from daemon.error_text import expected, problem_text, unexpected
from daemon.errors import BackfillError, ExitCode
from daemon.findings import exit_code_of, gravest
from daemon.log_events import LogEvent, Scalar, Told, log_event, tell
from daemon.logs import StderrLog, chosen_style, to_stderr
from daemon.rendering_progress import final_line, totals
from daemon.runtime import wall_clock_us
from journal.entries import SourceCounts
from journal.errors import JournalError
from journal.reader import Reader

_WITH_WORK_LEFT = frozenset(
    {
        ExitCode.PARKED,
        ExitCode.MISMATCH,
        ExitCode.STOPPED,
        ExitCode.INTERRUPTED,
        ExitCode.TERMINATED,
    }
)
"""Ends that are no failure of the command itself."""


@dataclass
class Ending:
    """What the last line says of the command that is running.

    Attributes:
        log: where it is written.
        outcome: how it ended, in words; empty until that is known.
        copied_before: bytes that were uploaded when the session began; None before one begins.
        begun: when the command began, monotonic seconds.
        over: when its work was over, whatever stays behind longer; None while it is not.
    """

    log: StderrLog
    outcome: str = ""
    copied_before: int | None = None
    begun: float = field(default_factory=time.monotonic)
    over: float | None = None

    @property
    def seconds(self) -> float:
        """How long the command's work has taken, or took."""
        return (time.monotonic() if self.over is None else self.over) - self.begun

    def begin(self, counts: Iterable[SourceCounts]) -> None:
        """Note what was there before the session that begins."""
        self.copied_before = sum(each.stored_bytes for each in counts)


def concluded(
    load: Callable[[], Config], work: Callable[[Config, Ending], ExitCode], *, log_format: str
) -> ExitCode:
    """Load the configuration, do the work, tell how it failed, if so; write the last line, return the exit code.

    Args:
        load: raises ConfigError.
        work: raises BackfillError, JournalError, KeyboardInterrupt, or a group of them.
        log_format: of what goes wrong before the configuration says what it is to be.

    Raises:
        BaseException: what nobody expects, after the last line: a traceback for a report is worth more.
    """
    collect_less_often()
    ending = Ending(to_stderr(chosen_style(log_format, os.environ)))
    config: Config | None = None
    try:
        config = load()
        ending.log.configure(config, os.environ)
        code = work(config, ending)
    except (BackfillError, JournalError, KeyboardInterrupt, BaseExceptionGroup) as error:
        code = _tell(error)
        ending.outcome = _interruption(code, ending)
        _write_last(ending, config, code)
        if unexpected(error):
            raise
        return code
    except BaseException as error:
        ending.outcome = f"failed: {type(error).__name__}"
        _write_last(ending, config, ExitCode.FAILED)
        raise
    _write_last(ending, config, code)
    return code


def _tell(error: BaseException) -> ExitCode:
    failures = expected(error)
    for failure in failures:
        code = exit_code_of(failure)
        keys = failure.keys if isinstance(failure, BackfillError) else ()
        log_event(LogEvent.FAILED, problem_text(failure), keys=keys, hint=failure.hint, exit_code=int(code))
    if unexpected(error):
        return ExitCode.FAILED
    if failures:
        return gravest(map(exit_code_of, failures))
    log_event(
        LogEvent.FAILED,
        "interrupted",
        hint="the same command continues where this one stopped",
        exit_code=int(ExitCode.INTERRUPTED),
    )
    return ExitCode.INTERRUPTED


def _interruption(code: ExitCode, ending: Ending) -> str:
    if code is ExitCode.INTERRUPTED:
        return "interrupted"
    return "did not start" if ending.copied_before is None else "halted"


def _write_last(ending: Ending, config: Config | None, code: ExitCode) -> None:
    seconds = ending.seconds
    counts = None if config is None else counts_of(config)
    copied = 0 if counts is None else sum(each.stored_bytes for each in counts)
    uploaded = 0 if ending.copied_before is None else max(0, copied - ending.copied_before)
    level = logging.ERROR
    if code is ExitCode.DONE:
        level = logging.INFO
    elif code in _WITH_WORK_LEFT:
        level = logging.WARNING
    fields: dict[str, Scalar] = {"outcome": ending.outcome}
    if counts is not None:
        fields |= {word.replace(" ", "_"): number for word, number in totals(counts).items()}
    fields |= {"uploaded_bytes": uploaded, "seconds": round(seconds, 3), "exit_code": int(code)}
    tell(
        Told(LogEvent.ENDED, fields=fields),
        final_line(ending.outcome, counts, uploaded=uploaded, seconds=seconds, exit_code=int(code)),
        level=level,
    )


def counts_of(config: Config) -> list[SourceCounts] | None:
    """Return the journal's counts as any reader finds them; None where there is no journal that can be read."""
    try:
        with Reader.open(config.migration.journal, undisturbing=True) as reader:
            return [source.counts for source in reader.status(now_us=wall_clock_us()).sources]
    except JournalError:
        # That it can't be read was told already, or nothing was to be read: this only counts.
        return None
