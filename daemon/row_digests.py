"""Let PostgreSQL digest the values of some rows; only digests leave it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from daemon.describing import Session
from daemon.retrying import Failure, FailureClass
from daemon.row_queries import RowQueries
from daemon.rows import RowDigest

_EMPTY_MD5 = hashlib.md5(b"", usedforsecurity=False).hexdigest()
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


async def digested(
    session: Session, queries: RowQueries, row_keys: Sequence[str], *, with_sha256: bool
) -> list[RowDigest]:
    """Return the digests of those rows that exist; NULL values as the source's `null_value` says.

    Raises:
        Failure: another attempt may help, or a key is not unique (UNSUITABLE_VALUE).
        RefusedError, SourceUnfitError: a right, the table or a column is gone.
    """
    statement = queries.digests(with_sha256=with_sha256)
    found = await session.fetch(statement, *queries.key_arguments(row_keys), operation="DIGEST")
    empty_for_null = queries.spec.null_value == "empty"
    rows: dict[str, RowDigest] = {}
    for row_key, size, md5, sha256, created_at in found:
        if row_key in rows:
            raise Failure(
                FailureClass.UNSUITABLE_VALUE,
                "DIGEST",
                f"digest of {row_key!r}: more than one row has this key",
                keys=(row_key,),
            )
        if size is not None:
            rows[row_key] = RowDigest(row_key, size, md5, sha256, created_at)
        elif empty_for_null:
            rows[row_key] = RowDigest(row_key, 0, _EMPTY_MD5, _EMPTY_SHA256, created_at)
    return list(rows.values())
