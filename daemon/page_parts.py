"""Small pieces of the status page: escaping, bars, figures; pure."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon import rendering_units as units

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.rendering_view import Line
    from journal.entries import SourceCounts

DASH = "-"


def escaped(text: str) -> str:
    """Return text that is safe for the eye already, safe for HTML; what is between backquotes as code."""
    parts = html.escape(text).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))


def foreign(text: str) -> str:
    """Return foreign text, safe for eye and HTML, its direction kept apart from what is around it."""
    return f"<bdi>{html.escape(units.shown(text))}</bdi>"


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of segments: class in the style sheet, and share of the whole in 0..1; the rest stays empty."""

    segments: tuple[tuple[str, float], ...]
    kind: str = ""

    def svg(self, label: str) -> str:
        """Return it as a drawing that `label` describes to who can't see it."""
        drawn, at = [], 0.0
        for name, share in self.segments:
            if share > 0:
                drawn.append(f'<rect class="{name}" x="{at:.3%}" width="{share:.3%}" height="100%"/>')
            at += share
        return f'<svg class="bar {self.kind}" role="img" aria-label="{html.escape(label)}">{"".join(drawn)}</svg>'


def segments_of(line: Line) -> Bar:
    """Return the bar of one source, by keys: stored, found, in flight, parked, and what waits."""
    counts = line.counts
    whole = max(1, counts.planned_rows)
    return Bar(
        (
            ("stored", (counts.stored + counts.recovered) / whole),
            ("found", (counts.present + counts.skipped + counts.vanished) / whole),
            ("flight", counts.in_flight / whole),
            ("parked", counts.parked / whole),
        )
    )


def swatches(counts: SourceCounts) -> str:
    """Return the key to the bar of all sources, with its numbers."""
    entries = [
        ("stored", "stored", counts.stored + counts.recovered),
        ("found", "present", counts.present),
        ("found", "skipped", counts.skipped),
        ("found", "vanished", counts.vanished),
        ("flight", "in flight", counts.in_flight),
        ("parked", "parked", counts.parked),
        ("", "waiting", counts.pending + counts.unclaimed),
    ]
    return (
        '<ul class="key">'
        + "".join(
            f'<li><i class="swatch {name}"></i>{word} <b>{units.count(number)}</b></li>'
            for name, word, number in entries
            if number or word in {"stored", "waiting"}
        )
        + "</ul>"
    )


def figure(name: str, value: str, note: str = "", *, bad: bool = False) -> str:
    """Return one number with its name and a note below."""
    small = f"<small>{escaped(note)}</small>" if note else ""
    opened = '<div class="bad">' if bad else "<div>"
    return f"{opened}<dt>{name}</dt><dd>{escaped(value)}{small}</dd></div>"


def banner(tone: str, words: str, text: str) -> str:
    """Return a line that must not be overlooked."""
    return f'<p class="banner {tone}"><b>{escaped(words)}</b> {escaped(text)}</p>'


def duration_or_dash(seconds: float | None) -> str:
    """Return a span, or a dash where nobody can say."""
    return DASH if seconds is None else units.duration(seconds)


def rate_pair(
    short: float | None, long: float | None, render: Callable[[float | None], str]
) -> tuple[str, str]:
    """Return the rate over a minute, and the one over 15 as a note."""
    return (
        DASH if short is None else render(short),
        "" if long is None else f"15 min: {render(long)}",
    )
