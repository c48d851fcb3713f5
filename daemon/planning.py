"""Decide how to scan, what a scanned row means for the plan, and when a source is closed; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from daemon.errors import ConfigError, SourceUnfitError
from daemon.settings_values import timestamp_text
from journal.lifecycle import KeyState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.config import SourceConfig
    from daemon.rows import Exclusions
    from journal.entries import Known

RANGE_BLOCKS_FIRST = 64
"""Blocks of the first range: 512 KiB of heap, at most about 18 600 rows (MaxHeapTuplesPerPage is 291)."""
RANGE_BLOCKS_MAX = 1024
"""Blocks of a range at most: 8 MiB of heap; bounds the rows in memory by 298 000, however they lie."""
RANGE_ROWS_TARGET = 50_000
"""Rows worth one round trip and one commit of the stage."""
RANGE_SECONDS_TARGET = 1.0
"""How long one statement should hold its snapshot on someone's production."""

WAIT_SECONDS_MAX = 5.0
"""Pause between two looks at the closing conditions, at most."""


def next_range_blocks(blocks: int, *, seen: int, seconds: float) -> int:
    """Return the blocks of the next range, after a range of `blocks` returned `seen` rows in `seconds`.

    It at most doubles and at most quarters, so that one odd range does not set the pace.
    """
    by_rows = RANGE_ROWS_TARGET / seen if seen else 2.0
    by_time = RANGE_SECONDS_TARGET / seconds if seconds > 0 else 2.0
    factor = max(0.25, min(2.0, by_rows, by_time))
    return max(1, min(RANGE_BLOCKS_MAX, int(blocks * factor)))


def range_end(first: int, *, blocks: int, relation_blocks: int) -> int | None:
    """Return the exclusive end of a range that begins at `first`; None: no bound, it is the relation's last."""
    return None if first + blocks >= relation_blocks else first + blocks


class Change(StrEnum):
    """What a row of a later pass means, held against the newest plan of its key."""

    NEW = "new"
    REAPPEARED = "reappeared"
    CHANGED = "changed"
    NOTHING = "nothing"


def change_of(size: int, known: Known | None) -> Change:
    """Say whether a scanned row of `size` bytes is to be planned (again).

    A key that is still to be driven needs nothing: the value is read when it is copied. Nor does a skipped
    one: its object was never compared, so its size says nothing. Changes of equal length are found by
    verification against the source.
    """
    if known is None:
        return Change.NEW
    if known.state is KeyState.VANISHED:
        return Change.REAPPEARED
    if known.state in {KeyState.STORED, KeyState.PRESENT} and known.size != size:
        return Change.CHANGED
    return Change.NOTHING


class Writers(Protocol):
    """What a server says of transactions that may still bring rows from before the cutoff."""

    @property
    def now_us(self) -> int:
        """The server's clock, microseconds since 1970-01-01 UTC."""

    @property
    def in_recovery(self) -> bool:
        """The server is a standby: it sees no transaction of its primary before it commits."""

    @property
    def replay_us(self) -> int | None:
        """On a standby: the commit time of the newest transaction replayed; None if none was."""

    @property
    def visible(self) -> bool:
        """Every session's transaction start may be seen (pg_read_all_stats)."""

    @property
    def pids(self) -> Sequence[int]:
        """Backends in a transaction that began before the cutoff, as far as visible."""

    @property
    def prepared(self) -> Sequence[str]:
        """Global ids of all prepared transactions, whenever begun; every role sees these."""


class Verdict(StrEnum):
    """Whether the closing pass may begin, and what it will prove."""

    WAIT = "wait"
    PROVEN = "proven"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Closing:
    """What follows from one look at the writers.

    Attributes:
        reason: in words; what the journal keeps as the closing proof.
        seconds: for WAIT: until the next look.
        suspects: prepared transactions that may be from before the cutoff; to be handed to the next look.
    """

    verdict: Verdict
    reason: str
    seconds: float = 0.0
    suspects: frozenset[str] | None = None


