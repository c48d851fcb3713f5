"""A running session in the one line that `systemctl status` has for it; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units
from journal.status import MigrationState

if TYPE_CHECKING:
    from daemon.rendering_view import View

LOOKING = "looking at both ends"
"""Before there is a session."""
VERIFYING = "verifying"
"""After it."""
LINGERING = "ended, lingering for the last look at status page and metrics"
"""After all of it, until `metrics.linger` is over."""
SEPARATOR = " · "


def service_line(shown: View) -> str:
    """Return the share of keys settled, pace, ETA, parked keys, and what slows the session down.

    For example: "cas 41.2 % · 812 obj/s · ETA 3h12m · throttled: replica lag".
    """
    line = shown.sources[0] if len(shown.sources) == 1 else shown.total
    counts, speed = line.counts, line.speed
    words = [units.shown(line.name)]
    if counts.planned_rows:
        words.append(units.percent(counts.settled, counts.planned_rows))
    if shown.state != MigrationState.RUNNING:
        words.append(shown.state)
    known = counts.planned_rows and speed.eta_seconds is not None
    eta = units.duration(speed.eta_seconds or 0.0) if known else "-"
    parts = [" ".join(words), units.rate(speed.rows_1m, "obj"), f"ETA {eta}"]
    if counts.parked:
        parts.append(f"parked {units.count(counts.parked)}")
    if shown.throttle is not None:
        parts.append(f"throttled: {units.shown(shown.throttle.words)}")
    return SEPARATOR.join(parts)
