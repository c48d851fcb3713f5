"""Group commit: large groups while entries keep coming, at once where work waits for one, and a turn for everybody."""

from __future__ import annotations

import pytest
import trio

from daemon.recorder import GROUP_SECONDS, Recorder
from daemon.runtime import Runtime
from journal.entries import Settled
from journal.lifecycle import Outcome

COMMIT_SECONDS = 0.005


class SlowJournal:
    """Takes whatever it is given, and remembers when."""

    def __init__(self) -> None:
        self.groups: list[tuple[float, int]] = []

    def record(self, group, *, now_us):
        self.groups.append((trio.current_time(), len(group)))


@pytest.fixture
def journal():
    return SlowJournal()


@pytest.fixture
def recorder(journal):
    async def slowly(function):
        await trio.sleep(COMMIT_SECONDS)
        return function()

    return Recorder(journal, Runtime(now_us=lambda: 0, journal_runner=slowly))


async def arrivals(recorder, number, *, every):
    for ordinal in range(number):
        await recorder.record(Settled(ordinal, Outcome.STORED, 1, "", None, None))
        await trio.sleep(every)


async def test_entries_that_keep_coming_are_committed_in_few_groups(recorder, journal, autojump_clock):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        await arrivals(recorder, 1000, every=0.001)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert sum(size for _, size in journal.groups) == 1000
    assert len(journal.groups) <= 1 / GROUP_SECONDS + 1


async def test_whoever_else_needs_the_journal_waits_for_one_commit_at_most(recorder, autojump_clock):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        nursery.start_soon(lambda: arrivals(recorder, 100_000, every=0.0001))
        await trio.sleep(1.0123)
        begun = trio.current_time()
        await recorder.call(lambda _journal, _now: None)
        assert trio.current_time() - begun <= 2 * COMMIT_SECONDS + 1e-9
        nursery.cancel_scope.cancel()


async def test_a_group_that_work_waits_for_is_committed_once_it_is_large_enough(
    recorder, journal, autojump_clock
):
    recorder.hasten(3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        await arrivals(recorder, 3, every=0.001)
        await trio.sleep(1)
        # And only that one: the next waits for company as ever.
        again = trio.current_time()
        await arrivals(recorder, 3, every=0.001)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    (first, three), (second, other_three) = journal.groups
    assert (three, other_three) == (3, 3)
    assert first == pytest.approx(0.002 + COMMIT_SECONDS)
    assert second - again == pytest.approx(GROUP_SECONDS + COMMIT_SECONDS)


async def test_what_is_taken_back_is_committed_behind_the_outcomes_handed_over_before(
    recorder, journal, autojump_clock
):
    taken = []
    journal.recover_from = lambda process, ordinals, *, now_us: taken.append(
        (process, list(ordinals), [size for _, size in journal.groups])
    )
    waiting = recorder.committed
    await recorder.record(Settled(1, Outcome.STORED, 1, "", None, None))
    await recorder.take_back("a process", [2, 3])
    assert taken == [("a process", [2, 3], [1])]
    assert waiting.is_set()
