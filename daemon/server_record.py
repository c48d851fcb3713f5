"""Which PostgreSQL a migration copies from, as its journal has it: what rows were compared with is worth nothing else."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from journal.errors import Difference, IdentityMismatch
from journal.events import Kind

if TYPE_CHECKING:
    from daemon.rows import ServerFacts
    from journal.log import Journal

LASTING = ("system_identifier", "timeline")
"""What stays as it is until another server takes over; addresses don't."""


class AnotherServer(IdentityMismatch):
    """The database answers from a server, or is one, that is not on record."""

    def __init__(self, differences: list[Difference]) -> None:
        super().__init__(differences)
        lines = "\n".join(f"  {difference}" for difference in differences)
        self.problem = f"PostgreSQL is not the server on record:\n{lines}"
        self.hint = "after a failover to a copy of the same data, `run --accept-source` once; else correct postgres.dsn"


def server_differences(journal: Journal, server: ServerFacts) -> list[Difference]:
    """Return how a server differs from the one on record, or last accepted; empty where none is on record."""
    newest = max((Kind.SERVER_RECORDED, Kind.SERVER_ACCEPTED), key=journal.newest_seq)
    recorded = journal.latest_note(newest)
    if recorded is None:
        return []
    recorded = recorded.get("facts", recorded)
    found = asdict(server)
    return [
        Difference("postgres", field, str(recorded.get(field)), str(found[field]))
        for field in LASTING
        if recorded.get(field) != found[field]
    ]


def database_differences(journal: Journal, server: ServerFacts) -> list[Difference]:
    """Return how the database that was connected to differs from those of the sources on record."""
    return [
        Difference(name, "database", str(record.identity["database"]), server.database)
        for name, record in journal.sources.items()
        if record.identity["database"] != server.database
    ]
