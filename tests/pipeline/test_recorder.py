"""Group commit: what is buffered, when it is committed, what a broken journal leaves."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from daemon.recorder import GROUP_MAX, GROUP_SECONDS, Recorder
from daemon.runtime import Runtime, in_loop
from journal.checkpoint import Order
from journal.entries import Settled
from journal.errors import IllegalTransition, JournalFull
from journal.lifecycle import Outcome
from journal.log import Journal

KEYS = 3 * GROUP_MAX


@pytest.fixture
def journal(tmp_path):
    with Journal.create(
        tmp_path / "journal.db", name="t", cutoff_us=1000, order=Order.NEWEST_FIRST, now_us=1
    ) as opened:
        source = opened.add_source("t", {}, now_us=1)
        opened.begin_pass(source, kind="sweep", now_us=1)
        opened.seal_chunk(source, [(f"{n:05}", 500, 1, None) for n in reversed(range(KEYS))], now_us=1)
        opened.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=1)
        opened.start_session(now_us=1, facts={})
        opened.claim(source, limit=KEYS, window=KEYS, now_us=1)
        yield opened


def recorder_over(journal):
    return Recorder(journal, Runtime(now_us=lambda: 2, random=random.Random(1), journal_runner=in_loop))


def stored(ordinal):
    return Settled(ordinal, Outcome.STORED, 1, "0" * 32)


async def test_the_first_entry_waits_for_company_no_longer_than_the_group_interval(journal, autojump_clock):
    recorder = recorder_over(journal)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        begun = trio.current_time()
        committed = recorder.committed
        await recorder.record(stored(1))
        await committed.wait()
        assert trio.current_time() - begun == pytest.approx(GROUP_SECONDS)
        nursery.cancel_scope.cancel()
    assert journal.in_flight == KEYS - 1


async def test_a_full_group_is_committed_at_once(journal, autojump_clock):
    recorder = recorder_over(journal)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        committed = recorder.committed
        for ordinal in range(1, GROUP_MAX + 1):
            await recorder.record(stored(ordinal))
        await committed.wait()
        assert trio.current_time() == 0
        nursery.cancel_scope.cancel()


async def test_a_full_buffer_makes_its_writers_wait(journal, autojump_clock):
    recorder = recorder_over(journal)
    for ordinal in range(1, 2 * GROUP_MAX + 1):
        await recorder.record(stored(ordinal))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.record, stored(2 * GROUP_MAX + 1))
        await wait_all_tasks_blocked()
        assert journal.in_flight == KEYS
        await recorder.flush()
    await recorder.flush()
    assert journal.in_flight == KEYS - 2 * GROUP_MAX - 1


async def test_each_group_tells_those_who_wait_for_room(journal, autojump_clock):
    recorder = recorder_over(journal)
    for ordinal in range(1, 2 * GROUP_MAX + 1):
        await recorder.record(stored(ordinal))
    first = recorder.committed
    gate, calls = trio.Event(), []

    async def second_call_waits(function):
        calls.append(function)
        if len(calls) == 2:
            await gate.wait()
        return await in_loop(function)

    recorder._runtime = Runtime(now_us=lambda: 2, journal_runner=second_call_waits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.flush)
        await wait_all_tasks_blocked()
        assert first.is_set()
        gate.set()


async def test_a_journal_that_refuses_leaves_the_group_buffered_and_says_broken(
    journal, autojump_clock, monkeypatch
):
    recorder = recorder_over(journal)
    await recorder.record(stored(1))

    def full(*_args, **_kwargs):
        raise JournalFull("no space")

    monkeypatch.setattr(journal, "record", full)
    with pytest.raises(JournalFull):
        await recorder.flush()
    assert recorder.broken
    monkeypatch.undo()
    await recorder.flush()
    assert journal.in_flight == KEYS - 1
    assert not recorder.broken


async def test_a_call_that_the_journal_forbids_breaks_nothing(journal, autojump_clock):
    recorder = recorder_over(journal)
    with pytest.raises(IllegalTransition):
        await recorder.call(lambda journal, now_us: journal.note("no such kind", {}, now_us=now_us))
    assert not recorder.broken
