"""Medians, spreads and ratios of rounds; pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the ends of some figures."""

    median: float
    lowest: float
    highest: float


def spread(values: Iterable[float]) -> Spread:
    """Return median, minimum and maximum of at least one figure."""
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1])


def ratio(these: Sequence[float], those: Sequence[float]) -> Spread | None:
    """Return these over those, round by round: what disturbed a round disturbed both; None without rounds of both.

    Rounds beyond the shorter side's are left out.
    """
    pairs = list(zip(these, those, strict=False))
    return spread(this / that for this, that in pairs) if pairs else None


def latency_bound(connections: int, latency_ms: float) -> float:
    """Return the objects per second that no client can exceed, with one request at a time on each connection."""
    return connections / (latency_ms / 1e3)
