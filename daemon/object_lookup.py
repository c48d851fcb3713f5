"""Take text that an operator typed for the name of an object, and find whose object it is; pure.

What names objects is the layout on record for each source, so no configuration is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.layouts import recorded_layout, row_key_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from journal.entries import SourceRecord

_SCHEME = "s3://"
SOURCES_NAMED_MAX = 10
"""Sources that a refusal lists: one screen."""


@dataclass(frozen=True, slots=True)
class ObjectName:
    """An object key, and the bucket if the text names one as in `s3://bucket/key`."""

    bucket: str | None
    key: str


def object_name(text: str) -> ObjectName:
    """Return what object `text` names."""
    if text.startswith(_SCHEME):
        bucket, slash, key = text.removeprefix(_SCHEME).partition("/")
        if bucket and slash:
            return ObjectName(bucket, key)
    return ObjectName(None, text)


def rows_of_object(name: ObjectName, sources: Iterable[SourceRecord]) -> list[tuple[SourceRecord, str]]:
    """Return each source that would give this name to an object, and the key of the row that it would be."""
    found = []
    for source in sources:
        layout = recorded_layout(source.identity)
        if layout is None or name.bucket not in {None, source.identity.get("bucket")}:
            continue
        try:
            found.append((source, row_key_of(layout, name.key)))
        except ValueError:
            continue
    return found


def unnamed(name: ObjectName, sources: Iterable[SourceRecord]) -> str:
    """Say why no source gives an object this name, in one line: another bucket, another prefix, another layout."""
    places = {
        source.name: (source.identity.get("bucket"), source.identity.get("prefix", "")) for source in sources
    }
    buckets = sorted({str(bucket) for bucket, _ in places.values() if bucket is not None})
    if name.bucket is not None and name.bucket not in buckets:
        return f"no source writes to bucket {name.bucket}; they write to {', '.join(buckets) or 'none'}"
    there = {source: prefix for source, (bucket, prefix) in places.items() if name.bucket in {None, bucket}}
    fitting = [source for source, prefix in there.items() if prefix and name.key.startswith(prefix)]
    if fitting:
        return f"the layout of source {', '.join(fitting)} gives no row this object key"
    prefixes = sorted({f'"{prefix}"' for prefix in there.values() if prefix})
    shown = ", ".join(prefixes[:SOURCES_NAMED_MAX]) + (", …" if len(prefixes) > SOURCES_NAMED_MAX else "")
    return f"no source gives an object this key; their prefixes are {shown or 'empty'}"
