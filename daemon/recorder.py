"""The async front of the one journal writer: group commit of outcomes, everything else in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import trio

from daemon.runtime import Runtime
from journal.entries import AttemptFailed, JsonValue, Parked, Recovery, Settled
from journal.errors import IllegalTransition, JournalError
from journal.events import Kind
from journal.log import Journal

T = TypeVar("T")
Entry: TypeAlias = Settled | AttemptFailed | Parked

GROUP_MAX = 1000
"""Entries committed at once at most; measured: FULL costs 2 us a key at 500, less at 2000."""
GROUP_SECONDS = 0.05
"""How long the first entry of a group waits for company."""


class Recorder:
    """Collects entries from many tasks and commits them in groups, in the order of arrival.

    `record` returns once the entry is buffered: an outcome that a crash loses is driven again, and the
    conditional PUT makes that harmless. The buffer is bounded: `record` waits when it is full.

    Attributes:
        committed: set by the next group commit, or when keys were taken back, and replaced then; take it before looking at the journal.
        instruments: what this process measures of itself.
        broken: the journal failed to write, and has taken no group since; what is buffered can't be saved.
    """

    def __init__(self, journal: Journal, runtime: Runtime) -> None:
        self.journal = journal
        self.instruments = runtime.instruments
        self._runtime = runtime
        self._buffer: list[Entry] = []
        self._arrived = trio.Event()
        self._full = trio.Event()
        self._due = GROUP_MAX
        self.committed = trio.Event()
        self.broken = False
        self._turn = trio.Lock()

    def now_us(self) -> int:
        """Return the wall clock as the journal's entries have it."""
        return self._runtime.now_us()

    async def call(self, function: Callable[[Journal, int], T]) -> T:
        """Run `function(journal, now_us)` when the writer is free; what it returns is committed."""
        async with self._turn:
            return await self._write(lambda: function(self.journal, self._runtime.now_us()))

    async def note(self, kind: Kind, data: Mapping[str, JsonValue], *, source: int | None = None) -> int:
        """Record an event without effect on any key; return its seq."""
        return await self.call(lambda journal, now_us: journal.note(kind, data, now_us=now_us, source=source))

    async def record(self, entry: Entry) -> None:
        """Hand over one entry for the next group commit; waits while two groups are already waiting."""
        while len(self._buffer) >= 2 * GROUP_MAX:
            await self.committed.wait()
        self._buffer.append(entry)
        self._arrived.set()
        if len(self._buffer) >= self._due:
            self._full.set()

    def hasten(self, entries: int) -> None:
        """Let the next group be committed without waiting for company once it has so many: work waits for it."""
        self._due = min(self._due, max(1, entries))
        if len(self._buffer) >= self._due:
            self._full.set()

    async def take_back(self, process: str, ordinals: Sequence[int]) -> Recovery:
        """Record that `process` died with these keys in hand, whose outcomes, if any, were handed over before."""
        async with self._turn:
            while self._buffer:
                await self._commit_group()
            recovery = await self._write(
                lambda: self.journal.recover_from(process, ordinals, now_us=self._runtime.now_us())
            )
            self._tell_committed()
        return recovery

    async def flush(self) -> None:
        """Commit what is buffered now."""
        async with self._turn:
            while self._buffer:
                await self._commit_group()

    async def run(self) -> None:
        """Commit groups until cancelled; an entry waits for company for at most GROUP_SECONDS.

        Raises:
            JournalFull, JournalFailed: from the commit; the group stays in the buffer.
        """
        while True:
            await self._arrived.wait()
            with trio.move_on_after(GROUP_SECONDS):
                await self._full.wait()
            # One group only: as long as entries arrive, a loop would commit a few at a time and let no claim in between.
            async with self._turn:
                if self._buffer:
                    await self._commit_group()

    async def _commit_group(self) -> None:
        self._due = GROUP_MAX
        group = self._buffer[:GROUP_MAX]
        with self.instruments.commit():
            await self._write(lambda: self.journal.record(group, now_us=self._runtime.now_us()))
        del self._buffer[: len(group)]
        # A full disk that has room again took the group: the end of the session can be recorded too.
        self.broken = False
        if not self._buffer:
            self._arrived = trio.Event()
        if len(self._buffer) < GROUP_MAX:
            self._full = trio.Event()
        self._tell_committed()

    def _tell_committed(self) -> None:
        self.committed.set()
        self.committed = trio.Event()

    async def _write(self, function: Callable[[], T]) -> T:
        try:
            return await self._runtime.journal_runner(function)
        except IllegalTransition:
            # The request is to blame, such as an operator's; it is rolled back, and the journal takes the next.
            raise
        except JournalError:
            self.broken = True
            raise
