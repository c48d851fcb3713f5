"""One log line as text, as text for systemd's journal, or as JSON; pure."""

from __future__ import annotations

import json
import logging
from enum import StrEnum
from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.log_events import LogEvent

if TYPE_CHECKING:
    from daemon.log_events import Told
    from daemon.redacting import Redactor

_ASCII = str.maketrans({"·": "|", "…": "~", "━": "#", "╌": "-"})
_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""Level to syslog priority, as sd-daemon(3) lists them."""


class Style(StrEnum):
    """How lines are written."""

    TEXT = "text"
    """For terminals and files."""
    JOURNALD = "journald"
    """For systemd's journal, which has its own time stamps: text behind `<priority>` (sd-daemon(3))."""
    JSON = "json"


def log_line(
    style: Style,
    told: Told,
    text: str,
    *,
    level: int,
    now_us: int,
    migration: str | None,
    redactor: Redactor | None,
) -> str:
    """Return what is written for one record, without the final line break.

    Of several lines are, for people, an error that ends the command, as every command prints it, and a traceback.

    Args:
        style: how.
        told: event, source, keys, fields.
        text: for people; whatever is in it, it stays one line.
        level: of the standard library's.
        now_us: wall clock, microseconds since 1970-01-01 UTC.
        migration: its name; None while no configuration is read.
        redactor: hashes `told.keys` wherever they appear; None to show them.
    """
    if redactor is not None:
        text = redactor.redacted(text, told.keys)
    if style is Style.JSON:
        return _json_line(told, text, level=level, now_us=now_us, migration=migration, redactor=redactor)
    if told.event is LogEvent.FAILED:
        hint = str(told.fields.get("hint") or "")
        lines = [*f"error: {text}".splitlines(), *([f"hint: {hint}"] if hint else [])]
    else:
        trace = str(told.fields.get("traceback") or "")
        lines = [f"{logging.getLevelName(level)} {text}", *trace.splitlines()]
    if style is Style.JOURNALD:
        return "\n".join(f"<{_PRIORITIES.get(level, 6)}>{units.one_line(line)}" for line in lines)
    stamp = "" if told.event is LogEvent.FAILED else f"{units.moment_ms(now_us)} "
    return "\n".join(stamp + units.one_line(line) for line in lines)


def _json_line(
    told: Told, text: str, *, level: int, now_us: int, migration: str | None, redactor: Redactor | None
) -> str:
    fields = dict(told.fields)
    if redactor is not None:
        for name, value in fields.items():
            if isinstance(value, str):
                fields[name] = redactor.redacted(value, told.keys)
    line = {
        "ts": units.moment_ms(now_us),
        "level": logging.getLevelName(level).lower(),
        "event": told.event.word,
        "migration": migration,
        "source": told.source,
        "message": text,
        **fields,
    }
    return json.dumps(line, allow_nan=False)


def writable(text: str, encoding: str | None) -> str:
    """Return `text` as a stream of `encoding` can take it (LANG=C, a pipe set to ASCII)."""
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text
