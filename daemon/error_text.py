"""What a failed command tells: every expected error once, and the gravest exit code; pure."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from daemon.errors import BackfillError, ConfigError
from daemon.rendering_units import one_line
from journal.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTPUT_ERRNOS = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""How standard output fails: its reader went away (`events | head`), its disk is full or broken."""


def is_output_failure(error: BaseException) -> bool:
    """Say whether standard output failed: files that commands write themselves fail as BackfillError."""
    return isinstance(error, OSError) and error.filename is None and error.errno in OUTPUT_ERRNOS


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def expected(error: BaseException) -> list[BackfillError | JournalError]:
    """Return the failures in `error` that an operator is told, each text once."""
    told = [one for one in _leaves(error) if isinstance(one, BackfillError | JournalError)]
    return list({error_text(one): one for one in told}.values())


def unexpected(error: BaseException) -> list[BaseException]:
    """Return what in `error` is neither such a failure nor an interruption.

    Beside a failure that is told, that standard output failed too is not worth a word.
    """
    known = BackfillError | JournalError | KeyboardInterrupt
    found = [one for one in _leaves(error) if not isinstance(one, known)]
    return [] if expected(error) and all(map(is_output_failure, found)) else found


def problem_text(failure: BackfillError | JournalError) -> str:
    """Return the problem behind "error: ": several of one command one a line."""
    if isinstance(failure, ConfigError) and len(failure.problems) > 1:
        lines = "\n".join(f"  {one_line(problem)}" for problem in failure.problems)
        return f"{len(failure.problems)} problems:\n{lines}"
    return failure.problem


def error_text(failure: BackfillError | JournalError) -> str:
    """Return what a command prints: "error: " and the problem, "hint: " and what helps below it."""
    text = f"error: {problem_text(failure)}"
    text = f"{text}\nhint: {failure.hint}" if failure.hint else text
    # What a file, a server or a row brought in must not drive the terminal.
    return "\n".join(map(one_line, text.split("\n")))
