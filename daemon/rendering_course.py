"""How a migration goes: what is in force, how fast, and where the time went; for `status`, pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.causes import Cause
from journal.status import MigrationState

if TYPE_CHECKING:
    from daemon.rendering_view import Deed, Line, Spent, View

_GAP = "  "
_HEADINGS = ("1 min", "", "15 min", "", "ETA")
NAME_WIDTH_MAX = 24


def force_facts(seen: View) -> list[tuple[str, str]]:
    """Return what operators, throttles and the deadline have put in force: label and text."""
    facts: list[tuple[str, str]] = []
    if seen.pause is not None:
        facts.append(("paused", f"by {_by(seen.pause, seen.now_us)}; `backfillctl resume` ends it"))
    if seen.throttle is not None:
        began = units.ago(seen.throttle.since_us, seen.now_us)
        detail = f": {units.one_line(seen.throttle.detail)}" if seen.throttle.detail else ""
        facts.append(("throttled", f"{units.shown(seen.throttle.words)}{detail}; began {began}"))
    if seen.concurrency is not None:
        one = seen.concurrency
        since = units.ago(one.since_us, seen.now_us)
        facts.append(("concurrency", f"{one.limit} of {one.ceiling} ({units.shown(one.words)}, {since})"))
    if seen.tunables is not None:
        words = units.shown(" ".join(seen.tunables.words))
        instead = f"{words}, whatever the configuration says; by {_by(seen.tunables, seen.now_us)}"
        facts.append(("tuned", f"{instead}; `backfillctl set NAME=config` takes it back"))
    if seen.deadline_us is not None and seen.state != MigrationState.COMPLETE:
        facts.append(("deadline", f"{units.moment_seconds(seen.deadline_us)}{_lateness(seen)}"))
    return facts


def _lateness(seen: View) -> str:
    late = seen.late_seconds
    if late is None:
        return ""
    if seen.deadline_us is not None and seen.now_us > seen.deadline_us:
        return f", passed {units.ago(seen.deadline_us, seen.now_us)}"
    return (
        f"; as things go missed by {units.duration(late)}"
        if late > 0
        else f"; as things go met with {units.duration(-late)} to spare"
    )


def _by(deed: Deed, now_us: int) -> str:
    return f"{units.shown(deed.who)}, {units.ago(deed.since_us, now_us)}"


def rates_table(seen: View, width: int) -> list[str]:
    """Return rates over 1 and 15 minutes and the ETA of each unfinished source, and of all together.

    Empty where nothing has a rate: while no session works, and in its first seconds.
    """
    lines = [line for line in seen.sources if not line.finished]
    if not lines or all(line.speed.rows_15m is None for line in seen.sources):
        return []
    if len(seen.sources) > 1:
        lines.append(seen.total)
    rows = [(units.shown(line.name), *rates(line)) for line in lines]
    columns = [max(units.cells(row[index]) for row in (("", *_HEADINGS), *rows)) for index in range(1, 6)]
    room = width - sum(columns) - len(_GAP) * len(columns)
    name = min(max(*(units.cells(row[0]) for row in rows), len("source")), max(room, 6), NAME_WIDTH_MAX)
    table = [
        _GAP.join(
            [
                units.pad(units.clip(row[0], name), name, left=False),
                *(units.pad(cell, column) for cell, column in zip(row[1:], columns, strict=True)),
            ]
        ).rstrip()
        for row in (("rates", *_HEADINGS), *rows)
    ]
    return [units.clip(line, width) for line in table]


def rates(line: Line) -> tuple[str, str, str, str, str]:
    """Return keys and bytes per second over a minute, then over 15, and the ETA; "-" for what nobody can say."""
    speed = line.speed
    return (
        units.rate(speed.rows_1m, "obj"),
        units.byte_rate(speed.bytes_1m),
        units.rate(speed.rows_15m, "obj"),
        units.byte_rate(speed.bytes_15m),
        eta_word(line),
    )


def eta_word(line: Line) -> str:
    """Return "3h12m", or "-" where nobody can honestly say."""
    return "-" if line.speed.eta_seconds is None else units.duration(line.speed.eta_seconds)


def standing_note(seen: View) -> str:
    """Return what an ETA means while nothing new begins; empty while something does."""
    return f"{seen.standing}; the ETA stands still meanwhile" if seen.standing else ""


def where_time_went(seen: View) -> str:
    """Return "of 1d07h: network and S3 19h00m, replica lag 7h00m in 12 slow-downs, …"; empty before any sample.

    What took less than a second is left out, unless nothing took more.
    """
    told = [_spent(one) for one in seen.spent if one.seconds]
    return f"of {units.duration(seen.spent_seconds)}: {', '.join(told)}" if told else ""


def _spent(one: Spent) -> str:
    noun = "pause" if one.cause == Cause.OPERATOR else "slow-down"
    episodes = f" in {units.plural(one.episodes, noun)}" if one.episodes else ""
    return f"{units.shown(one.words)} {units.duration(one.seconds)}{episodes}"


def slow_downs(seen: View) -> list[str]:
    """Return one line for each deliberate cause that slowed the migration down: its newest end, and what was found."""
    return [
        f"{units.shown(one.words)}: last ended {units.ago(one.last_us, seen.now_us)}"
        + (f": {units.one_line(one.last_detail)}" if one.last_detail else "")
        for one in seen.spent
        if one.last_us is not None
    ]