def closing(  # noqa: PLR0911 -- a decision table
    writers: Writers, *, cutoff_us: int, late_grace: float, suspects: frozenset[str] | None = None
) -> Closing:
    """Decide whether a snapshot begun now sees every row created before the cutoff.

    A prepared transaction is suspected if it was prepared when nothing else from before the cutoff was left:
    when it began is not on record, but any prepared later began later.

    Args:
        writers: the server's answer of this moment.
        cutoff_us: rows created before it belong to the migration.
        late_grace: config `postgres.late_grace`, seconds: how long after the cutoff a transaction that can't
            be seen is assumed to have ended.
        suspects: of the look before; None at the first.
    """
    left = (cutoff_us - writers.now_us) / 1e6
    if left >= 0:
        return _wait(f"the server's clock has not passed the cutoff yet, {left:.0f} s to go", left)
    if writers.pids:
        return _wait(f"transactions from before the cutoff are open: pid {_some(writers.pids)}")
    if writers.in_recovery:
        return _closing_on_standby(writers, cutoff_us=cutoff_us, late_grace=late_grace)
    left += late_grace
    if left >= 0 and not writers.visible:
        return _wait(f"sessions of other roles can't be seen; late_grace ends in {left:.0f} s", left)
    prepared = frozenset(writers.prepared if suspects is None else suspects & set(writers.prepared))
    if prepared:
        return replace(
            _wait(
                f"prepared transactions that may be from before the cutoff are open: {_some(sorted(prepared))}"
            ),
            suspects=prepared,
        )
    if writers.visible:
        return Closing(
            Verdict.PROVEN,
            "every transaction from before the cutoff had ended when the closing snapshot began",
        )
    return Closing(
        Verdict.UNPROVEN,
        f"sessions of other roles can't be seen; the closing snapshot began late_grace = {late_grace:g} s "
        "after the cutoff; grant pg_read_all_stats for a proof",
    )


def _closing_on_standby(writers: Writers, *, cutoff_us: int, late_grace: float) -> Closing:
    behind = late_grace if writers.replay_us is None else (cutoff_us - writers.replay_us) / 1e6 + late_grace
    if writers.replay_us is None or behind >= 0:
        return _wait(
            f"the standby has not replayed a commit from late_grace = {late_grace:g} s after the cutoff yet, "
            f"{behind:.0f} s to go; if its primary is idle, commit anything there",
            max(behind, 1.0),
        )
    return Closing(
        Verdict.UNPROVEN,
        f"a standby can't see its primary's transactions; the closing snapshot began after it had replayed "
        f"commits from late_grace = {late_grace:g} s after the cutoff; plan against the primary for a proof",
    )


def _wait(reason: str, seconds: float = math.inf) -> Closing:
    # Never zero: at the very microsecond of the cutoff a clock is still not past it.
    return Closing(Verdict.WAIT, reason, max(0.01, min(seconds, WAIT_SECONDS_MAX)))


def _some(names: Sequence[object], most: int = 5) -> str:
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def checked_cutoff(cutoff_us: int | None, *, now_us: int) -> int:
    """Return the cutoff of a migration that is about to be planned.

    Args:
        cutoff_us: as configured; None: the server's clock.
        now_us: the server's clock.

    Raises:
        ConfigError: it is later than `now_us`: rows would go on entering the migration's scope.
    """
    if cutoff_us is None:
        return now_us
    if cutoff_us > now_us:
        expected = f"expected no later than the server's clock, {timestamp_text(now_us)}"
        raise ConfigError(
            [f"migration.cutoff is {timestamp_text(cutoff_us)}, {expected}"],
            "leave migration.cutoff out to take the server's clock",
        )
    return cutoff_us


def refuse_undecided_nulls(spec: SourceConfig, excluded: Exclusions) -> None:
    """Raise unless the source has a rule for every kind of NULL that a scan met.

    Raises:
        SourceUnfitError: it has not; the message names the counts, the keys and both choices.
    """
    asked = []
    if spec.created_at is not None and spec.null_created_at is None and excluded.null_created_at:
        asked.append(
            f"{excluded.null_created_at} rows have {spec.created_at} NULL: set null_created_at = "
            '"include" (copy them, after all dated rows) or "exclude" (leave them, counted)'
        )
    if spec.null_value is None and excluded.null_value:
        asked.append(
            f"{excluded.null_value} rows have {spec.value} NULL: set null_value = "
            '"exclude" (leave them, counted) or "empty" (write an empty object for each)'
        )
    if asked:
        raise SourceUnfitError(
            f"plan {spec.name}: {'; '.join(asked)}",
            f'nothing was planned; decide in [[source]] or [layer_cache], whichever "{spec.name}" comes from',
        )
