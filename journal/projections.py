"""The fold of events into projections: one definition, used live, by rebuild and by check.

`Projector` writes every projection table and nothing else does. It also keeps in memory what the tables say is
in flight, bounded by the claim window, so that each entry is checked against it without a query. The memory may
be ahead of the disk only inside a transaction: after a rollback `load` reads it anew.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from journal.chunks import PlanChunks
from journal.control_projections import CONTROL_FOLDS
from journal.errors import JournalCorrupt
from journal.events import NOTES, VERSION, Kind, StoredEvent, encode
from journal.lifecycle import OUTCOME_OF_CODE, RECOVERIES_MAX, KeyState, Trigger, advance
from journal.plan_projections import PLAN_FOLDS, update_one
from journal.revocations import REVOCATION_FOLDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PARK_OPERATION = "PARK"
"""The operation under which parks are counted in table `failure`, beside PUT, HEAD, FETCH and so on."""

STATE_OF_STRAGGLER: dict[str, KeyState] = {
    "waiting": KeyState.PLANNED,
    "claimed": KeyState.IN_FLIGHT,
    "parked": KeyState.PARKED,
}
"""What a row of table `straggler` says of its key."""

_ROW_FOLDS = PLAN_FOLDS | CONTROL_FOLDS | REVOCATION_FOLDS
"""Folds that move rows only, nothing that is in flight."""

_UNINDEXED = {
    Kind.KEYS_CLAIMED,
    Kind.KEYS_RECLAIMED,
    Kind.OUTCOMES_RECORDED,
    Kind.ATTEMPT_FAILED,
    Kind.CHUNK_SEALED,
    Kind.PROGRESS_SAMPLED,
}
"""Frequent kinds that table `latest` leaves out: nobody asks for the last of them."""


@dataclass(eq=False, slots=True)
class OpenClaim:
    """A claimed range of the plan with unsettled keys in it; `seq` 0 stands for stragglers claimed one by one.

    Attributes:
        left: unsettled keys of the range, stragglers not counted.
        sizes: planned bytes by ordinal - lo; of stragglers, whose `lo` is 0, those in flight only.
    """

    seq: int
    source: int
    lo: int
    hi: int
    left: int
    sizes: Sequence[int] | dict[int, int]


_CONTRADICTIONS = (
    *(KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError),
    *(sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError),
)
"""What a fold raises over data of another shape, or of values that no column takes."""


class Projector:
    """Folds events, in order, into the projection tables of one connection.

    Attributes:
        in_flight: every key claimed without an outcome, and its claim.
        claims: open claims by the seq of their event.
        chunks: the plan, as it is claimed.
        alone: the poison key in flight; None if there is none.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.chunks = PlanChunks(connection)
        self.in_flight: dict[int, OpenClaim] = {}
        self.claims: dict[int, OpenClaim] = {}
        self.alone: int | None = None
        self._singles: dict[int, OpenClaim] = {}
        self._single_sizes: dict[int, dict[int, int]] = {}
        self._folds: dict[str, Callable[[StoredEvent, str], None]] = {
            Kind.KEYS_CLAIMED: self._keys_claimed,
            Kind.KEYS_RECLAIMED: self._keys_reclaimed,
            Kind.OUTCOMES_RECORDED: self._outcomes_recorded,
            Kind.ATTEMPT_FAILED: self._attempt_failed,
            Kind.KEY_PARKED: self._key_parked,
            Kind.KEYS_RECOVERED: self._keys_recovered,
            Kind.KEYS_RELEASED: self._keys_released,
            Kind.KEYS_REQUEUED: self._keys_requeued,
        } | dict.fromkeys([*NOTES, Kind.SERVER_ACCEPTED, Kind.SCHEMA_MIGRATED], self._noted)

    def load(self) -> None:
        """Read what is in flight from the tables.

        Raises:
            JournalCorrupt: a claim's count of unsettled keys contradicts the outcomes.
        """
        self.chunks.forget()
        self.in_flight.clear()
        self.claims.clear()
        self._singles.clear()
        self._single_sizes.clear()
        self.alone = None
        for seq, source, lo, hi, left in self._connection.execute(
            "SELECT seq, source, lo, hi, left FROM claim"
        ):
            planned = self._connection.execute(
                "SELECT p.ordinal, p.size, o.ordinal IS NULL AND s.ordinal IS NULL FROM plan p"
                " LEFT JOIN outcome o ON o.ordinal = p.ordinal LEFT JOIN straggler s ON s.ordinal = p.ordinal"
                " WHERE p.ordinal BETWEEN ? AND ? ORDER BY p.ordinal",
                (lo, hi),
            ).fetchall()
            unsettled = [ordinal for ordinal, _, is_unsettled in planned if is_unsettled]
            claim = OpenClaim(seq, source, lo, hi, left, [size for _, size, _ in planned])
            if len(unsettled) != left:
                raise JournalCorrupt(
                    f"read the claim of ordinals {lo} to {hi}: it says {left} keys are unsettled, found"
                    f" {len(unsettled)}",
                    "run `backfillctl journal rebuild`",
                )
            self.claims[seq] = claim
            self.in_flight.update(dict.fromkeys(unsettled, claim))
        for ordinal, source, size, recoveries in self._connection.execute(
            "SELECT s.ordinal, s.source, p.size, s.recoveries FROM straggler s"
            " JOIN plan p ON p.ordinal = s.ordinal WHERE s.state = 'claimed'"
        ):
            self._fly_single(source, ordinal, size)
            if recoveries >= RECOVERIES_MAX:
                self.alone = ordinal

    def apply(self, event: StoredEvent, text: str) -> None:
        """Fold one event; `text` is its data as stored.

        Raises:
            JournalCorrupt: the event contradicts those before it, or its kind or version is unknown.
        """
        row_fold = _ROW_FOLDS.get(event.kind)
        fold = self._folds.get(event.kind)
        if (row_fold or fold) is None or event.version > VERSION:
            raise JournalCorrupt(
                f"fold event {event.seq}: kind {event.kind!r} version {event.version} is unknown",
                "use the version of backfillctl that wrote it, or a later one",
            )
        try:
            if row_fold is not None:
                row_fold(self._connection, event)
            elif fold is not None:
                fold(event, text)
            if event.kind not in _UNINDEXED:
                self._connection.execute(
                    "INSERT INTO latest (kind, source, seq) VALUES (?, ?, ?)"
                    " ON CONFLICT (kind, source) DO UPDATE SET seq = excluded.seq",
                    (event.kind, event.source or 0, event.seq),
                )
        except _CONTRADICTIONS as error:
            raise JournalCorrupt(
                f"fold event {event.seq} ({event.kind}): it contradicts the events before it ({error!r})",
                "run `backfillctl journal check`",
            ) from error

    def mark_projected(self, seq: int) -> None:
        """Record that every event up to `seq` is folded."""
        self._connection.execute("UPDATE progress SET projected_seq = ?", (seq,))

    def _noted(self, event: StoredEvent, _text: str) -> None:
        """Index a note under the keys that it names as "ordinal" or "ordinals"; list finished verifications."""
        if event.kind == Kind.VERIFICATION_FINISHED:
            self._connection.execute(
                "INSERT INTO verification (seq, tier) VALUES (?, ?)", (event.seq, event.data.get("tier", ""))
            )
        concerned = {event.data["ordinal"]} if "ordinal" in event.data else set()
        concerned.update(event.data.get("ordinals", ()))
        if concerned:
            self._index_keys(event.seq, sorted(concerned))

    # -- sources and passes ---------------------------------------------------------------------------------

    def _keys_claimed(self, event: StoredEvent, _text: str) -> None:
        lo, hi = event.data["lo"], event.data["hi"]
        source = event.source or 0
        update_one(
            self._connection,
            "UPDATE segment SET frontier = ? WHERE id = ? AND frontier = ? AND hi >= ?",
            (hi + 1, event.data["segment"], lo, hi),
        )
        claim = OpenClaim(event.seq, source, lo, hi, hi - lo + 1, self.chunks.sizes(lo, hi))
        self._connection.execute(
            "INSERT INTO claim (seq, source, lo, hi, left) VALUES (?, ?, ?, ?, ?)",
            (claim.seq, source, lo, hi, claim.left),
        )
        self.claims[claim.seq] = claim
        self.in_flight.update(dict.fromkeys(range(lo, hi + 1), claim))

    def _keys_reclaimed(self, event: StoredEvent, text: str) -> None:
        ordinals = event.data["ordinals"]
        rows = self._connection.execute(
            "SELECT p.ordinal, p.size, s.recoveries FROM json_each(?, '$.ordinals') e"
            " CROSS JOIN straggler s ON s.ordinal = e.value AND s.state = 'waiting'"
            " CROSS JOIN plan p ON p.ordinal = e.value",
            (text,),
        ).fetchall()
        if len(rows) != len(ordinals):
            raise KeyError("a key claimed again that was not waiting")
        self._set_stragglers(text, "claimed", event.seq)
        for ordinal, size, recoveries in rows:
            self._fly_single(event.source or 0, ordinal, size)
            if recoveries >= RECOVERIES_MAX:
                self.alone = ordinal
        self._index_keys(event.seq, ordinals)

    def _outcomes_recorded(self, event: StoredEvent, _text: str) -> None:
        rows: list[list[Any]] = event.data
        ordinals = [row[0] for row in rows]
        owners = [self.in_flight[ordinal] for ordinal in ordinals]
        planned = [owner.sizes[ordinal - owner.lo] for ordinal, owner in zip(ordinals, owners, strict=True)]
        self._connection.executemany(
            "DELETE FROM straggler WHERE ordinal = ?", [(ordinal,) for ordinal in self._leave(ordinals)]
        )
        codes = [row[1] for row in rows]
        sizes = [row[2] for row in rows]
        settled = Counter(codes)
        copied: dict[str, int] = {}
        for code in settled:
            advance(KeyState.IN_FLIGHT, OUTCOME_OF_CODE[code])
            of_code = (
                (ordinals, sizes)
                if len(settled) == 1
                else tuple(zip(*((row[0], row[2]) for row in rows if row[1] == code), strict=True))
            )
            copied[code] = sum(of_code[1])
            # A flat list costs json_each half of what unpacking the event's rows would.
            self._connection.execute(
                "INSERT INTO outcome (ordinal, code, seq) SELECT value, ?, ? FROM json_each(?)",
                (code, event.seq, encode(of_code[0])),
            )
        changed = [(row[2], row[0]) for row, size in zip(rows, planned, strict=True) if row[2] != size]
        self._connection.executemany("UPDATE outcome SET size = ? WHERE ordinal = ?", changed)
        update_one(
            self._connection,
            "UPDATE tally SET stored = stored + :S, recovered = recovered + :R, present = present + :P,"
            " skipped = skipped + :K, vanished = vanished + :V, stored_bytes = stored_bytes + :stored_bytes,"
            " present_bytes = present_bytes + :present_bytes, settled_bytes = settled_bytes + :settled_bytes"
            " WHERE source = :source",
            {
                **{code: settled[code] for code in OUTCOME_OF_CODE},
                "stored_bytes": copied.get("S", 0) + copied.get("R", 0),
                "present_bytes": copied.get("P", 0),
                "settled_bytes": sum(planned),
                "source": event.source,
            },
        )
        self._connection.execute(
            "INSERT INTO movement (source, ts) VALUES (?, ?)"
            " ON CONFLICT (source) DO UPDATE SET ts = excluded.ts",
            (event.source, event.ts_us),
        )

    def _attempt_failed(self, event: StoredEvent, _text: str) -> None:
        data = event.data
        if data["ordinal"] not in self.in_flight:
            raise KeyError("an attempt of a key that is not in flight")
        self._count_failure(event, data["operation"], data["failure"], data["ordinal"])
        # Schema 1 did not record what followed; it was another attempt for all but the last.
        if data.get("retried", True):
            self._connection.execute(
                "INSERT INTO retry (source, operation, failure, count) VALUES (?, ?, ?, 1)"
                " ON CONFLICT (source, operation, failure) DO UPDATE SET count = count + 1",
                (event.source, data["operation"], data["failure"]),
            )
        self._index_keys(event.seq, [data["ordinal"]])

    def _key_parked(self, event: StoredEvent, _text: str) -> None:
        ordinal, failure = event.data["ordinal"], event.data["failure"]
        advance(KeyState.IN_FLIGHT, Trigger.PARK)
        self._leave([ordinal])
        self._connection.execute(
            "INSERT INTO straggler (ordinal, source, state, recoveries, failure, seq)"
            " VALUES (?, ?, 'parked', 0, ?, ?) ON CONFLICT (ordinal) DO UPDATE"
            " SET state = 'parked', failure = excluded.failure, seq = excluded.seq",
            (ordinal, event.source, failure, event.seq),
        )
        self._count_failure(event, PARK_OPERATION, failure, ordinal)
        self._index_keys(event.seq, [ordinal])

    def _keys_recovered(self, event: StoredEvent, text: str) -> None:
        advance(KeyState.IN_FLIGHT, Trigger.RECOVER)
        self._give_back(event, text, recoveries=1)

    def _keys_released(self, event: StoredEvent, text: str) -> None:
        advance(KeyState.IN_FLIGHT, Trigger.RELEASE)
        self._give_back(event, text, recoveries=0)

    def _give_back(self, event: StoredEvent, text: str, *, recoveries: int) -> None:
        self._leave(event.data["ordinals"])
        self._connection.execute(
            "INSERT INTO straggler (ordinal, source, state, recoveries, seq)"
            " SELECT value, :source, 'waiting', :recoveries, :seq FROM json_each(:data, '$.ordinals') WHERE true"
            " ON CONFLICT (ordinal) DO UPDATE"
            " SET state = 'waiting', recoveries = recoveries + excluded.recoveries, seq = excluded.seq",
            {"source": event.source, "recoveries": recoveries, "seq": event.seq, "data": text},
        )
        self._index_keys(event.seq, event.data["ordinals"])

    def _keys_requeued(self, event: StoredEvent, text: str) -> None:
        advance(KeyState.PARKED, Trigger.REQUEUE)
        changed = self._connection.execute(
            "UPDATE straggler SET state = 'waiting', recoveries = 0, failure = NULL, seq = :seq"
            " WHERE state = 'parked' AND ordinal IN (SELECT value FROM json_each(:data, '$.ordinals'))",
            {"seq": event.seq, "data": text},
        ).rowcount
        if changed != len(event.data["ordinals"]):
            raise KeyError("a key requeued that was not parked")
        update_one(self._connection, "UPDATE progress SET completed_seq = NULL", ())
        self._index_keys(event.seq, event.data["ordinals"])

    def _leave(self, ordinals: Sequence[int]) -> list[int]:
        """Take keys out of flight and shrink their claims; return those that were stragglers."""
        owners = [self.in_flight.pop(ordinal) for ordinal in ordinals]
        stragglers: list[int] = []
        for claim, count in Counter(owners).items():
            if claim.seq == 0:
                stragglers = [
                    ordinal for ordinal, owner in zip(ordinals, owners, strict=True) if owner.seq == 0
                ]
                for ordinal in stragglers:
                    del self._single_sizes[claim.source][ordinal]
                if self.alone in stragglers:
                    self.alone = None
                continue
            claim.left -= count
            if claim.left:
                self._connection.execute("UPDATE claim SET left = ? WHERE seq = ?", (claim.left, claim.seq))
            else:
                self._connection.execute("DELETE FROM claim WHERE seq = ?", (claim.seq,))
                del self.claims[claim.seq]
        return stragglers

    def _fly_single(self, source: int, ordinal: int, size: int) -> None:
        sizes = self._single_sizes.setdefault(source, {})
        sizes[ordinal] = size
        self.in_flight[ordinal] = self._singles.setdefault(source, OpenClaim(0, source, 0, 0, 0, sizes))

    def _set_stragglers(self, text: str, state: str, seq: int) -> None:
        self._connection.execute(
            "UPDATE straggler SET state = ?, seq = ?"
            " WHERE ordinal IN (SELECT value FROM json_each(?, '$.ordinals'))",
            (state, seq, text),
        )

    def _count_failure(self, event: StoredEvent, operation: str, failure: str, ordinal: int) -> None:
        self._connection.execute(
            "INSERT INTO failure (source, operation, failure, count, example, seq) VALUES (?, ?, ?, 1, ?, ?)"
            " ON CONFLICT (source, operation, failure) DO UPDATE"
            " SET count = count + 1, example = excluded.example, seq = excluded.seq",
            (event.source, operation, failure, ordinal, event.seq),
        )

    def _index_keys(self, seq: int, ordinals: Iterable[int]) -> None:
        self._connection.execute(
            "INSERT INTO key_event (ordinal, seq) SELECT value, ? FROM json_each(?)",
            (seq, json.dumps(list(ordinals))),
        )
