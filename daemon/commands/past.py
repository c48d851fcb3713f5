"""The status of an earlier moment, for `status --as-of`; how far the fold is goes to stderr where it takes long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from daemon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from journal.reader import Reader
    from journal.status import MigrationStatus

TELL_SECONDS = 2.0
"""Between two lines about how far the fold is: nothing is said of what takes less."""


def past_status(reader: Reader, time_us: int, *, now_us: int) -> MigrationStatus:
    """Return the status at `time_us` (microseconds since 1970-01-01 UTC), folded from the log alone.

    Raises:
        ConfigError: it lies in the future, or before the migration's first event.
    """
    from daemon.rendering_units import moment_ms
    from journal.as_of import status_as_of

    if time_us > now_us:
        raise ConfigError([f"--as-of: found {moment_ms(time_us)}; expected a time that has passed"])
    found = status_as_of(reader, time_us, folded=_teller())
    if found is None:
        raise ConfigError(
            [f"--as-of: found {moment_ms(time_us)}; the first event of {reader.path} is later"],
            "`backfillctl events --limit 1` shows when the migration began",
        )
    return found


def _teller() -> Callable[[int, int], None]:
    """Return what is to be told how far the fold is."""
    told = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_SECONDS and done < of:
            told = time.monotonic()
            click.echo(f"folding the log: {done:,} of {of:,} events", err=True)

    return tell
