"""The table of sources in `status`: exact where the terminal is wide enough, never wider than it; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.rendering_view import summed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from journal.entries import SourceCounts

NAME_WIDTH_MIN = 12
_GAP = "  "
_UPPER = ("done", "planned", "size", "stored", "present")
_LOWER = ("parked", "in flight", "waiting", "skipped", "vanished")


def counts_table(sources: Sequence[tuple[str, SourceCounts]], *, width: int) -> list[str]:
    """Return a header and the counts of each source, and their total where there are several.

    One line per source where all columns fit into `width`; else two, with the header's second line over the
    second; counts of six digits and more are shortened (1.23M) only if even that is too wide.
    """
    named = [(units.shown(name), counts) for name, counts in sources]
    if len(named) > 1:
        named.append(("total", summed(counts for _, counts in sources)))
    longest = max([units.cells(name) for name, _ in named] + [len("source")])
    exact = [_row(counts, units.count) for _, counts in named]
    short = [_row(counts, units.short_count) for _, counts in named]
    names = [name for name, _ in named]
    split = len(_UPPER)
    for rows, stacked in ((exact, False), (exact, True), (short, True)):
        if stacked:
            columns = _widths(
                [*(row[:split] for row in rows), *(row[split:] for row in rows), _UPPER, _LOWER]
            )
        else:
            columns = _widths([*rows, _UPPER + _LOWER])
        room = width - sum(columns) - len(_GAP) * len(columns)
        if room >= (min(longest, NAME_WIDTH_MIN) if stacked else longest):
            break
    name_width = max(min(longest, room), min(longest, NAME_WIDTH_MIN))
    lines: list[str] = []
    for name, row in zip(["source", *names], [_UPPER + _LOWER, *rows], strict=True):
        head = units.pad(units.clip(name, name_width), name_width, left=False)
        if stacked:
            lines.append(_line(head, row[:split], columns))
            lines.append(_line(" " * name_width, row[split:], columns))
        else:
            lines.append(_line(head, row, columns))
    return lines


def _row(counts: SourceCounts, written: Callable[[int], str]) -> tuple[str, ...]:
    return (
        units.percent(counts.settled, counts.planned_rows),
        written(counts.planned_rows),
        units.size(counts.planned_bytes),
        written(counts.stored + counts.recovered),
        written(counts.present),
        written(counts.parked),
        written(counts.in_flight),
        written(counts.pending + counts.unclaimed),
        written(counts.skipped),
        written(counts.vanished),
    )


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(units.cells(row[index]) for row in rows) for index in range(len(rows[0]))]


def _line(head: str, cells: Sequence[str], columns: Sequence[int]) -> str:
    padded = [units.pad(cell, column) for cell, column in zip(cells, columns, strict=True)]
    return _GAP.join([head, *padded]).rstrip()
