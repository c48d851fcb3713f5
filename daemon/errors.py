"""What can go wrong, as the operator meets it: a problem, a hint, an exit code."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command; a contract with scripts and service managers (README lists them)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARKED = 3
    MISMATCH = 4
    UNREACHABLE = 5
    REFUSED = 6
    JOURNAL = 7
    STOPPED = 8
    INTERRUPTED = 130
    TERMINATED = 143


class BackfillError(Exception):
    """A failure told to the operator: what was tried on what, expected and found, then what helps.

    Attributes:
        problem: operation, subject, expected and found; lower case, no final stop; never a secret.
        hint: the command or config key that helps, as an imperative sentence; may be empty.
        keys: row and object keys that `problem` quotes; the log may have to redact them.
        exit_code: what the process exits with if nothing handles it.
    """

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, problem: str, hint: str = "", *, keys: tuple[str, ...] = ()) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.keys = keys

    def __str__(self) -> str:
        return f"{self.problem}\n  hint: {self.hint}" if self.hint else self.problem


class ConfigError(BackfillError):
    """The configuration or the command line is wrong; `problems` holds every one found, not the first."""

    exit_code = ExitCode.USAGE

    def __init__(self, problems: list[str], hint: str = "") -> None:
        super().__init__("\n".join(problems), hint)
        self.problems = problems


class UnreachableError(BackfillError):
    """PostgreSQL or the S3 endpoint did not answer for longer than `give_up_after`."""

    exit_code = ExitCode.UNREACHABLE


class RefusedError(BackfillError):
    """PostgreSQL or S3 answered, and refused: wrong credentials, a missing right, a missing bucket."""

    exit_code = ExitCode.REFUSED


class SourceUnfitError(BackfillError):
    """A table can't be migrated as configured (missing column, unusable key or value type, hidden rows)."""

    exit_code = ExitCode.USAGE
