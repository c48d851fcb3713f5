"""The drawings of a report, as SVG in its page: the course of a migration, and histograms; pure.

Colours are classes of the style sheet, so that a drawing follows the theme and the printer. Nothing of a row or a
server's words gets in: only numbers, times and words of ours.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon import rendering_units as units
from daemon.causes import AT_WORK, Cause, cause_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH = 1000
LEFT, RIGHT = 64, 76
TOP, PLOT_HEIGHT, BAND_HEIGHT, FOOT = 14, 190, 12, 34
GAP = 14
"""Between two sessions, however long nothing ran in between."""
TICKS = 4
_MARK_ROOM = 18
_TONES: dict[str, str] = {
    Cause.S3_SLOW_DOWN: "trouble",
    Cause.UNREACHABLE: "trouble",
    Cause.DISK_RESERVE: "trouble",
    Cause.OPERATOR: "operator",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at one moment: "action" or "verification", and what it was."""

    time_us: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class _Stretch:
    begin_us: int
    end_us: int
    left: float
    right: float

    def x(self, time_us: int) -> float:
        whole = max(1, self.end_us - self.begin_us)
        share = min(1.0, max(0.0, (time_us - self.begin_us) / whole))
        return self.left + share * (self.right - self.left)


def timeline(
    bins: Sequence[Mapping[str, Any]], sessions: Sequence[Mapping[str, Any]], marks: Sequence[Mark]
) -> str:
    """Return the rates over time: objects a second (area), bytes a second (line), slow-downs as a band below.

    Time in which no session ran is cut out; a mark that lies there is drawn in the gap.
    """
    spans = [(one["started_us"], one["ended_us"]) for one in sessions]
    stretches = _stretches(spans)
    if not stretches or not bins:
        return ""
    objects = max((_rate(one, "objects") for one in bins), default=0.0)
    volume = max((_rate(one, "stored_bytes") for one in bins), default=0.0)
    base = TOP + _MARK_ROOM + PLOT_HEIGHT
    parts = [*_grid(objects, volume, base)]
    for stretch in stretches:
        inside = [one for one in bins if stretch.begin_us <= one["begin_us"] < stretch.end_us]
        parts += _session(stretch, inside, objects, volume, base)
    parts += [_mark(mark, stretches) for mark in marks]
    parts += _axis(stretches, base)
    height = base + BAND_HEIGHT + FOOT
    label = f"objects and bytes a second over {len(stretches)} sessions"
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _stretches(spans: Sequence[tuple[int, int]]) -> list[_Stretch]:
    lasted = sum(max(1, end - begin) for begin, end in spans)
    room = WIDTH - LEFT - RIGHT - GAP * max(0, len(spans) - 1)
    if not spans or room <= 0:
        return []
    found, at = [], float(LEFT)
    for begin, end in spans:
        width = room * max(1, end - begin) / lasted
        found.append(_Stretch(begin, end, at, at + width))
        at += width + GAP
    return found


def _rate(one: Mapping[str, Any], name: str) -> float:
    return float(one[name]) / one["seconds"] if one["seconds"] else 0.0


def _grid(objects: float, volume: float, base: float) -> list[str]:
    parts = []
    for tick in range(TICKS + 1):
        y = base - PLOT_HEIGHT * tick / TICKS
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if objects:
            text = _short(objects * tick / TICKS)
            parts.append(f'<text class="left" x="{LEFT - 8}" y="{y + 4:.1f}">{text}</text>')
        if volume and tick:
            text = units.size(round(volume * tick / TICKS))
            parts.append(f'<text class="right" x="{WIDTH - RIGHT + 8}" y="{y + 4:.1f}">{text}</text>')
    parts.append(f'<text class="unit" x="{LEFT}" y="{TOP}">objects/s</text>')
    parts.append(f'<text class="unit end" x="{WIDTH - RIGHT}" y="{TOP}">bytes/s</text>')
    return parts


def _short(number: float) -> str:
    return f"{number:.1f}" if 0 < number < 10 else units.short_count(round(number))


