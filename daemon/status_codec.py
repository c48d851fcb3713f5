"""A whole status as JSON values and back, for a client that can't read the journal itself; pure."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from daemon.errors import BackfillError
from journal.status import MigrationStatus

_ADAPTER = TypeAdapter(MigrationStatus)


def status_document(status: MigrationStatus) -> dict[str, Any]:
    """Return a status as JSON values; `status_of` is the inverse."""
    document: dict[str, Any] = _ADAPTER.dump_python(status, mode="json")
    return document


def status_of(document: Any) -> MigrationStatus:
    """Return the status that a daemon sent.

    Raises:
        BackfillError: the daemon is of another version, whose status has another shape.
    """
    try:
        return _ADAPTER.validate_python(document)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise BackfillError(
            f"read the daemon's status: {where}: {error.errors()[0]['msg'].lower()}",
            "use the daemon's version of backfillctl (`backfillctl --version`)",
        ) from error
