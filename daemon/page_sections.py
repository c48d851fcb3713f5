"""The lower half of the status page: sources, where time went, errors, what to do; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.causes import Cause
from daemon.page_parts import Bar, duration_or_dash, escaped, foreign, rate_pair, segments_of
from daemon.rendering_progress import checkpoint_word
from daemon.rendering_view import PARK

if TYPE_CHECKING:
    from daemon.rendering_view import Fault, Line, View
    from journal.status import MigrationStatus

FAULTS_SHOWN_MAX = 12
"""Most classes of errors on the page; `status` has the rest."""
_COLOURS: dict[str, str] = {
    Cause.NETWORK: "work",
    Cause.SOURCE: "work2",
    Cause.PLANNING: "work3",
    Cause.CLOSING: "work3",
    Cause.S3_SLOW_DOWN: "trouble",
    Cause.UNREACHABLE: "trouble2",
    Cause.BYTE_BUDGET: "slow2",
    Cause.RATE_LIMIT: "slow2",
    Cause.TIMETABLE: "slow2",
    Cause.REPLICA_LAG: "slow",
    Cause.ACTIVE_SESSIONS: "slow",
    Cause.QUERY: "slow",
    Cause.HIBERNATION: "slow",
    Cause.DISK_RESERVE: "trouble2",
    Cause.OPERATOR: "operator",
}
"""Classes of the style sheet: work, slowing down on purpose, trouble, people. The list below the bar names each."""


def table(view: View, status: MigrationStatus) -> str:
    """Return a row per source, and the total of several."""
    closed = {source.name: source.closed for source in status.sources}
    rows = [_row(line, closed=closed.get(line.name, False)) for line in view.sources]
    if len(view.sources) > 1:
        rows.append(_row(view.total, closed=False))
    heads = ("Progress", "Settled", "Size", "Keys", "Bytes", "ETA", "In flight", "Parked", "Checkpoint")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    if not rows:
        return '<section class="sheet"><h2>Sources</h2><p class="none">None is on record yet.</p></section>'
    return (
        '<section class="sheet"><h2>Sources</h2><div class="scroll"><table role="table">'
        f'<thead><tr role="row"><th scope="col">Source</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>'
    )


def _row(line: Line, *, closed: bool) -> str:
    counts, speed = line.counts, line.speed
    share = units.percent(counts.settled, counts.planned_rows)
    rows, rows_before = rate_pair(speed.rows_1m, speed.rows_15m, lambda rate: units.rate(rate, "obj"))
    size, size_before = rate_pair(speed.bytes_1m, speed.bytes_15m, units.byte_rate)
    of_rows = f"{units.count(counts.settled)} of {units.count(counts.planned_rows)}"
    total = line.checkpoint is None
    note = "" if total else "closed" if closed else "" if line.planned else "planning"
    cells = [
        ("", f"{segments_of(line).svg(f'{share} settled')}{_small(note)}"),
        ("Settled", f"{share}{_small(of_rows)}"),
        ("Size", f"{units.size(counts.settled_bytes)}{_small(f'of {units.size(counts.planned_bytes)}')}"),
        ("Keys", f"{rows}{_small(rows_before)}"),
        ("Bytes", f"{size}{_small(size_before)}"),
        ("ETA", "done" if line.finished else duration_or_dash(speed.eta_seconds)),
        ("In flight", units.count(counts.in_flight)),
        ("Parked", f'<span class="hot">{units.count(counts.parked)}</span>' if counts.parked else "0"),
        ("Checkpoint", _checkpoint(line)),
    ]
    tds = "".join(
        f'<td role="cell" data-name="{name}">{text}</td>'
        if name
        else f'<td role="cell" class="wide">{text}</td>'
        for name, text in cells
    )
    name = "total" if total else foreign(line.name).replace("_", "_<wbr>")
    kind = ' class="total"' if total else ""
    return f'<tr role="row"{kind}><th scope="row" role="rowheader">{name}</th>{tds}</tr>'


def _checkpoint(line: Line) -> str:
    if line.checkpoint is None:
        return ""
    word, _, held = checkpoint_word(line.checkpoint).partition(" (")
    return f"{escaped(word)}{_small(held.removesuffix(')'))}"


def _small(text: str) -> str:
    return f"<small>{escaped(text)}</small>" if text else ""


def spent(view: View) -> str:
    """Return where the hours of all sessions went: a bar, and what it is made of."""
    whole = view.spent_seconds
    title = f"Where the time went, of {units.duration(whole)}" if whole else "Where the time went"
    if not whole:
        return (
            f'<section class="sheet"><h2>{title}</h2><p class="none">Nothing is on record yet.</p></section>'
        )
    shown = [one for one in view.spent if one.seconds]
    bar = Bar(tuple((_COLOURS.get(one.cause, "rest"), one.seconds / whole) for one in shown), "time")
    items = []
    for one in shown:
        slow = f"{units.plural(one.episodes, 'slow-down')}" if one.episodes else ""
        detail = f", the last: {units.shown(one.last_detail)}" if one.last_detail else ""
        items.append(
            f'<li><i class="swatch {_COLOURS.get(one.cause, "rest")}"></i><span>{escaped(units.shown(one.words))}</span>'
            f"<span>{units.duration(one.seconds)}</span>"
            f'<span class="share-of">{units.percent(one.seconds, whole)}</span>{_small(slow + detail)}</li>'
        )
    label = ", ".join(f"{units.shown(one.words)} {units.percent(one.seconds, whole)}" for one in shown)
    return f'<section class="sheet"><h2>{title}</h2>{bar.svg(label)}<ul class="spent">{"".join(items)}</ul></section>'


def faults(view: View) -> str:
    """Return the classes of errors, parked keys first, each with an example."""
    shown = view.faults[:FAULTS_SHOWN_MAX]
    items = "".join(_fault(fault, view.now_us) for fault in shown)
    left_out = len(view.faults) - len(shown)
    more = (
        f'<p class="none">{units.count(left_out)} more: {escaped("`backfillctl status`")}</p>'
        if left_out
        else ""
    )
    body = f'<ul class="faults">{items}</ul>{more}' if items else '<p class="none">None so far.</p>'
    return f'<section class="sheet"><h2>Parked keys and failed attempts</h2>{body}</section>'


def _fault(fault: Fault, now_us: int) -> str:
    parked = fault.operation == PARK
    what = (
        fault.failure.replace("_", " ") if parked else f"{fault.operation} {fault.failure}".replace("_", " ")
    )
    number = units.plural(fault.count, "key") if parked else f"{units.plural(fault.count, 'time')}"
    last = "" if fault.last_us is None else f", last {units.ago(fault.last_us, now_us)}"
    tag = '<span class="tag">parked</span> ' if parked else ""
    said = f'<p class="said">{foreign(fault.message)}</p>' if fault.message else ""
    return (
        f"<li><p>{tag}<b>{escaped(units.shown(what))}</b>, {number} of {foreign(fault.source)}{last}</p>"
        f"<p>such as <code>{foreign(fault.example_key)}</code></p>{said}</li>"
    )


def steps(view: View) -> str:
    """Return what the operator should do now; nothing where nothing is to be done."""
    if not view.next_steps:
        return ""
    items = "".join(f"<li>{escaped(step)}</li>" for step in view.next_steps)
    return f'<section class="sheet"><h2>What to do</h2><ol class="steps">{items}</ol></section>'
