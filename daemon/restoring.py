"""Judge what was read from the bucket before it becomes a row, and count what becomes of rows; pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from daemon.errors import ExitCode
from daemon.rendering_units import moment
from daemon.restore_queries import RestoredRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemon.config import SourceConfig
    from daemon.objects import ObjectFacts
    from journal.histories import ExpectedObject

EXAMPLES_MAX = 20
"""Rows named on the screen; the log names all."""


def row_of(recorded: ExpectedObject) -> RestoredRow:
    """Return the row of an expected object, before that is read."""
    planned_at = None if recorded.created_at is None else moment(recorded.created_at)
    return RestoredRow(recorded.ordinal, recorded.row_key, recorded.size, recorded.md5, created_at=planned_at)


def tells_its_row(found: ObjectFacts) -> bool:
    """Say whether a migration wrote the object, and so what it says of its row; else only the bytes are known."""
    return "backfill-migration" in found.metadata


def filled(row: RestoredRow, spec: SourceConfig, found: ObjectFacts, body: bytes) -> RestoredRow:
    """Return the row with what its object holds; values of metadata are percent-decoded, as they were encoded.

    An object that no migration wrote was found equal and tells nothing else: created_at is the planned one then.

    Raises:
        ValueError: the bytes are not those on record; says what was expected and found.
    """
    if len(body) != row.size:
        raise ValueError(f"{len(body)} bytes, expected {row.size}")
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    if md5 != row.md5:
        raise ValueError(f"MD5 {md5}, expected {row.md5}")
    created_at = row.created_at
    if tells_its_row(found):
        header = found.metadata.get("created-at")
        created_at = None if header is None else unquote(header, errors="strict")
    return replace(
        row,
        value=body,
        created_at=created_at,
        metadata=tuple(
            (name, unquote(found.metadata[name.lower()], errors="strict"))
            for name in spec.metadata
            if name.lower() in found.metadata
        ),
    )


def batches(rows: Iterable[RestoredRow], *, rows_max: int, bytes_max: int) -> Iterable[list[RestoredRow]]:
    """Yield rows in batches that fit into memory; a value that is larger than that goes alone."""
    batch: list[RestoredRow] = []
    held = 0
    for row in rows:
        if batch and (len(batch) == rows_max or held + row.size > bytes_max):
            yield batch
            batch, held = [], 0
        batch.append(row)
        held += row.size
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows of a batch against what the table has of them.

    Attributes:
        missing: not there.
        equal: there with the value on record, once.
        different: there with another value, or more than once.
    """

    missing: list[RestoredRow]
    equal: list[RestoredRow]
    different: list[RestoredRow]


def compare(rows: Sequence[RestoredRow], found: Iterable[tuple[int, int | None, str | None]]) -> Comparison:
    """Compare rows with what the server says of their keys: place among `rows`, size, md5."""
    by_place: dict[int, list[tuple[int | None, str | None]]] = {}
    for place, size, md5 in found:
        by_place.setdefault(place, []).append((size, md5))
    comparison = Comparison([], [], [])
    for place, row in enumerate(rows):
        there = by_place.get(place)
        if there is None:
            comparison.missing.append(row)
        elif there == [(row.size, row.md5)]:
            comparison.equal.append(row)
        else:
            comparison.different.append(row)
    return comparison


@dataclass
class RestoreTally:
    """What became of the rows, or would.

    Attributes:
        rows, bytes: in scope, by the journal.
        restored, restored_bytes: written now, or to be written.
        equal: there already, with the value on record.
        different: there with another value; left as they are.
        bare: of those restored, with nothing in the metadata columns, since somebody else wrote the object.
        unread: whose object is missing, can't be read or holds other bytes; not written.
        examples: row keys and what is wrong, EXAMPLES_MAX at most.
        ordinals: of the rows restored, where keys were named; None: not kept.
    """

    rows: int = 0
    bytes: int = 0
    restored: int = 0
    restored_bytes: int = 0
    equal: int = 0
    different: int = 0
    bare: int = 0
    unread: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    ordinals: list[int] | None = None

    def name(self, row_key: str, problem: str) -> None:
        """Keep an example."""
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append((row_key, problem))

    @property
    def exit_code(self) -> ExitCode:
        """MISMATCH if a row is not in the table as the journal has it, or would not be."""
        return ExitCode.MISMATCH if self.different or self.unread else ExitCode.DONE
