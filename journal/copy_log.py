"""The writer's side of copying: claims, outcomes, recovery, requeueing, completion."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import accumulate, chain, repeat, takewhile
from typing import TYPE_CHECKING, Any

from journal import queries, revocations
from journal.appending import EventLog
from journal.entries import AttemptFailed, Claim, ClaimedKey, Parked, Recovery, Settled, SourceCounts
from journal.errors import IllegalTransition, JournalCorrupt
from journal.events import Kind, encode
from journal.lifecycle import OUTCOME_CODES, RECOVERIES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from journal.checkpoint import Checkpoint, Order

REQUEUE_KEYS_MAX = 10_000
"""Keys per requeueing event."""
PROCESS_DIED = "process_died"
"""The failure under which a poison key is parked."""

_AS_CLAIMED: Callable[[Iterable[Any]], ClaimedKey] = partial(tuple.__new__, ClaimedKey)
"""`ClaimedKey._make` without its Python frame: a third of the price for each of millions of keys."""


class CopyLog(EventLog):
    """What happens to the keys that were planned."""

    _order: Order
    _unrecovered: bool = False
    _claiming_session: int = 0
    _session: int = 0

    def _load(self) -> None:
        super()._load()
        self._waiting_alone: int | None = None

    @property
    def in_flight(self) -> int:
        """Keys of all sources that are claimed and have no outcome."""
        return len(self._projector.in_flight)

    def in_flight_ordinals(self) -> list[int]:
        """Return the keys that are claimed and have no outcome: what a drain that was cut short gives back."""
        self._check_usable()
        return sorted(self._projector.in_flight)

    def recover(self, *, now_us: int) -> Recovery:
        """Take back what an earlier session held when it died; call once per session, before any claim.

        Every such key is driven again before the frontier moves. A key that has been recovered RECOVERIES_MAX
        times already is parked instead: the process died with it again, though it was alone.
        """
        self._check_usable()
        recovery = self._take_back(list(self._projector.in_flight), {}, now_us)
        self._unrecovered = False
        return recovery

    def recover_from(self, process: str, ordinals: Sequence[int], *, now_us: int) -> Recovery:
        """Take back what one process of this session held when it died; as `recover`, but in mid-session.

        Args:
            process: which one, and how it died; for the record.
            ordinals: what it held.
            now_us: microseconds since 1970-01-01 UTC.

        Raises:
            IllegalTransition: one of them is not in flight; nothing changed.
        """
        self._check_usable()
        self._check_in_flight(list(ordinals), [])
        return self._take_back(ordinals, {"process": process}, now_us)

    def _take_back(self, ordinals: Sequence[int], by: dict[str, Any], now_us: int) -> Recovery:
        held: dict[int, list[int]] = {}
        for ordinal in ordinals:
            held.setdefault(self._projector.in_flight[ordinal].source, []).append(ordinal)
        poison = set(ordinals).intersection(
            self._column(
                "SELECT ordinal FROM straggler WHERE state = 'claimed' AND recoveries >= ?", RECOVERIES_MAX
            )
        )
        recovered = 0
        with self._transaction():
            for source, keys in held.items():
                again = sorted(set(keys) - poison)
                if again:
                    data = {"ordinals": again, "session": self._claiming_session, **by}
                    self._append(Kind.KEYS_RECOVERED, data, source=source, now_us=now_us)
                    recovered += len(again)
                for ordinal in sorted(poison.intersection(keys)):
                    message = f"the process died with this key in flight {RECOVERIES_MAX + 1} times"
                    self._park(source, Parked(ordinal, PROCESS_DIED, message), now_us=now_us)
        return Recovery(recovered, len(poison), self._claiming_session if held else None)

    def claim(
        self, source: int, *, limit: int, window: int, now_us: int, bytes_max: int | None = None
    ) -> Claim | None:
        """Take keys of one source to work on; the claim is committed when this returns.

        Keys off the frontier (recovered, released, requeued) come first, then the frontier of the source's
        oldest segment that has keys left. A key recovered RECOVERIES_MAX times is claimed alone: from when it
        is its turn, no source gets anything until it has an outcome.

        Args:
            source: its id.
            limit: most keys to return.
            window: most keys that may be in flight in all.
            now_us: microseconds since 1970-01-01 UTC.
            bytes_max: most planned bytes to return; None: any number.

        Returns:
            None where nothing may be claimed now; a claim of no keys, which is not recorded, where the next key
            alone would pass `bytes_max`.

        Raises:
            IllegalTransition: keys of a dead session are in flight: call `recover` first.
            JournalCorrupt: a plan chunk contradicts its hash; nothing was claimed.
        """
        self._check_usable()
        if self._unrecovered:
            raise IllegalTransition(
                "claim keys: keys of an earlier session are in flight", "call recover first"
            )
        room = min(limit, window - self.in_flight)
        if room <= 0 or self._projector.alone is not None:
            return None
        if self._waiting_alone is not None and (self._waiting_alone != source or self.in_flight):
            return None
        waiting = self._column(
            "SELECT ordinal FROM straggler WHERE source = ? AND state = 'waiting' AND recoveries < ?"
            " ORDER BY ordinal LIMIT ?",
            source,
            RECOVERIES_MAX,
            room,
        )
        alone = False
        if not waiting:
            waiting = self._column(
                "SELECT ordinal FROM straggler WHERE source = ? AND state = 'waiting' ORDER BY ordinal LIMIT 1",
                source,
            )
            alone = bool(waiting)
            if alone and self.in_flight:
                self._waiting_alone = source
                return None
        if waiting:
            return self._claim_stragglers(source, waiting, alone=alone, bytes_max=bytes_max, now_us=now_us)
        return self._claim_frontier(source, room, bytes_max=bytes_max, now_us=now_us)

    def _claim_stragglers(
        self, source: int, ordinals: list[int], *, alone: bool, bytes_max: int | None, now_us: int
    ) -> Claim:
        self._projector.chunks.check(ordinals)
        if bytes_max is not None:
            sizes = self._column(
                "SELECT p.size FROM json_each(?) e CROSS JOIN plan p ON p.ordinal = e.value", encode(ordinals)
            )
            ordinals = ordinals[: _fitting(sizes, bytes_max)]
            if not ordinals:
                return Claim(source, (), alone=False)
        with self._transaction():
            self._append(Kind.KEYS_RECLAIMED, {"ordinals": ordinals}, source=source, now_us=now_us)
            rows = self._connection.execute(
                "SELECT p.ordinal, p.row_key, p.created_at, p.size, s.recoveries FROM json_each(?) e"
                " CROSS JOIN plan p ON p.ordinal = e.value CROSS JOIN straggler s ON s.ordinal = e.value",
                (encode(ordinals),),
            ).fetchall()
        self._waiting_alone = None
        self._claiming_session = self._session
        revoked = revocations.once_revoked(self._connection, ordinals)
        return Claim(source, tuple(map(_AS_CLAIMED, rows)), alone, revoked)

    def _claim_frontier(self, source: int, room: int, *, bytes_max: int | None, now_us: int) -> Claim | None:
        segment = self._connection.execute(
            "SELECT id, frontier, hi FROM segment WHERE source = ? AND state <> 'open' AND frontier <= hi"
            " ORDER BY id LIMIT 1",
            (source,),
        ).fetchone()
        if segment is None:
            return None
        lo, hi = segment[1], min(segment[1] + room - 1, segment[2])
        slices = list(self._projector.chunks.slices(lo, hi))
        if bytes_max is not None:
            hi = lo + _fitting(chain.from_iterable(part.sizes for part in slices), bytes_max) - 1
            slices = list(self._projector.chunks.slices(lo, hi))
            if not slices:
                return Claim(source, (), alone=False)
        with self._transaction():
            data = {"segment": segment[0], "lo": lo, "hi": hi}
            self._append(Kind.KEYS_CLAIMED, data, source=source, now_us=now_us)
        self._claiming_session = self._session
        columns = (zip(s.ordinals, s.row_keys, s.created_at, s.sizes, repeat(0)) for s in slices)
        return Claim(source, tuple(map(_AS_CLAIMED, chain.from_iterable(columns))), alone=False)

    def has_unclaimed(self, source: int) -> bool:
        """Tell whether the source has keys waiting or beyond a frontier, sealed ones only."""
        self._check_usable()
        (found,) = self._connection.execute(
            "SELECT EXISTS (SELECT 1 FROM straggler WHERE source = :source AND state = 'waiting')"
            " OR EXISTS (SELECT 1 FROM segment WHERE source = :source AND state <> 'open' AND frontier <= hi)",
            {"source": source},
        ).fetchone()
        return bool(found)

    def record(self, entries: Iterable[Settled | AttemptFailed | Parked], *, now_us: int) -> None:
        """Record what became of claimed keys, in any order, as one transaction: all of it or nothing.

        Raises:
            IllegalTransition: an entry's key is not in flight, or two entries end the same key; nothing changed.
            JournalFull: nothing was recorded; the same call may be repeated once there is room.
        """
        self._check_usable()
        group = list(entries)
        in_flight = self._projector.in_flight
        ending = [entry[0] for entry in group if not isinstance(entry, AttemptFailed)]
        self._check_in_flight([entry[0] for entry in group], ending)
        settled: dict[int, list[Settled]] = {}
        for entry in group:
            if isinstance(entry, Settled):
                settled.setdefault(in_flight[entry[0]].source, []).append(entry)
        if not group:
            return
        with self._transaction():
            for entry in group:
                if isinstance(entry, AttemptFailed):
                    data = {field: value for field, value in entry._asdict().items() if value is not None}
                    source = in_flight[entry.ordinal].source
                    self._append(Kind.ATTEMPT_FAILED, data, source=source, now_us=now_us)
            for source, outcomes in settled.items():
                self._append(Kind.OUTCOMES_RECORDED, _outcome_rows(outcomes), source=source, now_us=now_us)
            for entry in group:
                if isinstance(entry, Parked):
                    self._park(in_flight[entry.ordinal].source, entry, now_us=now_us)

    def _check_in_flight(self, ordinals: list[int], ending: list[int]) -> None:
        strangers = set(ordinals).difference(self._projector.in_flight)
        if strangers:
            raise IllegalTransition(f"record what became of keys {sorted(strangers)}: they are not in flight")
        if len(set(ending)) != len(ending):
            twice = sorted(ordinal for ordinal, times in Counter(ending).items() if times > 1)
            raise IllegalTransition(f"record what became of keys {twice}: they end twice in one group")

    def _park(self, source: int, key: Parked, *, now_us: int) -> None:
        self._append(Kind.KEY_PARKED, key._asdict(), source=source, now_us=now_us)

    def release(self, ordinals: Sequence[int], *, now_us: int) -> None:
        """Give claimed keys back unworked (a drain or a cancel); this does not count as a recovery.

        Raises:
            IllegalTransition: one of them is not in flight; nothing changed.
        """
        self._check_usable()
        held: dict[int, list[int]] = {}
        for ordinal in sorted(set(ordinals)):
            claim = self._projector.in_flight.get(ordinal)
            if claim is None:
                raise IllegalTransition(f"release a key: key {ordinal} is not in flight")
            held.setdefault(claim.source, []).append(ordinal)
        if not held:
            return
        with self._transaction():
            for source, keys in held.items():
                self._append(Kind.KEYS_RELEASED, {"ordinals": keys}, source=source, now_us=now_us)

    def requeue(
        self,
        *,
        source: int | None = None,
        row_keys: Sequence[str] | None = None,
        failure: str | None = None,
        who: str,
        now_us: int,
    ) -> int:
        """Let parked keys be driven again, with their recoveries forgotten; return how many.

        Args:
            source: only of this source.
            row_keys: only these.
            failure: only those parked under this class.
            who: the operator, for the record.
            now_us: microseconds since 1970-01-01 UTC.
        """
        self._check_usable()
        parked = self._connection.execute(
            "SELECT s.source, s.ordinal FROM straggler s JOIN plan p ON p.ordinal = s.ordinal"
            " WHERE s.state = 'parked' AND (:source IS NULL OR s.source = :source)"
            " AND (:failure IS NULL OR s.failure = :failure)"
            " AND (:keys IS NULL OR p.row_key IN (SELECT value FROM json_each(:keys))) ORDER BY s.ordinal",
            {
                "source": source,
                "failure": failure,
                "keys": None if row_keys is None else encode(list(row_keys)),
            },
        ).fetchall()
        by_source: dict[int, list[int]] = {}
        for owner, ordinal in parked:
            by_source.setdefault(owner, []).append(ordinal)
        if not by_source:
            return 0
        with self._transaction():
            for owner, ordinals in by_source.items():
                for first in range(0, len(ordinals), REQUEUE_KEYS_MAX):
                    data = {"ordinals": ordinals[first : first + REQUEUE_KEYS_MAX], "who": who}
                    self._append(Kind.KEYS_REQUEUED, data, source=owner, now_us=now_us)
        return len(parked)

    def complete(self, *, now_us: int) -> bool:
        """Count the whole plan against the outcomes, not against counters; tell whether every key is settled.

        The first time that is so, and every source has a sealed pass and none open, `migration_completed` is
        recorded; and again after a source, a pass or keys were added.

        Raises:
            JournalCorrupt: there are keys without an outcome that nobody would ever drive.
        """
        self._check_usable()
        # Not by an index: one that is damaged counts other keys than the plan has.
        (unsettled,) = self._connection.execute(
            "SELECT count(*) FROM plan p NOT INDEXED"
            " WHERE NOT EXISTS (SELECT 1 FROM outcome o WHERE o.ordinal = p.ordinal)"
        ).fetchone()
        (unplanned,) = self._connection.execute(
            "SELECT count(*) FROM source s WHERE EXISTS"
            " (SELECT 1 FROM segment g WHERE g.source = s.id AND g.state = 'open')"
            " OR NOT EXISTS (SELECT 1 FROM segment g WHERE g.source = s.id AND g.state = 'sealed')"
        ).fetchone()
        known = self.counts()
        left = sum(each.parked + each.in_flight + each.pending + each.unclaimed for each in known.values())
        if unsettled != left:
            raise JournalCorrupt(
                f"count the plan of journal {self.path}: {unsettled} keys have no outcome, and {left} are on record as"
                " left to do",
                "run `backfillctl journal check`, then `backfillctl journal rebuild`",
            )
        if unsettled or unplanned or not known:
            return False
        (completed,) = self._connection.execute("SELECT completed_seq FROM progress").fetchone()
        if completed is None:
            data = {
                name: {"planned": count.planned_rows, "settled": count.settled}
                for name, count in known.items()
            }
            with self._transaction():
                self._append(Kind.MIGRATION_COMPLETED, {"sources": data}, now_us=now_us)
        return True

    def counts(self) -> dict[str, SourceCounts]:
        """Return where the keys of each source stand."""
        self._check_usable()
        return queries.counts(self._connection)

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Return the safe checkpoint of each source."""
        self._check_usable()
        return queries.checkpoints(self._connection, self._order)

    def _column(self, statement: str, *parameters: Any) -> list[int]:
        return [row[0] for row in self._connection.execute(statement, parameters)]


def _outcome_rows(outcomes: list[Settled]) -> list[list[Any]]:
    """Return outcomes as `outcomes_recorded` lists them: what is None at the end of one is left out."""
    return [
        [ordinal, OUTCOME_CODES[outcome], size, md5]
        if etag is None and version_id is None
        else [ordinal, OUTCOME_CODES[outcome], size, md5, etag, *([] if version_id is None else [version_id])]
        for ordinal, outcome, size, md5, etag, version_id in outcomes
    ]


def _fitting(sizes: Iterable[int], bytes_max: int) -> int:
    """Return how many of the first `sizes` stay within `bytes_max` together."""
    return sum(1 for _ in takewhile(bytes_max.__ge__, accumulate(sizes)))
