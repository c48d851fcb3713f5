"""Find the rows behind a hash from the log: hash the plan's keys until all are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.layouts import object_key, recorded_layout
from daemon.redacting import Redactor
from journal.entries import migration_id

if TYPE_CHECKING:
    from journal.reader import Reader


def redactor_of(reader: Reader, *, now_us: int) -> Redactor:
    """Return what hashes keys as the log of this journal's migration does."""
    status = reader.status(now_us=now_us)
    return Redactor(migration_id(status.name, status.created_us))


def row_keys_of(reader: Reader, hashed: str, *, now_us: int) -> list[str]:
    """Return the row keys that have this hash, or whose object keys have it; usually one.

    Reads the whole plan, in short reads.

    Raises:
        JournalError: the journal can't be read.
    """
    redactor = redactor_of(reader, now_us=now_us)
    layouts = {source.id: recorded_layout(source.identity) for source in reader.status(now_us=now_us).sources}
    found: dict[str, None] = {}
    after = 0
    while page := reader.row_keys(after=after):
        after = page[-1][0]
        for _, row_key, source in page:
            layout = layouts[source]
            names = {row_key} if layout is None else {row_key, object_key(layout, row_key)}
            if hashed in map(redactor.hashed, names):
                found[row_key] = None
    return list(found)
