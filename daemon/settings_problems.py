"""Say what is wrong with a config in an operator's words: the place, what was found, what is allowed; pure."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, time
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

_SHOWN_CHARACTERS_MAX = 80
_HIDDEN = "a value not shown here, it may hold a password"
_HOLDS_PASSWORD = re.compile(r"(?s)://.*@|password\s*=", re.IGNORECASE)
"""A connection string, wherever in the file it was put by mistake."""


def shown(value: object) -> str:
    """Return a value as TOML would write it, cut at 80 characters; nothing of one that may hold a password."""
    if isinstance(value, datetime | date | time):
        text = value.isoformat()
    elif isinstance(value, str | int | float | bool | list | tuple | dict):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    if _HOLDS_PASSWORD.search(text):
        return _HIDDEN
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "…"


def unknown_key(place: str, key: str, allowed: list[str]) -> str:
    """Return the problem of a key, section or variable that does not exist, with the nearest that does."""
    spelt = {name.lower(): name for name in allowed}
    near = get_close_matches(key.lower(), spelt, n=1)
    guess = f'; did you mean "{spelt[near[0]]}"?' if near else f"; expected any of {', '.join(allowed)}"
    return f"{place}: unknown{guess}"


def section_problems(
    failure: ValidationError,
    model: type[BaseModel],
    place: str,
    origins: Mapping[str, str],
) -> list[str]:
    """Return one line per problem of one section.

    Args:
        failure: what the model refused.
        model: the section's model.
        place: the section's TOML path, such as `upload` or `source "attachments"`.
        origins: `section.key` to the flag or variable that gave the value, where the file did not.
    """
    return [_line(details, model, place, origins) for details in failure.errors(include_url=False)]


def _line(details: ErrorDetails, model: type[BaseModel], place: str, origins: Mapping[str, str]) -> str:
    location = [str(part) for part in details["loc"]]
    key = location[0] if location else ""
    path = f"{place}.{key}" if key else place
    where = f"{path} (from {origins[path]})" if path in origins else path
    kind = details["type"]
    if kind == "extra_forbidden":
        return unknown_key(path, key, list(model.model_fields))
    if kind == "missing":
        return f"{where}: missing; expected {model.model_fields[key].description or 'a value'}"
    hidden = key == "dsn" or (key == "endpoint" and "@" in str(details["input"]))
    found = _HIDDEN if hidden else shown(details["input"])
    return f"{where}: found {found}; expected {_allowed(details)}"


def _allowed(details: ErrorDetails) -> str:
    context: dict[str, Any] = details.get("ctx", {})
    if details["type"] == "value_error":
        return str(context["error"])
    if details["type"] == "literal_error":
        return str(context["expected"]).replace("'", '"')
    return details["msg"].removeprefix("Input should be ").lower()
