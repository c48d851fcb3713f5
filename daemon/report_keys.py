"""Write `keys.csv.gz`, a row for each key, in bounded memory; and count on the way what a report tells of keys."""

from __future__ import annotations

import gzip
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO

from daemon.report_cells import COLUMNS, is_fine, line_writer
from journal.queries import sources
from journal.report_rows import KeyRow, current_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from journal.reader import Reader

GZIP_LEVEL = 1
"""Level 6 takes three times as long for a file a fifth smaller."""


class Level(StrEnum):
    """Which keys the file has."""

    ERRORS = "errors"
    """Those that are not fine: parked, skipped, vanished, not settled, or with a finding."""
    ALL = "all"


@dataclass(slots=True)
class KeyTotals:
    """What was counted over all current keys, whichever were written.

    Attributes:
        keys, written: current keys; rows of the file.
        became: keys by outcome, or where they stand.
        verified: keys with an object, by the strongest tier that found it right; "" where none has.
        findings: keys by the finding that stands.
        sizes: keys by the number of bits of their size in bytes.
    """

    keys: int = 0
    written: int = 0
    became: Counter[str] = field(default_factory=Counter)
    verified: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)

    def add(self, page: list[KeyRow]) -> None:
        """Count a page of keys."""
        self.keys += len(page)
        self.became.update([key.became for key in page])
        self.sizes.update([key.size.bit_length() for key in page])
        self.verified.update(
            [key.verified_tier or "" for key in page if key.became in {"stored", "recovered", "present"}]
        )
        self.findings.update([key.finding for key in page if key.finding is not None])


def write_keys(
    reader: Reader,
    file: BinaryIO,
    *,
    level: Level,
    head_seq: int,
    planned_hi: int,
    told: Callable[[int], None] = lambda _: None,
) -> KeyTotals:
    """Write the keys of the plan up to `planned_hi`, as they stood at event `head_seq`; return what was counted.

    Args:
        reader: of the journal.
        file: takes the compressed bytes.
        level: which keys are written; all are counted.
        head_seq: the newest event to be told of.
        planned_hi: the highest ordinal planned by then.
        told: called with the number of keys read so far, page by page.

    Raises:
        JournalError: as `Reader.read`.
        OSError: the file does not take it.
    """
    known = reader.read(sources)
    lines = {source.id: line_writer(source) for source in known.values()}
    totals = KeyTotals()
    # No name and no time in the header: the same keys make the same bytes.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=file, mtime=0) as packed:
        packed.write(f"{','.join(COLUMNS)}\n".encode())
        for page in current_keys(reader, head_seq=head_seq, planned_hi=planned_hi):
            if not page:
                continue
            totals.add(page)
            written = page if level is Level.ALL else [key for key in page if not is_fine(key)]
            if written:
                # A server's message may hold half a surrogate pair, which UTF-8 has no bytes for.
                text = "".join(map(lines[written[0].source], written))
                packed.write(text.encode("utf-8", "backslashreplace"))
                totals.written += len(written)
            told(totals.keys)
    return totals
