"""Instants between the microseconds that we count and the ones that PostgreSQL sends; pure."""

from __future__ import annotations

from daemon.rows import INFINITY_US, MINUS_INFINITY_US

EPOCH_2000_US = 946_684_800_000_000
"""2000-01-01, from which PostgreSQL counts, in microseconds since 1970-01-01 UTC."""


def as_sent(instant_us: int) -> tuple[int]:
    """Return what the driver's tuple codec of timestamptz takes for microseconds since 1970-01-01 UTC."""
    if instant_us in {INFINITY_US, MINUS_INFINITY_US}:
        return (instant_us,)
    return (instant_us - EPOCH_2000_US,)


def as_received(instant: tuple[int]) -> int:
    """Return microseconds since 1970-01-01 UTC of what that codec gives."""
    (since_2000,) = instant
    if MINUS_INFINITY_US < since_2000 < INFINITY_US:
        return since_2000 + EPOCH_2000_US
    return since_2000
