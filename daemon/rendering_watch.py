"""The screen of `status --watch`, as rows that fit it; pure. Who draws them, and when, is not known here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.rendering_course import eta_word, force_facts, standing_note, where_time_went
from daemon.rendering_progress import SEPARATOR, checkpoint_word
from daemon.rendering_view import PARK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.rendering_view import Fault, Line, View

WIDTH_MIN, HEIGHT_MIN = 20, 4
"""A smaller screen is drawn as if it were so large; the terminal cuts what does not fit."""
FAULTS_SHOWN_MAX = 5
BAR_CELLS_MIN, BAR_CELLS_MAX = 6, 40
KEY_CELLS_MAX = 40
_FILLED, _EMPTY = "━", "╌"
_GAP = "  "
_BYTES = (2, 4)
"""Columns of rates in bytes."""
_LEAVING = "q leaves"


class Tone(StrEnum):
    """What a row is, for whoever colours it; no meaning is in the colour alone."""

    PLAIN = "plain"
    TITLE = "title"
    WARNING = "warning"
    FAINT = "faint"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the screen, no wider than it, with nothing in it that could drive a terminal."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class _Layout:
    """How much is shown: what does not fit is left out in the order of LAYOUTS."""

    faults: int
    details: bool
    time: bool
    gaps: bool
    advice: int


_LAYOUTS = (
    _Layout(FAULTS_SHOWN_MAX, details=True, time=True, gaps=True, advice=2),
    _Layout(2, details=True, time=True, gaps=True, advice=2),
    _Layout(2, details=False, time=True, gaps=True, advice=1),
    _Layout(1, details=False, time=True, gaps=False, advice=0),
    _Layout(0, details=False, time=True, gaps=False, advice=0),
)


def watch_rows(seen: View, *, width: int, height: int) -> list[Row]:
    """Return the screen: state, what is in force, a bar per source, where the time went, top errors.

    At most `height` rows of at most `width` columns. Where not all fits, first errors go, then the second line of
    each source, then sources: finished ones first, and the number left out is told.
    """
    width, height = max(WIDTH_MIN, width), max(HEIGHT_MIN, height)
    head = _head(seen, width)[: height - 2]
    foot = Row(units.clip(SEPARATOR.join([_moment(seen), _LEAVING]), width), Tone.FAINT)
    room = height - len(head) - 1
    for layout in _LAYOUTS:
        body = _body(seen, layout, width, len(seen.sources))
        if len(body) <= room:
            return [*head, *body, foot]
    smallest = _LAYOUTS[-1]
    for kept in range(len(seen.sources) - 1, 0, -1):
        body = _body(seen, smallest, width, kept)
        if len(body) <= room:
            return [*head, *body, foot]
    return [*head, *_bars([seen.total], width, details=False)[-room:], foot]


def trouble_rows(problem: str, hint: str, *, width: int, height: int) -> list[Row]:
    """Return the screen while there is no status to show: why, and what to type; it is tried again all the time."""
    width, height = max(WIDTH_MIN, width), max(HEIGHT_MIN, height)
    rows = [Row(line, Tone.WARNING) for line in units.wrap(units.one_line(problem), width)]
    rows += [
        Row(line) for line in units.wrap(units.one_line(hint), width, first="hint: ", rest="      ") if hint
    ]
    return [*rows[: height - 1], Row(units.clip(f"trying again{SEPARATOR}{_LEAVING}", width), Tone.FAINT)]


def _head(seen: View, width: int) -> list[Row]:
    state = seen.state.replace("_", " ")
    title = f"{units.shown(seen.name)}: {state}{f': {seen.reason}' if seen.reason else ''}"
    rows = [Row(line, Tone.TITLE) for line in units.wrap(title, width, rest="  ")[:2]]
    for label, text in force_facts(seen):
        rows += [Row(line, Tone.WARNING) for line in units.wrap(f"{label} {text}", width, rest="  ")[:2]]
    note = standing_note(seen)
    return [*rows, Row(_cut(f"note: {note}", width))] if note else rows


def _moment(seen: View) -> str:
    return f"event {units.count(seen.head_seq)}, {units.ago(seen.last_event_us, seen.now_us)}"


def _body(seen: View, layout: _Layout, width: int, most: int) -> list[Row]:
    gap = [Row("")] if layout.gaps else []
    kept = _needed(seen.sources, most)
    rows = [
        *gap,
        *_bars([*kept, *([seen.total] if len(seen.sources) > 1 else [])], width, details=layout.details),
    ]
    left_out = len(seen.sources) - len(kept)
    if left_out:
        rows.append(
            Row(units.clip(f"{units.plural(left_out, 'more source')}: `backfillctl status` shows all", width))
        )
    went = where_time_went(seen)
    if went and layout.time:
        rows += [*gap, *(Row(line) for line in units.wrap(went, width, first="time: ", rest="      ")[:2])]
    if seen.faults and layout.faults:
        rows += [*gap, *(Row(_fault(fault, seen.now_us, width)) for fault in seen.faults[: layout.faults])]
        more = len(seen.faults) - layout.faults
        if more > 0:
            rows.append(
                Row(units.clip(f"{units.plural(more, 'more class', 'more classes')} of errors", width))
            )
    advice = [Row(_cut(f"next: {step}", width)) for step in seen.next_steps[: layout.advice]]
    return [*rows, *gap, *advice] if advice else rows


def _needed(lines: Sequence[Line], most: int) -> list[Line]:
    """Return at most `most` lines in their order, unfinished ones first."""
    by_need = sorted(range(len(lines)), key=lambda index: (lines[index].finished, index))
    return [lines[index] for index in sorted(by_need[:most])]


def _bars(lines: Sequence[Line], width: int, *, details: bool) -> list[Row]:
    """Return a heading and a line for each source: name, bar, share, rates, ETA; columns that don't fit are left out."""
    if not lines:
        return []
    headings = ("", "1 min", "", "15 min", "", "ETA")
    figures = [_figures(line) for line in lines]
    columns = [max(units.cells(row[index]) for row in (headings, *figures)) for index in range(len(headings))]
    names = [units.shown(line.name) for line in lines]
    name_width = min(max([*(units.cells(name) for name in names), len("source")]), max(6, width // 4))
    shown = _fitting(columns, width - name_width)
    taken = name_width + sum(columns[index] + len(_GAP) for index in shown)
    bar_width = min(BAR_CELLS_MAX, width - taken - len(_GAP))
    if bar_width < BAR_CELLS_MIN:
        bar_width = 0

    def row(name: str, bar: str, cells: Sequence[str]) -> str:
        parts = [
            units.pad(units.clip(name, name_width), name_width, left=False),
            *([bar] if bar_width else []),
        ]
        parts += [units.pad(cells[index], columns[index]) for index in shown]
        return units.clip(_GAP.join(parts).rstrip(), width)

    rows = [Row(row("source", " " * bar_width, headings), Tone.FAINT)]
    for line, name, cells in zip(lines, names, figures, strict=True):
        rows.append(Row(row(name, _bar(line, bar_width), cells)))
        if details:
            rows.append(Row(_cut(f"  {_details(line, width - 2)}", width), Tone.FAINT))
    return rows


def _fitting(columns: Sequence[int], room: int) -> list[int]:
    """Return which columns are shown: share and ETA first, then rates of keys, and of bytes where a bar fits too."""
    shown: list[int] = []
    for index in (0, 5, 1, 3, 2, 4):
        beside = BAR_CELLS_MIN + len(_GAP) if index in _BYTES else 0
        if columns[index] + len(_GAP) + beside > room:
            break
        room -= columns[index] + len(_GAP)
        shown.append(index)
    return sorted(shown)


def _figures(line: Line) -> tuple[str, ...]:
    speed = line.speed
    return (
        _share(line),
        units.rate(speed.rows_1m, "obj"),
        units.byte_rate(speed.bytes_1m),
        units.rate(speed.rows_15m, "obj"),
        units.byte_rate(speed.bytes_15m),
        eta_word(line),
    )


def _share(line: Line) -> str:
    counts = line.counts
    if not counts.planned_rows:
        return "nothing" if line.planned else "-"
    return units.percent(counts.settled, counts.planned_rows)


def _bar(line: Line, width: int) -> str:
    filled = min(width, line.permille * width // 1000)
    return _FILLED * filled + _EMPTY * (width - filled)


def _details(line: Line, width: int) -> str:
    """Return amounts, in flight, parked, checkpoint; where not all fits, the beginning goes first."""
    counts = line.counts
    details = [
        f"{units.count(counts.settled)} of {units.count(counts.planned_rows)}{'' if line.planned else ' so far'}",
        f"in flight {units.count(counts.in_flight)}",
        f"parked {units.count(counts.parked)}",
    ]
    if line.checkpoint is not None:
        details.append(f"checkpoint {checkpoint_word(line.checkpoint)}")
    while len(details) > 1 and units.cells(SEPARATOR.join(details)) > width:
        details.pop(0)
    return SEPARATOR.join(details)


def _fault(fault: Fault, now_us: int, width: int) -> str:
    """Return one class of errors in one line: how many, whose, an example key, and what of the message fits."""
    what = f"{units.shown(fault.source)}: {units.count(fault.count)} x "
    what += "parked" if fault.operation == PARK else units.shown(fault.operation)
    what += f" {units.shown(fault.failure)}"
    if fault.last_us is not None:
        what += f", {units.ago(fault.last_us, now_us)}"
    text = f"{what}: key {units.clip(units.shown(fault.example_key), min(KEY_CELLS_MAX, width // 3))}"
    room = width - units.cells(text) - len(SEPARATOR)
    if room < 8 or not fault.message:
        return units.clip(text, width)
    return f"{text}{SEPARATOR}{_cut(units.shown(fault.message), room)}"


def _cut(text: str, width: int) -> str:
    """Return the beginning of `text` that fits, marked where something is missing."""
    if units.cells(text) <= width:
        return text
    return units.fold(text, width - 1)[0] + units.ELLIPSIS
