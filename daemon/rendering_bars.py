"""Bars of a running session for a terminal, as plain lines; pure. Who draws them in place is not known here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.rendering_progress import SEPARATOR, Progress, Reading, checkpoint_word, done, eta

if TYPE_CHECKING:
    from collections.abc import Sequence

LINES_PER_READING = 2
WIDTH_MIN = 40
"""Narrower terminals cut what does not fit."""
_FILLED, _EMPTY = "━", "╌"
_GAP = "  "


def bar_lines(progress: Progress, readings: Sequence[Reading], *, width: int, height: int) -> list[str]:
    """Return two lines per reading: name, bar, share, rates and ETA; then parked, in flight, checkpoint.

    No line is wider than `width` columns and no more than `height` lines come back: a terminal scrolls
    otherwise, and what is drawn in place smears. Where not all sources fit, finished ones go first, and the
    number left out is told.
    """
    width = max(WIDTH_MIN, width)
    kept = fitting(readings, max(1, (height - 1) // LINES_PER_READING))
    name_width = min(max(units.cells(units.shown(reading.name)) for reading in kept), width // 4)
    figures = [_figures(reading) for reading in kept]
    columns = [max(units.cells(row[index]) for row in figures) for index in range(len(figures[0]))]
    bar_width = min(30, width - name_width - sum(columns) - len(_GAP) * (len(columns) + 1))
    lines: list[str] = []
    for reading, row in zip(kept, figures, strict=True):
        cells = [units.pad(units.clip(units.shown(reading.name), name_width), name_width, left=False)]
        if bar_width >= 4:
            amounts = reading.amounts
            cells.append(bar(amounts.settled_rows, amounts.planned_rows, bar_width))
        cells += [units.pad(text, column) for text, column in zip(row, columns, strict=True)]
        lines += [_GAP.join(cells), "  " + SEPARATOR.join(_details(progress.state, reading))]
    left_out = len(readings) - len(kept)
    if left_out:
        lines.append(f"{units.plural(left_out, 'more source')}: `backfillctl status` shows all")
    return [units.clip(line, width) for line in lines]


def fitting(readings: Sequence[Reading], most: int) -> list[Reading]:
    """Return at most `most` readings in their order; kept first are the total, then unfinished sources."""
    by_need = sorted(range(len(readings)), key=lambda index: (_finished(readings[index]), index))
    return [readings[index] for index in sorted(by_need[:most])]


def _finished(reading: Reading) -> int:
    if reading.checkpoint is None:
        return -1
    amounts = reading.amounts
    return int(amounts.plan_complete and amounts.settled_rows >= amounts.planned_rows)


def _figures(reading: Reading) -> list[str]:
    pace = reading.pace
    return [
        done(reading),
        units.rate(pace.rows_per_second, "obj"),
        units.byte_rate(pace.bytes_per_second),
        eta(reading),
    ]


def bar(part: int, whole: int, width: int) -> str:
    """Return a bar of `width` columns, filled as far as `part` of `whole` goes."""
    filled = part * width // whole if whole else 0
    return _FILLED * filled + _EMPTY * (width - filled)


def _details(state: str, reading: Reading) -> list[str]:
    details = [] if state == "running" else [state]
    if reading.scanned_rows is not None:
        details.append(f"scanned {units.plural(reading.scanned_rows, 'row')}")
    checkpoint = reading.checkpoint
    if checkpoint is None or not checkpoint.held_by_parked:
        details.append(f"parked {units.count(reading.amounts.left_out_rows)}")
    if checkpoint is not None:
        details.append(f"checkpoint {checkpoint_word(checkpoint)}")
    details.insert(-1, f"in flight {units.count(reading.in_flight)}")
    return details
