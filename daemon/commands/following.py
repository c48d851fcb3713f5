"""`events`: print what is on record, and with --follow what comes, for as long as somebody reads."""

from __future__ import annotations

import json
import select
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from daemon.errors import ConfigError
from journal.errors import JournalCorrupt, JournalError
from journal.queries import sources
from journal.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOOK_SECONDS = 0.5
"""Between two looks at the newest event: one opens the journal, reads one row and closes it, some 2 ms."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are printed.

    Attributes:
        kinds: only these; all if empty.
        source: only those of the source with this name.
        since_us: only those stamped at or after this time, microseconds since 1970-01-01 UTC.
        limit: most to print.
    """

    kinds: tuple[str, ...] = ()
    source: str | None = None
    since_us: int | None = None
    limit: int | None = None


class Printer:
    """Prints events one a line, each once, in the order of their seq."""

    def __init__(self, path: Path, wanted: Filter, *, as_json: bool) -> None:
        self._path = path
        self._wanted = wanted
        self._as_json = as_json
        self._after_seq = 0
        self._left = wanted.limit

    @property
    def done(self) -> bool:
        """Whether as many are printed as were asked for."""
        return self._left == 0

    def look(self) -> None:
        """Print what is new, in short reads; the journal is closed again.

        One that stayed open while the daemon closes its own would leave the write-ahead log behind.

        Raises:
            ConfigError: the journal has no source of the name asked for.
            JournalError: it can't be read, or is another one than before.
        """
        from daemon.rendering import event_json, event_line

        with Reader.open(self._path, undisturbing=True) as reader:
            head_seq = reader.head_seq()
            if head_seq < self._after_seq:
                raise JournalCorrupt(
                    f"follow journal {self._path}: its log ends at event {head_seq}, and event {self._after_seq}"
                    " was read: it is another file",
                    "look into what replaced it, and begin anew",
                )
            if head_seq == self._after_seq:
                return
            names = {source.id: source.name for source in reader.read(sources).values()}
            for event in reader.events(
                kinds=self._wanted.kinds or None,
                source=_id_of(self._wanted.source, names),
                since_us=self._wanted.since_us,
                after_seq=self._after_seq,
                until_seq=head_seq,
                limit=self._left,
            ):
                told = (
                    json.dumps(event_json(event, names=names))
                    if self._as_json
                    else event_line(event, names=names)
                )
                # Flushes: what is read by a program must not wait in a buffer.
                click.echo(told)
                self._left = None if self._left is None else self._left - 1
            self._after_seq = head_seq


def follow(printer: Printer, wait: Callable[[], bool]) -> None:
    """Print what is there and then what comes, until enough is printed or nobody reads.

    Args:
        printer: prints what is new.
        wait: called between two looks; returns whether to go on.

    Raises:
        ConfigError, JournalError: from the first look, and from a later one where no further look could help.
    """
    printer.look()
    trouble = ""
    while not printer.done and wait():
        try:
            printer.look()
            trouble = ""
        except JournalError as failure:
            if type(failure) is not JournalError:
                raise
            # A writer in the midst of opening or closing the journal: the next look finds it as it should be.
            if failure.problem != trouble:
                trouble = failure.problem
                click.echo(f"error: {trouble}; trying again", err=True)


def wait_for_reader() -> bool:
    """Wait LOOK_SECONDS; return whether somebody may still read standard output: not where its pipe has no reader."""
    poll = select.poll()
    # No event is asked for: what comes unasked is an error, which a pipe without a reader is.
    poll.register(sys.stdout.fileno(), 0)
    return not poll.poll(LOOK_SECONDS * 1000)


def _id_of(name: str | None, names: dict[int, str]) -> int | None:
    if name is None:
        return None
    for identifier, known in names.items():
        if known == name:
            return identifier
    raise ConfigError(
        [
            f'--source: found "{name}"; expected a source of this journal: {", ".join(names.values()) or "none"}'
        ]
    )
