"""What only a running daemon knows of itself, in one line; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon import rendering_units as units

if TYPE_CHECKING:
    from collections.abc import Mapping


def live_text(facts: Mapping[str, Any]) -> str:
    """Return "live: pid 4711, last heartbeat 3 s ago, journal in 2 ms, concurrency 9 of 16, no rate limit, …".

    Args:
        facts: as the daemon sent them (`Steering.answer`), foreign text in them not yet escaped.
    """
    rates = [
        f"at most {value} {unit}/s"
        for value, unit in ((facts.get("rows_per_second"), "rows"), (facts.get("bytes_per_second"), "bytes"))
        if value is not None
    ]
    held, beat = facts.get("held"), facts.get("heartbeat_seconds")
    words = [
        f"pid {facts['pid']}",
        *(["no heartbeat yet"] if beat is None else [f"last heartbeat {beat:.0f} s ago"]),
        f"journal in {facts['journal_ms']} ms",
        f"concurrency {facts.get('concurrency_limit', facts['concurrency'])} of {facts['concurrency']}",
        *(rates or ["no rate limit"]),
        f"held by {held['cause'].replace('_', ' ')}: {held['detail']}" if held else "nothing holds it",
    ]
    return units.one_line("live: " + ", ".join(words))
