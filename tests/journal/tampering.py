"""Change a journal as somebody does who knows of its guards."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from journal.schema import GUARDS

if TYPE_CHECKING:
    from pathlib import Path


def tamper(path: Path, *statements: str) -> None:
    """Run statements, each of which must change something, with the guards out of the way."""
    connection = sqlite3.connect(path, isolation_level=None)
    for name in GUARDS:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        assert connection.execute(statement).rowcount != 0, statement
    for trigger in GUARDS.values():
        connection.execute(trigger)
    connection.close()
