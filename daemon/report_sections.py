"""The lists of a report's page: errors, parked keys, verifications, what people did, sessions; pure."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from daemon import rendering_units as units
from daemon.page_parts import foreign
from daemon.report_parts import more, section, table
from daemon.report_plots import bars

if TYPE_CHECKING:
    from collections.abc import Mapping


def failures(document: Mapping[str, Any]) -> str:
    """Return failed attempts by class."""
    found = document["failures"]
    rows = [
        [
            html.escape(units.shown(f"{one['operation']} {one['failure'].replace('_', ' ')}")),
            foreign(one["source"]),
            units.count(one["count"]),
            units.moment_seconds(one["last_us"]),
            foreign(one["example_key"]),
            foreign(one["message"]),
            foreign(one["request_id"] or "-"),
        ]
        for one in found["newest"]
    ]
    heads = ["Failed attempt", "source", "times", "last", "example", "said", "request"]
    rest = more(found["classes"] - len(rows), "class")
    return section("Errors", table(heads, rows, texts=(0, 4, 5, 6)) + rest) if rows else ""


def parked(document: Mapping[str, Any]) -> str:
    """Return keys that are parked, and why."""
    found = document["parked"]
    rows = [
        [
            foreign(one["key"]),
            foreign(one["source"]),
            foreign(one["failure"]),
            units.moment_seconds(one["since_us"]),
            foreign(one["message"]),
        ]
        for one in found["named"]
    ]
    rest = more(found["keys"] - len(rows), "key")
    return (
        section("Parked", table(["Key", "source", "why", "since", "said"], rows, texts=(0, 4)) + rest)
        if rows
        else ""
    )


def verifications(document: Mapping[str, Any]) -> str:
    """Return the verifications, and what each found."""
    rows = []
    for one in document["verifications"]:
        examples = "".join(
            f"<br>{html.escape(kind.replace('_', ' '))}: {foreign(key)}{f' ({foreign(detail)})' if detail else ''}"
            for kind, found in one["examples"].items()
            for key, detail in found
        )
        scope = "every key" if one["sample"] is None else f"a sample of {units.count(one['sample']['of'])}"
        rows.append(
            [
                html.escape(one["tier"]),
                scope,
                units.count(one["checked"]),
                units.moment_seconds(one["finished_us"]),
                "mismatch" if one["exit_code"] else "no mismatch",
                foreign(one["text"]) + examples,
            ]
        )
    heads = ["Tier", "scope", "checked", "finished", "verdict", "found"]
    body = table(heads, rows, texts=(1, 5)) or '<p class="none">None has been finished.</p>'
    keys = document["keys"]
    by = bars(
        [(f"by {tier}" if tier else "by none yet", number) for tier, number in keys["verified_by"].items()],
        "keys by the strongest tier that found them right",
    )
    return section(
        "Verification",
        body + (f"<h3>Keys by the strongest tier that found them right</h3>{by}" if by else ""),
    )


def actions(document: Mapping[str, Any]) -> str:
    """Return what people did."""
    found = document["actions"]
    rows = [
        [
            units.moment_seconds(one["time_us"]),
            html.escape(one["kind"].replace("_", " ")),
            foreign(one["who"]),
            units.count(one["keys"]) if one["keys"] else "",
            foreign(one["text"]),
        ]
        for one in found["newest"]
    ]
    rest = more(found["number"] - len(rows), "earlier action")
    return (
        section(
            "What people did", table(["When", "what", "who", "keys", "with"], rows, texts=(1, 2, 4)) + rest
        )
        if rows
        else ""
    )


def sessions(document: Mapping[str, Any]) -> str:
    """Return the sessions."""
    found = document["sessions"]
    rows = [
        [
            str(one["number"]),
            units.moment_seconds(one["started_us"]),
            units.duration((one["ended_us"] - one["started_us"]) / 1e6),
            foreign(one["reason"] or "no end on record"),
            "" if one["exit_code"] is None else str(one["exit_code"]),
            foreign(", ".join(f"{name} {value}" for name, value in one["facts"].items())),
        ]
        for one in found["newest"]
    ]
    rest = more(found["number"] - len(rows), "earlier session")
    heads = ["Session", "begun", "lasted", "ended", "exit code", "by"]
    return section("Sessions", table(heads, rows, texts=(3, 5)) + rest) if rows else ""