def _session(
    stretch: _Stretch, bins: Sequence[Mapping[str, Any]], objects: float, volume: float, base: float
) -> list[str]:
    parts = [
        (
            f'<rect class="session" x="{stretch.left:.1f}" y="{base - PLOT_HEIGHT:.1f}"'
            f' width="{stretch.right - stretch.left:.1f}" height="{PLOT_HEIGHT}"/>'
        )
    ]
    area, line = [], []
    for one in bins:
        left, right = (
            stretch.x(one["begin_us"]),
            max(stretch.x(one["end_us"]), stretch.x(one["begin_us"]) + 1),
        )
        y = base - PLOT_HEIGHT * (_rate(one, "objects") / objects if objects else 0)
        area += [f"{left:.1f},{y:.1f}", f"{right:.1f},{y:.1f}"]
        z = base - PLOT_HEIGHT * (_rate(one, "stored_bytes") / volume if volume else 0)
        line += [f"{left:.1f},{z:.1f}", f"{right:.1f},{z:.1f}"]
        parts.append(_band(one, left, right, base))
    if area:
        first, last = area[0].partition(",")[0], area[-1].partition(",")[0]
        parts.insert(1, f'<polygon class="objects" points="{first},{base} {" ".join(area)} {last},{base}"/>')
        parts.insert(2, f'<polyline class="bytes" points="{" ".join(line)}"/>')
    return parts


def _band(one: Mapping[str, Any], left: float, right: float, base: float) -> str:
    """Return the mark of what slowed a stretch down, if that took most of its time."""
    spent: Mapping[str, int] = one["spent_ms"]
    slow = {cause: ms for cause, ms in spent.items() if cause not in AT_WORK}
    if not slow or 2 * sum(slow.values()) < sum(spent.values()):
        return ""
    cause = max(slow, key=slow.__getitem__)
    tone = _TONES.get(cause, "slow")
    return (
        f'<rect class="{tone}" x="{left:.1f}" y="{base + 3:.1f}" width="{right - left:.1f}" height="{BAND_HEIGHT - 3}">'
        f"<title>{html.escape(cause_words(cause))}</title></rect>"
    )


def _mark(mark: Mark, stretches: Sequence[_Stretch]) -> str:
    x = _place(mark.time_us, stretches)
    y = TOP + 6
    title = f"<title>{html.escape(units.shown(mark.text))}</title>"
    shape = f"M{x:.1f} {y}l5 5l-5 5l-5 -5z" if mark.kind == "verification" else f"M{x - 5:.1f} {y}h10l-5 9z"
    base = TOP + _MARK_ROOM + PLOT_HEIGHT
    return (
        f'<line class="mark {mark.kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 9}" y2="{base}"/>'
        f'<path class="{mark.kind}" d="{shape}">{title}</path>'
    )


def _place(time_us: int, stretches: Sequence[_Stretch]) -> float:
    for number, stretch in enumerate(stretches):
        if time_us < stretch.begin_us:
            return stretch.left - GAP / 2 if number else stretch.left
        if time_us <= stretch.end_us:
            return stretch.x(time_us)
    return stretches[-1].right + 6


def _axis(stretches: Sequence[_Stretch], base: float) -> list[str]:
    """Return when each session began, where there is room to say it."""
    parts, free_from = [], 0.0
    y = base + BAND_HEIGHT + 20
    for stretch in stretches:
        if stretch.left < free_from:
            continue
        text = units.moment_seconds(stretch.begin_us)
        parts.append(f'<text class="when" x="{stretch.left:.1f}" y="{y:.1f}">{text}</text>')
        free_from = stretch.left + 150
    return parts


def bars(rows: Sequence[tuple[str, int]], label: str) -> str:
    """Return a histogram as rows of a name, a bar and a number."""
    most = max((number for _, number in rows), default=0)
    if not most:
        return ""
    drawn = "".join(
        f"<tr><th>{html.escape(name)}</th><td class='wide'><svg class='bar' role='presentation'>"
        f"<rect class='stored' width='{number / most:.2%}' height='100%'/></svg></td><td>{units.count(number)}</td></tr>"
        for name, number in rows
    )
    return f'<table class="bars" aria-label="{html.escape(label)}"><tbody>{drawn}</tbody></table>'
