"""Tell the service manager how we are: the sd_notify protocol, datagrams to the socket that NOTIFY_SOCKET names.

The protocol is stable by promise (sd_notify(3)), and its few lines are fewer than a dependency. Where nobody
listens, every message is dropped without a word.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.log_events import LogEvent, log_event

if TYPE_CHECKING:
    from collections.abc import Mapping

SEND_SECONDS_MAX = 0.1
"""How long a full socket may hold up the event loop: unless it hangs, the manager reads it within milliseconds."""


class Notifier:
    """Speaks to the service manager that started this process, or to nobody.

    Attributes:
        listening: somebody listens.
        watchdog_seconds: within which WATCHDOG must be heard again; None where no watchdog waits for it.
    """

    def __init__(self, address: str | None = None, *, watchdog_seconds: float | None = None) -> None:
        """Prepare to speak.

        Args:
            address: a path, or an abstract name that begins with "@"; None, and any other kind, is nobody.
            watchdog_seconds: what `watchdog_seconds` will be.
        """
        self._address = address if address and address[0] in "/@" else None
        self.listening = self._address is not None
        self.watchdog_seconds = watchdog_seconds if self.listening else None
        self._deaf = False
        if address and not self.listening:
            log_event(
                LogEvent.UNHEARD, "NOTIFY_SOCKET is neither a path nor an abstract name: nobody is told"
            )

    @classmethod
    def from_environment(cls, env: Mapping[str, str], *, pid: int) -> Notifier:
        """Return the notifier that NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID in `env` mean for process `pid`."""
        ours = env.get("WATCHDOG_PID", str(pid)) == str(pid)
        interval = env.get("WATCHDOG_USEC", "")
        watched = ours and interval.isdecimal() and int(interval) > 0
        return cls(env.get("NOTIFY_SOCKET"), watchdog_seconds=int(interval) / 1e6 if watched else None)

    def ready(self) -> None:
        """Say that start-up, or a reload, is over."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` says that it has been."""
        # Type=notify-reload compares it with the moment of its request, by CLOCK_MONOTONIC.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the one line that `systemctl status` shows."""
        self._send(f"STATUS={units.one_line(text)}")

    def watchdog(self) -> None:
        """Say that we live."""
        self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask for `seconds` from now for the start or the stop that is going on; more than is granted already."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        place = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
                speaker.settimeout(SEND_SECONDS_MAX)
                speaker.sendto("\n".join(assignments).encode(), place)
        except OSError as error:
            # Nothing here is worth the migration; a missed READY or WATCHDOG the manager answers by itself.
            if not self._deaf:
                log_event(
                    LogEvent.UNHEARD,
                    f"tell the service manager {assignments[0]}: {error.strerror or error}",
                    message=assignments[0],
                )
            self._deaf = True
        else:
            self._deaf = False
