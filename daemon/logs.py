"""Log lines on stderr: time in UTC, level, text; one line each, whatever the text."""

from __future__ import annotations

import logging
import sys

from daemon.progress import write_line


class _Stderr(logging.Handler):
    """Writes to whatever sys.stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            text += f" ({record.exc_info[0].__name__})"
        try:
            write_line(sys.stderr, record.levelname, text, now_us=round(record.created * 1e6))
        except OSError:
            self.handleError(record)


def to_stderr() -> None:
    """Send the log of this program to stderr from INFO up, of its libraries from WARNING up."""
    root = logging.getLogger()
    root.handlers[:] = [_Stderr()]
    root.setLevel(logging.WARNING)
    for name in ("daemon", "journal"):
        logging.getLogger(name).setLevel(logging.INFO)
    # asyncpg logs tracebacks while a server is down; what matters of them is in our own messages.
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)
