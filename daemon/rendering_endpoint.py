"""What of a recorded survey of the endpoint an operator should see beside the state of a source; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units

if TYPE_CHECKING:
    from collections.abc import Mapping


def unusual(data: Mapping[str, object]) -> list[str]:
    """Return what makes copies less certain, or less lasting: ETags that are no MD5, rules that expire objects."""
    found = data.get("found")
    words: Mapping[str, object] = found if isinstance(found, dict) else {}
    rules = data.get("lifecycle")
    told = ["its ETags are no MD5"] if words.get("etag") == "other" else []
    return told + [
        f'lifecycle rule "{units.shown(str(rule[0]))}" {units.shown(str(rule[3]))} in it'
        for rule in (rules if isinstance(rules, list) else [])
    ]


def endpoint_line(data: Mapping[str, object]) -> str:
    """Return what is unusual as one clause; empty if nothing is."""
    told = unusual(data)
    where = f"s3://{units.shown(str(data.get('bucket')))}/{units.shown(str(data.get('prefix')))}"
    return f"{where}: {', '.join(told)}" if told else ""
