"""What `check` finds, as values and as lines of text; pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from daemon.errors import BackfillError, ExitCode
from journal.errors import IdentityMismatch, JournalError, JournalFailed, JournalMissing, ManifestUnfit

if TYPE_CHECKING:
    from collections.abc import Iterable

GRAVEST_FIRST = (
    ExitCode.FAILED,
    ExitCode.JOURNAL,
    ExitCode.REFUSED,
    ExitCode.USAGE,
    ExitCode.UNREACHABLE,
    ExitCode.MISMATCH,
    ExitCode.PARKED,
)
"""Which code several failures together exit with: first what a restart can't mend."""


class Level(StrEnum):
    """How good or bad a finding is; the text is what a line begins with."""

    OK = "ok"
    WARNING = "warn"
    FAILURE = "FAIL"


_COLOURS = {Level.OK: 32, Level.WARNING: 33, Level.FAILURE: 31}
"""Green, yellow, red (ECMA-48, SGR)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        subject: what was looked at: "journal", "postgres", "source NAME", "bucket NAME".
        text: what was found, one line.
        hint: what helps; empty where nothing has to.
        exit_code: what a failure of this kind exits with; DONE for the others.
    """

    level: Level
    subject: str
    text: str
    hint: str = ""
    exit_code: ExitCode = ExitCode.DONE


def ok(subject: str, text: str) -> Finding:
    """Return a finding that needs nothing done."""
    return Finding(Level.OK, subject, text)


def warning(subject: str, text: str, hint: str) -> Finding:
    """Return a finding that a migration can live with."""
    return Finding(Level.WARNING, subject, text, hint)


def failure(subject: str, error: BackfillError | JournalError) -> Finding:
    """Return the finding of an error that would stop a migration."""
    return Finding(Level.FAILURE, subject, error.problem, error.hint, exit_code_of(error))


def exit_code_of(error: BackfillError | JournalError) -> ExitCode:
    """Return what the process exits with for `error`."""
    if isinstance(error, BackfillError):
        return error.exit_code
    if isinstance(error, JournalFailed):
        return ExitCode.FAILED
    if isinstance(error, IdentityMismatch | JournalMissing | ManifestUnfit):
        return ExitCode.USAGE
    return ExitCode.JOURNAL


def gravest(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the exit code of several failures together; DONE for none."""
    found = set(codes) - {ExitCode.DONE}
    return min(found, key=GRAVEST_FIRST.index) if found else ExitCode.DONE


def finding_lines(finding: Finding, *, subject_width: int, colour: bool) -> str:
    """Return a finding as text: one line, continuations and the hint indented below it."""
    word = f"{finding.level.value:<4}"
    if colour:
        word = f"\x1b[{_COLOURS[finding.level]}m{word}\x1b[0m"
    indent = " " * (4 + 2 + subject_width + 2)
    first, *rest = [*finding.text.splitlines(), *([f"hint: {finding.hint}"] if finding.hint else [])]
    return "\n".join(
        [f"{word}  {finding.subject:<{subject_width}}  {first}", *(indent + line for line in rest)]
    )
