"""The writer's side of planning: sources, passes, sealed chunks, closing."""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from journal import queries
from journal.appending import EventLog
from journal.checkpoint import Order, in_order, sort_key
from journal.entries import Known, OpenPass, PlannedRow, SourceRecord
from journal.errors import Difference, IllegalTransition, JournalError
from journal.events import Kind, chunk_digest, encode
from journal.lifecycle import OUTCOME_OF_CODE, KeyState, Trigger, advance
from journal.projections import STATE_OF_STRAGGLER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHUNK_KEYS_MAX = 10_000
"""Rows per sealed chunk: one commit of some 20 ms, and the piece whose hash is checked at once when claimed."""

INSERT_ROWS = 100
"""Rows per INSERT statement: five parameters each, within the limit of every SQLite (999)."""


class PlanLog(EventLog):
    """What a migration is going to copy."""

    _order: Order

    @property
    def sources(self) -> Mapping[str, SourceRecord]:
        """Every source of the migration by name."""
        self._check_usable()
        return queries.sources(self._connection)

    def add_source(self, name: str, identity: Mapping[str, Any], *, now_us: int) -> int:
        """Record a source with its fingerprint; return its id.

        Raises:
            IllegalTransition: there is one of this name.
        """
        known = self.sources
        if name in known:
            raise IllegalTransition(f"add source {name}: the journal has it already")
        source = len(known) + 1
        with self._transaction():
            data = {"name": name, "identity": dict(identity)}
            self._append(Kind.SOURCE_ADDED, data, source=source, now_us=now_us)
        return source

    def differences(self, identities: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
        """Compare the configuration's fingerprints, by source name, with the journal's.

        A source that the configuration lacks is a difference; one that the journal lacks is new, hence none.
        """
        return differences_between(
            {name: record.identity for name, record in self.sources.items()}, identities
        )

    def accept_server(self, facts: Mapping[str, Any], *, now_us: int, who: str) -> None:
        """Record that the operator accepts another PostgreSQL server for this migration."""
        with self._transaction():
            self._append(Kind.SERVER_ACCEPTED, {"facts": dict(facts), "who": who}, now_us=now_us)

    def begin_pass(self, source: int, *, kind: Literal["sweep", "snapshot"], now_us: int) -> int:
        """Begin a planning pass; return its number, from 1.

        Raises:
            IllegalTransition: the source is closed or unknown, or has a pass open.
        """
        record = self._record_of(source)
        if record.closed:
            raise IllegalTransition(
                f"begin a pass over source {record.name}: it is closed",
                "`backfillctl plan --reconcile` opens it",
            )
        if self.open_pass(source) is not None:
            raise IllegalTransition(f"begin a pass over source {record.name}: one is open")
        (number,) = self._row("SELECT count(*) + 1 FROM segment WHERE source = ?", source)
        (segment,) = self._row("SELECT count(*) + 1 FROM segment")
        with self._transaction():
            data = {"segment": segment, "pass": number, "kind": kind}
            self._append(Kind.PASS_BEGUN, data, source=source, now_us=now_us)
        return int(number)

    def open_pass(self, source: int) -> OpenPass | None:
        """Return the source's pass that has begun and not ended."""
        row = self._row(
            "SELECT pass, kind, coalesce(hi + 1 - lo, 0) FROM segment WHERE source = ? AND state = 'open'",
            source,
        )
        return OpenPass(*row) if row else None

    def sealed_rows_of_open_segment(self, source: int) -> tuple[int, PlannedRow | None]:
        """Return how many rows the open pass has sealed, and the last: where to continue after a crash."""
        row = self._row("SELECT lo, hi FROM segment WHERE source = ? AND state = 'open'", source)
        if not row or row[0] is None:
            return 0, None
        last = self._row("SELECT row_key, created_at, size, supersedes FROM plan WHERE ordinal = ?", row[1])
        return row[1] + 1 - row[0], PlannedRow(*last)

    def seal_chunk(
        self,
        source: int,
        rows: Sequence[PlannedRow | tuple[str, int | None, int, int | None]],
        *,
        now_us: int,
    ) -> None:
        """Append rows to the plan, under the next ordinals, with one event that carries their hash.

        Args:
            source: its id; a pass must be open, and no other source's may have rows in it.
            rows: at most CHUNK_KEYS_MAX, strictly ascending in processing order, after those sealed before.
            now_us: microseconds since 1970-01-01 UTC.

        Raises:
            IllegalTransition: any of that is not so, or `supersedes` names no earlier plan of the same key.
        """
        if not 0 < len(rows) <= CHUNK_KEYS_MAX:
            raise IllegalTransition(f"seal a chunk: expected 1 to {CHUNK_KEYS_MAX} rows, found {len(rows)}")
        try:
            row_keys, created_at, sizes, supersedes = zip(*rows, strict=True)
            digest = chunk_digest(row_keys, created_at, sizes, supersedes)
        except (TypeError, ValueError, OverflowError) as error:
            raise IllegalTransition(f"seal a chunk: a row can't be written down: {error}") from error
        segment = self._sealing_segment(source)
        count, last = self.sealed_rows_of_open_segment(source)
        places = list(zip(created_at, row_keys, strict=True))
        follows = last is None or sort_key(self._order, last.created_at, last.row_key) < sort_key(
            self._order, *places[0]
        )
        if not follows or not in_order(self._order, places):
            raise IllegalTransition(
                f"seal a chunk after {count} rows of this pass: its rows are not in strict {self._order.value} order"
            )
        (highest,) = self._row("SELECT planned_hi FROM progress")
        self._check_superseded(source, rows)
        with self._transaction():
            self._insert_rows(
                list(
                    zip(
                        range(highest + 1, highest + 1 + len(rows)),
                        row_keys,
                        created_at,
                        sizes,
                        supersedes,
                        strict=True,
                    )
                )
            )
            data = {
                "segment": segment,
                "lo": highest + 1,
                "n": len(rows),
                "bytes": sum(sizes),
                "sha256": digest,
            }
            self._append(Kind.CHUNK_SEALED, data, source=source, now_us=now_us)

    def seal_segment(
        self,
        source: int,
        *,
        excluded: Mapping[str, int],
        unusable: int,
        unusable_example: str | None,
        now_us: int,
    ) -> None:
        """End the open pass: its keys may be claimed, its exclusions replace those of the pass before.

        A pass that added nothing ends so too.
        """
        data = {
            "segment": self._open_segment(source),
            "excluded": dict(excluded),
            "unusable": unusable,
            "unusable_example": unusable_example,
        }
        with self._transaction():
            self._append(Kind.SEGMENT_SEALED, data, source=source, now_us=now_us)

    def abandon_pass(self, source: int, *, reason: str, now_us: int) -> None:
        """End the open pass unfinished: what it sealed stays planned, the next pass diffs against it."""
        segment = self._open_segment(source)
        with self._transaction():
            self._append(
                Kind.PASS_ABANDONED, {"segment": segment, "reason": reason}, source=source, now_us=now_us
            )

    def close_source(self, source: int, *, proof: str, proven: bool, now_us: int) -> None:
        """Record that the source's planning is complete, and why that is known (`proven`) or believed.

        Raises:
            IllegalTransition: no pass was ever sealed, one is open, or the source is closed.
        """
        record = self._record_of(source)
        (sealed,) = self._row("SELECT count(*) FROM segment WHERE source = ? AND state = 'sealed'", source)
        if record.closed or not sealed or self.open_pass(source) is not None:
            raise IllegalTransition(
                f"close source {record.name}: expected a sealed pass, none open and the source not closed"
            )
        with self._transaction():
            self._append(Kind.SOURCE_CLOSED, {"proof": proof, "proven": proven}, source=source, now_us=now_us)

    def reopen_source(self, source: int, *, now_us: int, who: str = "", reason: str = "") -> None:
        """Record that a closed source is to be planned again.

        Raises:
            IllegalTransition: it is not closed.
        """
        record = self._record_of(source)
        if not record.closed:
            raise IllegalTransition(f"open source {record.name} again: it is not closed")
        with self._transaction():
            self._append(Kind.SOURCE_REOPENED, {"who": who, "reason": reason}, source=source, now_us=now_us)

    def build_key_index(self) -> None:
        """Index the plan by row key, if that is not done yet; the sort spills to a file beside the journal."""
        with self._writing():
            self._connection.execute("CREATE INDEX IF NOT EXISTS plan_by_key ON plan (row_key)")

    def latest(self, source: int, row_keys: Sequence[str]) -> dict[str, Known]:
        """Return the newest plan of each of these row keys; keys never planned are absent.

        What the index says is looked up in the plan itself: a damaged entry must not pass a new key for a known one.

        Raises:
            JournalError: `build_key_index` was not called: a scan per batch would take hours.
        """
        self._check_usable()
        if not self._row("SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = 'plan_by_key'"):
            raise JournalError(
                "look up planned keys: the plan is not indexed by key", "call build_key_index first"
            )
        found: dict[str, Known] = {}
        for (
            ordinal,
            row_key,
            created_at,
            planned,
            code,
            copied,
            straggler,
            claimed,
        ) in self._connection.execute(
            "SELECT p.ordinal, p.row_key, p.created_at, p.size, o.code, o.size, s.state,"
            " EXISTS (SELECT 1 FROM claim c WHERE p.ordinal BETWEEN c.lo AND c.hi)"
            " FROM json_each(?) k CROSS JOIN plan p INDEXED BY plan_by_key ON p.row_key = k.value"
            " CROSS JOIN plan t ON t.ordinal = p.ordinal AND t.row_key = k.value"
            " CROSS JOIN chunk h ON h.lo = (SELECT max(lo) FROM chunk WHERE lo <= p.ordinal)"
            " CROSS JOIN segment g ON g.id = h.segment AND g.source = ?"
            " LEFT JOIN outcome o ON o.ordinal = p.ordinal LEFT JOIN straggler s ON s.ordinal = p.ordinal",
            (encode(list(row_keys)), source),
        ):
            if row_key in found and found[row_key].ordinal > ordinal:
                continue
            if code is not None:
                state = advance(KeyState.IN_FLIGHT, OUTCOME_OF_CODE[code])
                size = planned if copied is None else copied
            else:
                size = planned
                state = KeyState.PLANNED
                if straggler is not None:
                    state = STATE_OF_STRAGGLER[straggler]
                elif claimed:
                    state = advance(KeyState.PLANNED, Trigger.CLAIM)
            found[row_key] = Known(ordinal, state, size, created_at)
        return found

    def _record_of(self, source: int) -> SourceRecord:
        for record in self.sources.values():
            if record.id == source:
                return record
        raise IllegalTransition(f"use source {source}: the journal has no source of this id")

    def _open_segment(self, source: int) -> int:
        row = self._row("SELECT id FROM segment WHERE source = ? AND state = 'open'", source)
        if row is None:
            raise IllegalTransition(f"seal a pass over source {self._record_of(source).name}: none is open")
        return int(row[0])

    def _sealing_segment(self, source: int) -> int:
        segment = self._open_segment(source)
        other = self._row(
            "SELECT s.name FROM segment g JOIN source s ON s.id = g.source"
            " WHERE g.state = 'open' AND g.lo IS NOT NULL AND g.id <> ?",
            segment,
        )
        if other is not None:
            raise IllegalTransition(
                f"seal a chunk of source {self._record_of(source).name}: source {other[0]} is half sealed,"
                " and a segment's ordinals have no gap"
            )
        return segment

    def _insert_rows(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert plan rows, INSERT_ROWS per statement: half the price of a statement each."""
        for first in range(0, len(rows), INSERT_ROWS):
            group = rows[first : first + INSERT_ROWS]
            statement = f"INSERT INTO plan VALUES {', '.join(['(?, ?, ?, ?, ?)'] * len(group))}"  # noqa: S608 -- only question marks
            self._connection.execute(statement, list(chain.from_iterable(group)))

    def _check_superseded(self, source: int, rows: Sequence[Any]) -> None:
        superseding = [[row[3], row[0]] for row in rows if row[3] is not None]
        if not superseding:
            return
        (good,) = self._row(
            "SELECT count(*) FROM json_each(?) e JOIN plan p ON p.ordinal = e.value ->> 0"
            " JOIN chunk h ON h.lo = (SELECT max(lo) FROM chunk WHERE lo <= p.ordinal)"
            " JOIN segment g ON g.id = h.segment WHERE p.row_key = e.value ->> 1 AND g.source = ?",
            encode(superseding),
            source,
        )
        if good != len(superseding):
            raise IllegalTransition(
                f"seal a chunk: {len(superseding) - good} rows supersede ordinals that are no plan of the same key"
            )


def differences_between(
    recorded: Mapping[str, Mapping[str, Any]], identities: Mapping[str, Mapping[str, Any]]
) -> list[Difference]:
    """Compare the fingerprints on record, by source name, with others, as `PlanLog.differences` does."""
    found: list[Difference] = []
    for name, identity in recorded.items():
        configured = identities.get(name)
        if configured is None:
            found.append(Difference(name, "source", "present", "missing"))
            continue
        # Compared as JSON: a tuple in the configuration equals the list on record.
        now = json.loads(encode(dict(configured)))
        found += [
            Difference(name, field, encode(identity.get(field)), encode(now.get(field)))
            for field in sorted(identity.keys() | now.keys())
            if identity.get(field) != now.get(field)
        ]
    return found
