"""What the catalogue is asked about a source, and the judgement of its answers; SQL text and pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from daemon.errors import RefusedError, SourceUnfitError
from daemon.row_queries import CAST_TYPES, Relation
from daemon.rows import ServerFacts, TableFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.config import SourceConfig

VERSION_MIN = 120000
"""Collations may be nondeterministic, and the catalogue says so, from PostgreSQL 12 on."""
TID_RANGE_VERSION_MIN = 140000
"""From PostgreSQL 14 on a range of ctid is read by its blocks; before, each range would read the whole table."""

VALUE_TYPES = ("bytea", "text", "character varying")
CREATED_AT_TYPES = ("timestamp with time zone", "date", "timestamp without time zone")
KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}

SERVER = """
SELECT (pg_control_system()).system_identifier::text AS system_identifier,
       CASE WHEN pg_is_in_recovery() THEN (pg_control_checkpoint()).timeline_id
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END AS timeline,
       current_setting('server_version_num')::int AS version,
       current_database()::text AS database,
       coalesce(host(inet_server_addr()) || ':' || inet_server_port(), 'local socket') AS address,
       pg_is_in_recovery() AS in_recovery,
       clock_timestamp() AS now_us"""
SESSION = f"{SERVER}, pg_backend_pid() AS pid"
"""What a new connection is asked before anything else: which server it reached, and by which backend."""

REPLAYED = "SELECT pg_last_wal_replay_lsn()::text"
NAME_OF = """
SELECT n.nspname::text, c.relname::text, pg_relation_size(c.oid) / current_setting('block_size')::int
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = $1"""
"""Schema, name and blocks of the relation with the oid $1."""

WRITERS = """
SELECT clock_timestamp() AS now_us,
       pg_is_in_recovery() AS in_recovery,
       pg_last_xact_replay_timestamp() AS replay_us,
       pg_has_role('pg_read_all_stats', 'USAGE') AS reads_all_stats,
       ARRAY(SELECT pid FROM pg_stat_activity
             WHERE NOT pg_is_in_recovery() AND xact_start < $1::timestamptz AND pid <> ALL ($2::int[])
               AND (datname = current_database() OR datname IS NULL)
               AND backend_type NOT IN ('autovacuum worker', 'autovacuum launcher', 'walsender', 'parallel worker')
             ORDER BY pid) AS pids,
       EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> ALL ($2::int[])
                 AND backend_type NOT IN ('autovacuum worker', 'walsender', 'parallel worker')
                 AND (state = 'disabled' OR (state LIKE 'idle in transaction%' AND xact_start IS NULL))) AS untracked"""
"""A session with track_activities off shows no transaction; nor does one that turned it on amid a transaction."""

PREPARED = "SELECT gid::text FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid"
"""All of them, whenever begun: the view dates a transaction by its PREPARE, which says nothing of when it began."""

RELATION = """
SELECT c.oid, c.relkind::text AS relkind, has_schema_privilege(n.oid, 'USAGE') AS schema_usable,
       row_security_active(c.oid) AS hides_rows
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2"""

COLUMNS = """
WITH RECURSIVE base(attnum, oid) AS (
    SELECT attnum, atttypid FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT base.attnum, t.typbasetype FROM base JOIN pg_type AS t ON t.oid = base.oid WHERE t.typtype = 'd')
SELECT a.attname::text AS name, format_type(t.oid, NULL) AS type,
       coalesce(l.collisdeterministic, true) AS deterministic,
       has_column_privilege(a.attrelid, a.attnum, 'SELECT') AS readable
FROM base JOIN pg_type AS t ON t.oid = base.oid AND t.typtype <> 'd'
JOIN pg_attribute AS a ON a.attrelid = $1 AND a.attnum = base.attnum
LEFT JOIN pg_collation AS l ON l.oid = a.attcollation"""

UNIQUE_INDEXES = """
SELECT i.indexrelid::regclass::text AS name,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) AS k(attnum)
             JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum) AS columns
FROM pg_index AS i
WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC, i.indnkeyatts, name"""

HEAPS = """
WITH RECURSIVE tree(oid) AS (
    SELECT $1::oid UNION SELECT i.inhrelid FROM pg_inherits AS i JOIN tree ON i.inhparent = tree.oid)
SELECT c.oid, c.relkind::text AS relkind, n.nspname::text AS schema, c.relname::text AS name,
       coalesce(m.amname = 'heap', false) AS heap, c.reltuples,
       CASE WHEN c.relkind = 'r' THEN (pg_relation_size(c.oid) / current_setting('block_size')::int)::int ELSE 0 END
           AS blocks,
       c.oid = $1 OR (has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
                      AND NOT row_security_active(c.oid)) AS readable
