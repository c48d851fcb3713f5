"""The writer's side of what concerns no key: pauses, tunables, throttles, samples of progress, and notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal.appending import EventLog
from journal.errors import IllegalTransition
from journal.events import NOTES, Kind, decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from journal.entries import JsonValue


class ControlLog(EventLog):
    """What is done to a migration, and found out about it, without moving a key or changing what it is."""

    @property
    def paused(self) -> bool:
        """Whether an operator's pause is in force; a pause outlives its session."""
        return self.newest_seq(Kind.PAUSED) > self.newest_seq(Kind.RESUMED)

    @property
    def paused_by(self) -> tuple[str, int] | None:
        """Who paused, and when (microseconds since 1970-01-01 UTC); None where no pause is in force."""
        if not self.paused:
            return None
        row = self._row(
            "SELECT e.seq, e.data, e.ts FROM latest l JOIN event e ON e.seq = l.seq WHERE l.kind = ? AND l.source = 0",
            Kind.PAUSED.value,
        )
        return None if row is None else (str(decode(row[0], row[1])["who"]), int(row[2]))

    def pause(self, *, who: str, now_us: int) -> bool:
        """Record a pause; return False, recording nothing, where one is in force."""
        return self._toggle(Kind.PAUSED, who, now_us, wanted=not self.paused)

    def resume(self, *, who: str, now_us: int) -> bool:
        """Record the end of a pause; return False, recording nothing, where none is in force."""
        return self._toggle(Kind.RESUMED, who, now_us, wanted=self.paused)

    def _toggle(self, kind: Kind, who: str, now_us: int, *, wanted: bool) -> bool:
        self._check_usable()
        if wanted:
            with self._transaction():
                self._append(kind, {"who": who}, now_us=now_us)
        return wanted

    @property
    def overrides(self) -> dict[str, int | float | None]:
        """The tunables that an operator has set, by name; they outlive their session."""
        newest = self.latest_note(Kind.TUNABLES_SET)
        return {} if newest is None else dict(newest["overrides"])

    def set_tunables(
        self,
        changes: Mapping[str, JsonValue],
        overrides: Mapping[str, int | float | None],
        *,
        who: str,
        now_us: int,
    ) -> None:
        """Record what an operator set just now (`changes`) and all that is set from now on (`overrides`)."""
        data: dict[str, JsonValue] = {"who": who, "changes": dict(changes), "overrides": dict(overrides)}
        with self._transaction():
            self._append(Kind.TUNABLES_SET, data, now_us=now_us)

    def begin_throttle(self, cause: str, *, detail: str, now_us: int) -> None:
        """Record that something deliberate slows the migration down from now on."""
        with self._transaction():
            self._append(Kind.THROTTLE_BEGAN, {"cause": cause, "detail": detail}, now_us=now_us)

    def end_throttle(self, cause: str, *, detail: str, milliseconds: int, now_us: int) -> None:
        """Record that it ended, and how long it lasted by the monotonic clock."""
        data: dict[str, JsonValue] = {"cause": cause, "detail": detail, "ms": milliseconds}
        with self._transaction():
            self._append(Kind.THROTTLE_ENDED, data, now_us=now_us)

    def sample(
        self, spent_ms: Mapping[str, int], *, put_counts: Mapping[str, int] | None = None, now_us: int
    ) -> None:
        """Record how far every source is, and the milliseconds that each cause took since the last sample.

        `put_counts` says how many PUTs were answered since then, by an upper bound of the seconds that took.

        Raises:
            IllegalTransition: a duration is negative.
        """
        if any(spent < 0 for spent in spent_ms.values()):
            raise IllegalTransition(f"sample progress: a duration is negative: {dict(spent_ms)}")
        with self._transaction():
            data: dict[str, JsonValue] = {"spent_ms": dict(spent_ms)}
            if put_counts:
                data["put_counts"] = dict(put_counts)
            self._append(Kind.PROGRESS_SAMPLED, data, now_us=now_us)

    def note(
        self,
        kind: str,
        data: Mapping[str, Any],
        *,
        now_us: int,
        source: int | None = None,
        ordinal: int | None = None,
    ) -> int:
        """Record an event without effect on any key; return its seq.

        Args:
            kind: one of `journal.events.NOTES`.
            data: its facts, no secrets; keys named in it as "ordinals" (a list) show it in `explain`.
            now_us: microseconds since 1970-01-01 UTC.
            source: whom it concerns.
            ordinal: a key it concerns: `explain` shows it there.

        Raises:
            IllegalTransition: no such note.
        """
        if kind not in NOTES:
            raise IllegalTransition(f"record {kind!r}: expected one of {', '.join(sorted(NOTES))}")
        facts = dict(data) if ordinal is None else {**data, "ordinal": ordinal}
        with self._transaction():
            return self._append(Kind(kind), facts, source=source, now_us=now_us)

    def latest_note(self, kind: str, *, source: int | None = None) -> dict[str, Any] | None:
        """Return the data of the newest event of this (rare) kind, for this source or for none; None if there is none."""
        row = self._row(
            "SELECT e.seq, e.data FROM latest l JOIN event e ON e.seq = l.seq WHERE l.kind = ? AND l.source = ?",
            kind,
            source or 0,
        )
        return None if row is None else dict(decode(*row))

    def newest_seq(self, kind: Kind) -> int:
        """Return the seq of the newest event of this (rare) kind that concerns no single source; 0 if there is none."""
        row = self._row("SELECT seq FROM latest WHERE kind = ? AND source = 0", kind.value)
        return 0 if row is None else int(row[0])
