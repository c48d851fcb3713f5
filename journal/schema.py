"""Tables, guards and schema migrations of the journal file.

Two tables are the truth and append-only, `event` and `plan`; every other one is a projection, derivable from
them. Triggers refuse UPDATE and DELETE on the truth; REPLACE would slip past them where the deleted row fires
no trigger, so an INSERT must carry exactly the next number, which no replaced row can. That makes both tables
gapless too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from journal.errors import RESTORE_BACKUP, JournalCorrupt, JournalNewer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

APPLICATION_ID = 0x42464A4C
"""`PRAGMA application_id` of every journal ("BFJL"): tells a journal from any other SQLite file."""

SCHEMA_VERSION = 3
"""`PRAGMA user_version` that this program writes: the number of migrations in `journal_migrations`."""

LOG_TABLES = """
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    ts INTEGER NOT NULL,
    kind TEXT NOT NULL,
    version INTEGER NOT NULL,
    source INTEGER,
    data TEXT NOT NULL,
    chain BLOB NOT NULL CHECK (length(chain) = 32)
) STRICT;
CREATE TABLE plan (
    ordinal INTEGER PRIMARY KEY,
    row_key TEXT NOT NULL,
    created_at INTEGER,
    size INTEGER NOT NULL CHECK (size >= 0),
    supersedes INTEGER CHECK (supersedes < ordinal)
) STRICT;
CREATE INDEX plan_superseding ON plan (supersedes) WHERE supersedes IS NOT NULL;
"""

FIRST_PROJECTION_TABLES = """
CREATE TABLE progress (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    projected_seq INTEGER NOT NULL,
    planned_hi INTEGER NOT NULL,
    name TEXT,
    order_name TEXT,
    cutoff INTEGER,
    created INTEGER,
    session INTEGER NOT NULL,
    session_seq INTEGER,
    session_ended_seq INTEGER,
    completed_seq INTEGER
) STRICT;
CREATE TABLE source (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    identity TEXT NOT NULL,
    closed INTEGER NOT NULL,
    closing_proof TEXT,
    proven INTEGER NOT NULL,
    excluded TEXT NOT NULL,
    unusable INTEGER NOT NULL,
    unusable_example TEXT
) STRICT;
CREATE TABLE tally (
    source INTEGER PRIMARY KEY,
    planned_rows INTEGER NOT NULL,
    planned_bytes INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    recovered INTEGER NOT NULL,
    present INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    vanished INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    present_bytes INTEGER NOT NULL,
    settled_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE segment (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    pass INTEGER NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'sealed', 'abandoned')),
    lo INTEGER,
    hi INTEGER,
    frontier INTEGER
) STRICT;
CREATE TABLE chunk (
    lo INTEGER PRIMARY KEY,
    hi INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    digest TEXT NOT NULL,
    seq INTEGER NOT NULL
) STRICT;
CREATE TABLE claim (
    seq INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    lo INTEGER NOT NULL,
    hi INTEGER NOT NULL,
    left INTEGER NOT NULL CHECK (left > 0)
) STRICT;
CREATE TABLE straggler (
    ordinal INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'claimed', 'parked')),
    recoveries INTEGER NOT NULL,
    failure TEXT,
    seq INTEGER NOT NULL
) STRICT;
CREATE INDEX straggler_by_state ON straggler (source, state, ordinal);
CREATE TABLE outcome (
    ordinal INTEGER PRIMARY KEY,
    code TEXT NOT NULL,
    seq INTEGER NOT NULL,
    size INTEGER
) STRICT;
CREATE TABLE key_event (
    ordinal INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (ordinal, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE failure (
    source INTEGER NOT NULL,
    operation TEXT NOT NULL,
    failure TEXT NOT NULL,
    count INTEGER NOT NULL,
    example INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (source, operation, failure)
) STRICT, WITHOUT ROWID;
CREATE TABLE latest (
    kind TEXT NOT NULL,
    source INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (kind, source)
) STRICT, WITHOUT ROWID;
"""

CONTROL_PROJECTION_TABLES = """
CREATE TABLE movement (
    source INTEGER PRIMARY KEY,
    ts INTEGER NOT NULL
) STRICT;
CREATE TABLE retry (
    source INTEGER NOT NULL,
    operation TEXT NOT NULL,
    failure TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (source, operation, failure)
) STRICT, WITHOUT ROWID;
CREATE TABLE sample (
    seq INTEGER NOT NULL,
    source INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    settled_bytes INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    PRIMARY KEY (seq, source)
) STRICT, WITHOUT ROWID;
CREATE TABLE spent (
    cause TEXT PRIMARY KEY,
    ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE slow_down (
    cause TEXT PRIMARY KEY,
    episodes INTEGER NOT NULL,
    ms INTEGER NOT NULL,
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

VERIFICATION_TABLE = """
CREATE TABLE verification (
    seq INTEGER PRIMARY KEY,
    tier TEXT NOT NULL
) STRICT;
"""

PROJECTION_TABLES = FIRST_PROJECTION_TABLES + CONTROL_PROJECTION_TABLES + VERIFICATION_TABLE

CONTROL_PROJECTIONS_OF_OLDER_EVENTS = """
INSERT INTO movement (source, ts) SELECT id, (
    SELECT ts FROM event WHERE kind = 'outcomes_recorded' AND source = s.id ORDER BY seq DESC LIMIT 1
) AS ts FROM source s WHERE ts IS NOT NULL;
INSERT INTO retry (source, operation, failure, count)
    SELECT source, operation, failure, count FROM failure WHERE operation <> 'PARK';
"""
"""Brings the tables of schema 2 up to events that schema 1 recorded: the same rows that a rebuild would give."""

VERIFICATIONS_OF_OLDER_EVENTS = """
INSERT INTO verification (seq, tier)
    SELECT seq, coalesce(data ->> 'tier', '') FROM event WHERE kind = 'verification_finished';
"""
"""Brings the table of schema 3 up to events that earlier schemas recorded."""

FIRST_PROGRESS = "INSERT INTO progress (id, projected_seq, planned_hi, session) VALUES (1, 0, 0, 0)"
"""The one row of table `progress` before the first event is folded."""

PROJECTIONS: tuple[str, ...] = (
    "progress",
    "source",
    "tally",
    "segment",
    "chunk",
    "claim",
    "straggler",
    "outcome",
    "key_event",
    "failure",
    "latest",
    "movement",
    "retry",
    "sample",
    "spent",
    "slow_down",
    "verification",
)
"""Every table that `rebuild` may empty."""


GUARDS: dict[str, str] = {
    "event_refuses_update": (
        "CREATE TRIGGER event_refuses_update BEFORE UPDATE ON event"
        " BEGIN SELECT RAISE(ABORT, 'event is append-only'); END"
    ),
    "event_refuses_delete": (
        "CREATE TRIGGER event_refuses_delete BEFORE DELETE ON event"
        " BEGIN SELECT RAISE(ABORT, 'event is append-only'); END"
    ),
    "event_takes_the_next": (
        "CREATE TRIGGER event_takes_the_next BEFORE INSERT ON event"
        " WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM event)"
        " BEGIN SELECT RAISE(ABORT, 'event is append-only and gapless'); END"
    ),
    "plan_refuses_update": (
        "CREATE TRIGGER plan_refuses_update BEFORE UPDATE ON plan"
        " BEGIN SELECT RAISE(ABORT, 'plan is append-only'); END"
    ),
    "plan_refuses_delete": (
        "CREATE TRIGGER plan_refuses_delete BEFORE DELETE ON plan"
        " BEGIN SELECT RAISE(ABORT, 'plan is append-only'); END"
    ),
    "plan_takes_the_next": (
        "CREATE TRIGGER plan_takes_the_next BEFORE INSERT ON plan"
        " WHEN NEW.ordinal IS NOT (SELECT coalesce(max(ordinal), 0) + 1 FROM plan)"
        " BEGIN SELECT RAISE(ABORT, 'plan is append-only and gapless'); END"
    ),
}
"""Name and text of every trigger that makes the log append-only."""


def journal_migrations() -> Migrations:
    """Return the schema migrations, oldest first; a released one is never edited, a new one is appended.

    sqlite-utils is imported here, not with the module: it costs 0.13 s, and only a file that is being created
    or upgraded needs it.
    """
    from sqlite_utils.migrations import Migrations

    migrations = Migrations("journal")

    @migrations(name="001_first_schema")
    def first_schema(database: Database) -> None:
        run_script(database, LOG_TABLES + FIRST_PROJECTION_TABLES)
        database.execute(FIRST_PROGRESS)
        for trigger in GUARDS.values():
            database.execute(trigger)

    @migrations(name="002_control_and_where_time_goes")
    def control(database: Database) -> None:
        run_script(database, CONTROL_PROJECTION_TABLES + CONTROL_PROJECTIONS_OF_OLDER_EVENTS)

    @migrations(name="003_verifications_and_revocations")
    def verifications(database: Database) -> None:
        run_script(database, VERIFICATION_TABLE + VERIFICATIONS_OF_OLDER_EVENTS)

    return migrations


@dataclass(frozen=True, slots=True)
class History:
    """The schemas that a program knows: how many, and the migrations that lead there (made when needed)."""

    version: int
    migrations: Callable[[], Migrations]


RELEASED = History(SCHEMA_VERSION, journal_migrations)
"""This program's own."""


def run_script(database: Database | sqlite3.Connection, script: str) -> None:
    """Execute statements one by one: sqlite3's own executescript would commit the open transaction."""
    for statement in script.split(";\n"):
        if statement.strip():
            database.execute(statement)


def migrate(connection: sqlite3.Connection, migrations: Migrations) -> list[str]:
    """Bring an open journal to the schema of `migrations`, all in one transaction; return what was applied."""
    from sqlite_utils import Database

    # strict=True also holds for the table in which sqlite-utils keeps its record.
    database = Database(connection, strict=True)
    with database.atomic():
        pending = [migration.name for migration in migrations.pending(database)]
        migrations.apply(database)
        version = len(migrations.applied(database))
        database.execute(f"PRAGMA user_version = {version}")
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    return pending


def create_temporary_projections(connection: sqlite3.Connection) -> None:
    """Make empty projection tables that hide the journal's own: unqualified names mean these from here on."""
    script = PROJECTION_TABLES.replace("CREATE TABLE ", "CREATE TABLE temp.").replace(
        "CREATE INDEX ", "CREATE INDEX temp."
    )
    run_script(connection, script)
    connection.execute(FIRST_PROGRESS)


def check_version(connection: sqlite3.Connection, path: Path, supported: int) -> int:
    """Return the file's schema version.

    Raises:
        JournalCorrupt: not a journal at all.
        JournalNewer: a later program wrote it.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID or version < 1:
        raise JournalCorrupt(
            f"open journal {path}: expected application id {APPLICATION_ID:#x} and a schema version, "
            f"found {application_id:#x} and version {version}: this is not a journal of backfillctl",
            "check `migration.journal` or --journal",
        )
    if version > supported:
        raise JournalNewer(
            f"open journal {path}: its schema version is {version}, this program knows up to {supported}",
            "use the version of backfillctl that wrote it, or a later one",
        )
    return int(version)


def check_guards(connection: sqlite3.Connection, path: Path) -> None:
    """Check that every trigger that protects the log is there, word for word; none is fired.

    Raises:
        JournalCorrupt: one is missing or altered: the log may have been edited.
    """
    found = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"))
    for name, text in GUARDS.items():
        if found.get(name) != text:
            raise JournalCorrupt(
                f"open journal {path}: guard trigger {name} is {'altered' if name in found else 'missing'}: "
                "something other than backfillctl has changed this file",
                f"look into what changed it, or {RESTORE_BACKUP}",
            )


def upgrade(
    connection: sqlite3.Connection,
    path: Path,
    found: int,
    migrations: Migrations,
    backup: Callable[[Path], None],
) -> tuple[Path, list[str]]:
    """Upgrade an older journal after backing it up beside itself; return the backup's path and what was applied.

    An upgrade interrupted after its backup is simply repeated: the backup is taken again, of the same schema.
    """
    copy = path.with_name(f"{path.name}.before-schema-{found + 1}")
    backup(copy)
    return copy, migrate(connection, migrations)
