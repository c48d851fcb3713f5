"""Ctrl-C and SIGTERM during the demo: raised where nothing half made can be lost, held back elsewhere.

A server that is just being started, or removed, is in nobody's hands yet: a signal that strikes there is
remembered and raised a moment later. After the first one everything is cleaned up, and no further signal
interrupts that.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a service manager or `kill`, and a terminal that goes away."""


class Stopped(BaseException):
    """A signal asks the demo to end; no Exception, so that nothing handles it on its way out."""


class Stops:
    """What signals have asked for so far.

    Attributes:
        received: the first signal, None as long as there was none.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._raised = False
        self._held = 0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle SIGNALS within, but those that the caller ignores (`nohup`, a background job) stay ignored."""
        before = {one: signal.getsignal(one) for one in SIGNALS}
        handled = [one for one, handler in before.items() if handler is not signal.SIG_IGN]
        for one in handled:
            signal.signal(one, self._on_signal)
        try:
            yield
        finally:
            for one in handled:
                signal.signal(one, before[one])

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Let nothing interrupt the block.

        Raises:
            Stopped: at the end of the block, if a signal came meanwhile.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self._raise_pending()

    def hold_back_for_good(self) -> None:
        """Only note signals from here on: everything is being cleaned up."""
        self._held += 1

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
        self._raise_pending()

    def _raise_pending(self) -> None:
        if self.received is not None and not self._held and not self._raised:
            self._raised = True
            raise Stopped(self.received)