FROM tree JOIN pg_class AS c ON c.oid = tree.oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_am AS m ON m.oid = c.relam
WHERE c.relkind <> 'p' ORDER BY c.oid"""

ASKED = """
SELECT current_database()::text AS database, current_user::text AS user,
       current_setting('server_version_num')::int AS version, current_setting('server_encoding') AS encoding"""

ZONE = "SELECT now() AT TIME ZONE $1::text"


@dataclass(frozen=True, slots=True)
class Writers:
    """What could still add rows dated before a cutoff.

    Attributes:
        now_us: the server's clock, read before the transactions were.
        visible: every transaction that writes here could be seen; False without pg_read_all_stats, beside a
            session with track_activities off, and on a standby, which knows nothing of the primary's.
        pids: backends whose transaction began before the cutoff; ours and autovacuum's don't count, nor
            any on a standby, where nobody writes.
        prepared: gids of all prepared transactions of this database, whenever begun.
        replay_us: on a standby the commit time of the last replayed transaction; None if there was none.
    """

    now_us: int
    visible: bool
    pids: tuple[int, ...]
    prepared: tuple[str, ...]
    in_recovery: bool
    replay_us: int | None


@dataclass(slots=True)
class FirstServer:
    """The server that a run's first connection reached, which every later one must reach too.

    A name may lead to several servers, or to another one after a failover. Rows that are missing there would
    pass for deleted, and a closing proof would speak of another server's transactions.
    """

    facts: ServerFacts | None = None

    def admit(self, found: ServerFacts, where: str) -> None:
        """Remember the first server; compare any other with it.

        Raises:
            RefusedError: another server answers at `where`, or the same one in another role or history.
        """
        first = self.facts
        if first is None:
            self.facts = found
            return
        if found.system_identifier != first.system_identifier:
            difference = (
                f"is another server (system identifier {found.system_identifier}) than this session began with "
                f"({first.system_identifier})"
            )
        elif found.timeline != first.timeline:
            difference = f"is on timeline {found.timeline}; this session began on timeline {first.timeline}"
        elif found.in_recovery != first.in_recovery:
            difference = f"is a {_role(found)}; this session began with a {_role(first)}"
        else:
            return
        raise RefusedError(
            f"PostgreSQL at {where} {difference}",
            "name one server in postgres.dsn, or after a failover start again with --accept-source",
        )

    def admit_role(self, where: str, *, in_recovery: bool) -> None:
        """Compare the server's role alone: a promotion leaves the connections to the standby as they are.

        Raises:
            RefusedError: the server at `where` is in another role than at first.
        """
        assert self.facts is not None
        self.admit(replace(self.facts, in_recovery=in_recovery), where)


def _role(server: ServerFacts) -> str:
    return "standby" if server.in_recovery else "primary"


@dataclass(slots=True)
class Judgement:
    """What is wrong with one source, everything found, each with what helps."""

    source: str
    table: str
    unfit: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    def unfit_for(self, problem: str, hint: str) -> None:
        """Note a problem of the table or the configuration."""
        self.unfit.append(problem)
        self._advise(hint)

    def refused_for(self, problem: str, hint: str) -> None:
        """Note a missing right."""
        self.refused.append(problem)
        self._advise(hint)

    def _advise(self, hint: str) -> None:
        if hint not in self.hints:
            self.hints.append(hint)

    def raise_if_any(self) -> None:
        """Raise one error that lists every problem found, if any was.

        Raises:
            RefusedError: all that is missing are rights.
            SourceUnfitError: the source is unfit, whatever rights are missing besides.
        """
        problems = [
            f'source "{self.source}" ({self.table}): {problem}' for problem in self.unfit + self.refused
        ]
        if problems:
            kind = SourceUnfitError if self.unfit else RefusedError
            raise kind("\n".join(problems), "; ".join(self.hints))


def refuse_old(version: int, where: str) -> None:
    """Judge the server's version, in the form of server_version_num.

    Raises:
        SourceUnfitError: it is older than VERSION_MIN.
    """
    if version < VERSION_MIN:
        raise SourceUnfitError(
            f"PostgreSQL at {where} is version {version // 10000}; expected {VERSION_MIN // 10000} or later",
            f"copy from PostgreSQL {VERSION_MIN // 10000} or later",
        )


def judgement_of(spec: SourceConfig) -> Judgement:
    """Return a judgement without any finding so far."""
    return Judgement(spec.name, Relation(spec.schema_name, spec.table_name).sql)


def judge_relation(
    found: Mapping[str, Any] | None, judgement: Judgement, *, database: str, user: str
) -> None:
    """Judge the table as such: that it exists, can hold rows, and shows all of them to `user`."""
    if found is None:
        judgement.unfit_for(
            f"database {database} has no such table", "name it as schema.table, as \\dt+ shows it"
        )
        return
    if found["relkind"] not in KINDS:
        judgement.unfit_for("it is no table or view", "name a table or view in source.table")
    if not found["schema_usable"]:
        judgement.refused_for(f"{user} has no USAGE on its schema", f"GRANT USAGE ON SCHEMA … TO {user}")
    if found["hides_rows"]:
        judgement.refused_for(
            f"row-level security would hide rows from {user}",
            f"connect as the table's owner, or ALTER ROLE {user} BYPASSRLS",
        )


def judge_columns(
    spec: SourceConfig, columns: Mapping[str, Mapping[str, Any]], judgement: Judgement, *, user: str
) -> None:
    """Judge every column that the source names: presence, right and type."""
    dated = [spec.created_at] if spec.created_at else []
    named = dict.fromkeys([*spec.key, *dated, spec.value, *spec.metadata])
    for name in named:
        if name not in columns:
            known = ", ".join(sorted(columns)[:20])
            judgement.unfit_for(
                f"no column {name!r}; it has {known}", "correct the column's name in the configuration"
            )
        elif not columns[name]["readable"]:
            judgement.refused_for(
                f"{user} has no SELECT on column {name!r}", f"GRANT SELECT ON {judgement.table} TO {user}"
            )
    for name in spec.key:
        if name in columns:
            _judge_key(name, columns[name], judgement)
    if spec.value in columns and columns[spec.value]["type"] not in VALUE_TYPES:
        judgement.unfit_for(
            f"value column {spec.value!r} is of type {columns[spec.value]['type']}; expected {' or '.join(VALUE_TYPES)}",
            "make a view that casts it, and name the view in source.table",
        )
    if spec.created_at and spec.created_at in columns:
        _judge_created_at(spec, columns[spec.created_at]["type"], judgement)


def _judge_key(name: str, column: Mapping[str, Any], judgement: Judgement) -> None:
    kind = column["type"]
    reasons = {
        "character": "pads its values with blanks that comparisons ignore",
        "real": "has no exact text",
        "double precision": "has no exact text",
        "timestamp with time zone": "has no text of its own without a time zone",
        "timestamp without time zone": "has no one text",
        "date": "has no one text",
    }
    if kind not in CAST_TYPES:
        reason = f", which {reasons[kind]}" if kind in reasons else ""
        judgement.unfit_for(
            f"key column {name!r} is of type {kind}{reason}; expected {', '.join(CAST_TYPES)}",
            "name other key columns, or a view that casts it",
        )
    elif not column["deterministic"]:
        judgement.unfit_for(
            f"key column {name!r} has a nondeterministic collation: different texts would be one key",
            'name other key columns, or a view with the column COLLATE "C"',
        )


def _judge_created_at(spec: SourceConfig, kind: str, judgement: Judgement) -> None:
    if kind not in CREATED_AT_TYPES:
        judgement.unfit_for(
            f"created_at column {spec.created_at!r} is of type {kind}; expected {' or '.join(CREATED_AT_TYPES)}",
            "name another created_at column, or leave it out",
        )
    elif kind == "timestamp without time zone" and spec.created_at_zone is None:
        judgement.unfit_for(
            f"created_at column {spec.created_at!r} is a timestamp without time zone, which names no instant",
            'set source.created_at_zone, such as "UTC", to the zone it was written in',
        )
    elif kind == "timestamp with time zone" and spec.created_at_zone is not None:
        judgement.unfit_for(
            f"created_at column {spec.created_at!r} has a time zone of its own, so created_at_zone has no meaning",
            "remove source.created_at_zone",
        )


def table_facts(
    spec: SourceConfig,
    relation: Mapping[str, Any],
    columns: Mapping[str, Mapping[str, Any]],
    indexes: Sequence[Mapping[str, Any]],
    heaps: Sequence[Mapping[str, Any]],
    *,
    version: int,
) -> TableFacts:
    """Put together what was found about a table that passed every judgement.

    A unique index proves a key if its columns are among the key's; not over inheritance children, which an
    index of the parent does not cover.
    """
    kind = KINDS[relation["relkind"]]
    proving = [] if kind == "table" and len(heaps) > 1 else indexes
    unique = next((index["name"] for index in proving if set(index["columns"]) <= set(spec.key)), None)
    by_range = kind in {"table", "partitioned table"} and version >= TID_RANGE_VERSION_MIN
    sweepable = by_range and all(
        heap["heap"] and heap["readable"] and heap["relkind"] == "r" for heap in heaps
    )
    estimates = [heap["reltuples"] for heap in heaps]
    known = bool(estimates) and min(estimates) >= 0
    return TableFacts(
        oid=relation["oid"],
        kind=kind,
        relations=tuple(heap["oid"] for heap in heaps) if sweepable else (),
        blocks={heap["oid"]: heap["blocks"] for heap in heaps} if sweepable else {},
        key_types=tuple(columns[name]["type"] for name in spec.key),
        value_type=columns[spec.value]["type"],
        created_at_type=columns[spec.created_at]["type"] if spec.created_at else None,
        unique=unique,
        estimated_rows=int(sum(estimates)) if known else -1,
    )
