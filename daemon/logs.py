"""The log on stderr: which style, which lines, and the last one before the process ends."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from daemon.log_events import LogEvent, Scalar, Told, told_in
from daemon.log_lines import Style, log_line, writable
from daemon.redacting import Redactor
from daemon.repeats import LeftOut, Repeats

if TYPE_CHECKING:
    from daemon.config import Config

_UNBOUNDED = frozenset({LogEvent.PROGRESS, LogEvent.FAILED, LogEvent.ENDED})
"""Events that are never left out: their number is bounded by time, or they end the command."""


class StderrLog(logging.Handler):
    """Writes to whatever sys.stderr is at that moment.

    Attributes:
        style: how lines are written.
    """

    def __init__(self, style: Style, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.style = style
        self._monotonic = monotonic
        self._migration: str | None = None
        self._redactor: Redactor | None = None
        self._repeats: Repeats[tuple[LogEvent, str | None]] = Repeats()

    def configure(self, config: Config, env: Mapping[str, str]) -> None:
        """Take style, name and redaction from the configuration, once there is one."""
        self.style = chosen_style(config.log.format, env)
        self._migration = config.migration.name
        self._redactor = Redactor() if config.log.redact_keys else None

    def identify(self, migration_id: str) -> None:
        """From here on hash keys under the migration's id, if they are hashed at all."""
        if self._redactor is not None:
            self._redactor = Redactor(migration_id)

    def redacted(self, key: str) -> str:
        """Return `key` as this log shows it."""
        return key if self._redactor is None else self._redactor.hashed(key)

    def redacted_text(self, text: str, keys: Collection[str]) -> str:
        """Return `text` with each of `keys` as this log shows it."""
        return text if self._redactor is None else self._redactor.redacted(text, keys)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, unless too many of its kind came; first what was left out before."""
        told = told_in(record)
        text = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            text += f" ({record.exc_info[0].__name__})"
        now, now_us = self._monotonic(), round(record.created * 1e6)
        try:
            for left_out in self._repeats.over(now, all_of_them=told.event is LogEvent.ENDED):
                self._write_left_out(left_out, now_us)
            if told.event in _UNBOUNDED or self._repeats.admits((told.event, told.source), now):
                self._write(told, text, record.levelno, now_us)
        except OSError:
            self.handleError(record)

    def _write_left_out(self, left_out: LeftOut[tuple[LogEvent, str | None]], now_us: int) -> None:
        event, source = left_out.kind
        where = f"{source}: " if source else ""
        text = f"{where}… {left_out.number} more {event.word} like these in {left_out.seconds:.0f} s"
        fields: dict[str, Scalar] = {
            "repeated": event.word,
            "number": left_out.number,
            "seconds": round(left_out.seconds, 3),
        }
        self._write(Told(LogEvent.REPEATED, source, (), fields), text, LogEvent.REPEATED.level, now_us)

    def _write(self, told: Told, text: str, level: int, now_us: int) -> None:
        line = log_line(
            self.style,
            told,
            text,
            level=level,
            now_us=now_us,
            migration=self._migration,
            redactor=self._redactor,
        )
        sys.stderr.write(writable(line + "\n", sys.stderr.encoding))
        sys.stderr.flush()


def chosen_style(log_format: str, env: Mapping[str, str]) -> Style:
    """Return the style for `log.format`; text becomes journald's where systemd takes what stderr says.

    Args:
        log_format: "text" or "json".
        env: JOURNAL_STREAM has the device and inode of systemd's stream (systemd.exec(5)), which stderr is only
            where nobody redirected it.
    """
    if log_format == Style.JSON:
        return Style.JSON
    try:
        facts = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return Style.TEXT
    return Style.JOURNALD if env.get("JOURNAL_STREAM") == f"{facts.st_dev}:{facts.st_ino}" else Style.TEXT


def to_stderr(style: Style) -> StderrLog:
    """Send the log of this program to stderr from INFO up, of its libraries from WARNING up."""
    handler = StderrLog(style)
    send_to(handler)
    return handler


def send_to(handler: logging.Handler) -> None:
    """Send the log to `handler` alone: of this program from INFO up, of its libraries from WARNING up."""
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("daemon", "journal"):
        logging.getLogger(name).setLevel(logging.INFO)
    # asyncpg logs tracebacks while a server is down; what matters of them is in our own messages.
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)
