"""Look at what limits the session each second, and put on record where the time went and what slowed it down."""

from __future__ import annotations

import functools
from collections.abc import Callable

import trio

from daemon.activity import Activity
from daemon.adapting import Change
from daemon.causes import WORDS, Cause, change_words, limiting
from daemon.controls import Controls
from daemon.instruments import Histogram
from daemon.ledger import Began, Ledger, SlowDownEvent
from daemon.log_events import LogEvent, log_event
from daemon.recorder import Recorder
from journal.events import Kind
from journal.log import Journal

LOOK_SECONDS = 1.0
"""Between two looks: a slow-down of seconds is seen, and a look costs microseconds."""
SAMPLE_SECONDS = 15.0
"""Between two samples on record: rates over a minute have four of them, a day has 5760."""


def unexplained(_cause: Cause) -> str:
    """Say no more than the cause."""
    return ""


class Accounting:
    """The one place that records slow-downs, changes of concurrency and samples of progress, whatever their cause."""

    def __init__(
        self,
        recorder: Recorder,
        controls: Controls,
        activity: Activity,
        *,
        explain: Callable[[Cause], str] = unexplained,
        puts: Histogram | None = None,
    ) -> None:
        """Account for what `activity` says, under what `controls` hold.

        Args:
            recorder: of the journal.
            controls: what holds.
            activity: what the session is at.
            explain: words causes that are no hold.
            puts: how long S3 took to answer PUTs, in this process; None: nobody measures.
        """
        self._recorder = recorder
        self._controls = controls
        self._activity = activity
        self._explain = explain
        self._ledger = Ledger(trio.current_time())
        self._puts = puts
        self._puts_before: dict[str, int] = {} if puts is None else puts.by_bound()

    async def run(self) -> None:
        """Look and record until cancelled; the first sample is the session's starting point.

        Raises:
            JournalError: from the recorder.
        """
        sampled = -SAMPLE_SECONDS
        while True:
            await self._look()
            if trio.current_time() - sampled >= SAMPLE_SECONDS:
                sampled = trio.current_time()
                await self._sample()
            with trio.move_on_after(LOOK_SECONDS):
                await self._controls.changed.wait()

    async def finish(self) -> None:
        """Record what is left once `run` has ended.

        Raises:
            JournalError: from the recorder.
        """
        await self._look(last=True)
        await self._record(self._ledger.close())
        await self._sample()

    async def _look(self, *, last: bool = False) -> None:
        change = self._controls.take_change(last=last)
        if change is not None:
            await self._record_change(change)
        held = self._controls.held
        cause = limiting(
            self._activity.doing,
            concurrency=self._controls.concurrency,
            held=None if held is None else held.cause,
            paused=self._controls.paused,
        )
        detail = held.detail if held is not None and held.cause is cause else self._explain(cause)
        await self._record(self._ledger.look(trio.current_time(), cause, detail))

    async def _record_change(self, change: Change) -> None:
        log_event(
            LogEvent.CONCURRENCY_CHANGED,
            f"uploads at once: {change.before} to {change.after} of {change.ceiling}: {change_words(change.cause, change.cuts)}",
            before=change.before,
            after=change.after,
            ceiling=change.ceiling,
            cause=change.cause,
        )
        data = {
            "from": change.before,
            "to": change.after,
            "cause": change.cause,
            "ceiling": change.ceiling,
            "cuts": change.cuts,
        }
        with trio.CancelScope(shield=True):
            if change.cuts:
                # The failed attempt that it follows from goes before it.
                await self._recorder.flush()
            await self._recorder.call(
                lambda journal, now_us: journal.note(
                    Kind.CONCURRENCY_CHANGED, data, ordinal=change.ordinal, now_us=now_us
                )
            )

    async def _record(self, events: list[SlowDownEvent]) -> None:
        for event in events:
            words = WORDS[event.cause] + (f": {event.detail}" if event.detail else "")
            began = isinstance(event, Began)
            log_event(
                LogEvent.THROTTLE_BEGAN if began else LogEvent.THROTTLE_ENDED,
                f"{'' if began else 'no longer '}slowed down by {words}",
                cause=event.cause.value,
                detail=event.detail,
            )
            # The ledger has told of it once: cancelled here, it would never get on record.
            with trio.CancelScope(shield=True):
                await self._recorder.call(functools.partial(_put_on_record, event))

    async def _sample(self) -> None:
        spent = self._ledger.take()
        counts = self._answered()
        with trio.CancelScope(shield=True):
            await self._recorder.call(
                lambda journal, now_us: journal.sample(spent, put_counts=counts, now_us=now_us)
            )

    def _answered(self) -> dict[str, int]:
        """Return how many PUTs were answered since the last call, by how long that took."""
        now = {} if self._puts is None else self._puts.by_bound()
        before, self._puts_before = self._puts_before, now
        return {
            bound: count - before.get(bound, 0)
            for bound, count in now.items()
            if count > before.get(bound, 0)
        }


def _put_on_record(event: SlowDownEvent, journal: Journal, now_us: int) -> None:
    if isinstance(event, Began):
        journal.begin_throttle(event.cause, detail=event.detail, now_us=now_us)
    else:
        journal.end_throttle(event.cause, detail=event.detail, milliseconds=event.milliseconds, now_us=now_us)
