"""Judge one key by what was found of its object and its row, against what the journal says; pure."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING
from urllib.parse import quote

from daemon.comparing import FindingKind, Means, compare
from daemon.objects import ListedObject
from journal.lifecycle import Outcome

if TYPE_CHECKING:
    from daemon.objects import ObjectDigests, ObjectFacts
    from daemon.rows import RowDigest
    from journal.histories import ExpectedObject

MIGRATION_FIELD = "backfill-migration"
MD5_FIELD = "backfill-md5"
"""Metadata of every object that a migration writes, without x-amz-meta-."""


@functools.lru_cache(maxsize=16)
def migration_mark(migration_id: str) -> str:
    """Return what an object's metadata says of the migration that wrote it."""
    return quote(migration_id, safe="/ ")


def judge_headers(
    row: ExpectedObject, found: ObjectFacts | None, *, migration_id: str
) -> Means | tuple[FindingKind, str]:
    """Return by what means the object is right, or what is wrong with it and how.

    Its own metadata names our MD5 where the ETag says nothing (SSE-KMS, SSE-C). An object that was there before
    (present) need not be ours.
    """
    if found is None:
        return FindingKind.MISSING, ""
    means, difference = compare(
        ListedObject("", found.size, found.etag), size=row.size, md5=row.md5, etag=row.etag
    )
    if difference:
        return FindingKind.DIFFERING, difference
    if row.version_id is not None and found.version_id not in {None, row.version_id}:
        return FindingKind.DIFFERING, f"version {found.version_id}, expected {row.version_id}"
    ours = found.metadata.get(MIGRATION_FIELD) == migration_mark(migration_id)
    if row.outcome is not Outcome.PRESENT and not ours:
        by = found.metadata.get(MIGRATION_FIELD)
        written = "another program" if by is None else f"migration {by}"
        return FindingKind.FOREIGN, f"written by {written}, expected by {migration_id}"
    named = found.metadata.get(MD5_FIELD)
    if ours and named != row.md5:
        return FindingKind.DIFFERING, f"MD5 {named} in its metadata, expected {row.md5}"
    return Means.MD5 if ours else means


def judge_row(row: ExpectedObject, found: RowDigest | None) -> tuple[FindingKind, str] | None:
    """Return how the row is no longer the one that was copied; None if it is."""
    if found is None:
        return FindingKind.ROW_DELETED, "no row with a value has its key"
    if found.size != row.size:
        return FindingKind.ROW_CHANGED, f"the row has {found.size} bytes now, {row.size} were copied"
    if found.md5 != row.md5:
        return FindingKind.ROW_CHANGED, f"the row's MD5 is {found.md5} now, {row.md5} was copied"
    return None


def judge_content(
    row: ExpectedObject, found: ObjectDigests | None, source: RowDigest | None
) -> Means | tuple[FindingKind, str]:
    """Return by what means the object's bytes are right, or what is wrong: first with the object, then with the row."""
    if found is None:
        return FindingKind.MISSING, ""
    if found.size != row.size:
        larger = "more than " if found.size > row.size else ""
        size = row.size if larger else found.size
        return FindingKind.DIFFERING, f"{larger}{size} bytes, expected {row.size}"
    if found.md5 != row.md5:
        return FindingKind.DIFFERING, f"its bytes have the MD5 {found.md5}, expected {row.md5}"
    difference = judge_row(row, source)
    if difference is not None or source is None:
        return difference or Means.MD5
    if found.sha256 != source.sha256:
        return FindingKind.DIFFERING, f"its bytes have the SHA-256 {found.sha256}, the row's {source.sha256}"
    return Means.SHA256
