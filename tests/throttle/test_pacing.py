from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from daemon.causes import Cause
from daemon.config import ThrottleConfig
from daemon.controls import Controls
from daemon.drain import Drain
from daemon.pacing import BURST_SECONDS, Bucket, Pacer
from daemon.tunables import Tunables

MIB = 2**20
MONDAY_US = 1_772_409_600_000_000


class Ledger:
    """Keeps what waits lasted, by cause, in the place of Activity."""

    def __init__(self):
        self.seconds = {}

    @contextmanager
    def at(self, cause):
        begun = trio.current_time()
        try:
            yield
        finally:
            self.seconds[cause] = self.seconds.get(cause, 0.0) + trio.current_time() - begun


@dataclass
class Rig:
    """A pacer with everything that it looks at; the wall clock begins at midnight UTC of a Monday."""

    throttle: ThrottleConfig = field(default_factory=ThrottleConfig)
    clock_offset_us: int = MONDAY_US

    def __post_init__(self):
        self.ledger = Ledger()
        self.controls = Controls(Tunables(1), throttle=self.throttle)
        self.pacer = Pacer(self.controls, self.ledger, self.now_us)

    def now_us(self):
        return self.clock_offset_us + round(trio.current_time() * 1e6)

    def set(self, rows=None, size=None):
        self.controls.set(Tunables(1, rows, size))
        return self


def paced(rows=None, size=None, timetable=None):
    """Return the rig of a pacer with these rates; a timetable is a rate that holds all day."""
    throttle = ThrottleConfig() if timetable is None else ThrottleConfig(timetable=f"00:00,{timetable}")
    return Rig(throttle).set(rows, size)


async def read_for(pacer, seconds, *, rows, size, readers=3):
    """Let `readers` read batches as fast as they are let for `seconds`; return rows and bytes read."""
    read = [0, 0]

    async def reader():
        while True:
            await pacer.admit(Drain(), rows=rows, size=size)
            read[0] += rows
            read[1] += size

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(readers):
                nursery.start_soon(reader)
    return tuple(read)


@pytest.mark.parametrize(("rows", "size"), [(16, 1600), (64, 6400), (500, 50_000)])
async def test_rows_are_kept_to_their_rate_within_5_percent_over_ten_minutes(autojump_clock, rows, size):
    read, _ = await read_for(paced(rows=200).pacer, 600, rows=rows, size=size)
    assert read == pytest.approx(200 * 600, rel=0.05)


@pytest.mark.parametrize("size", [25_000, 10 * MIB, 40 * MIB])
async def test_bytes_are_kept_to_their_rate_within_5_percent_over_twenty_minutes(autojump_clock, size):
    rate = 20 * MIB if size > 25_000 else 50_000
    _, read = await read_for(paced(size=rate).pacer, 1200, rows=1, size=size)
    assert read == pytest.approx(rate * 1200, rel=0.05)


async def test_the_stricter_of_rows_and_bytes_decides(autojump_clock):
    rows, size = await read_for(paced(rows=100, size=MIB).pacer, 600, rows=10, size=MIB)
    assert size == pytest.approx(600 * MIB, rel=0.05)
    assert rows == pytest.approx(6000, rel=0.05)


async def test_without_a_rate_nobody_waits(autojump_clock):
    rig = paced()
    pacer = rig.pacer
    for _ in range(1000):
        await pacer.admit(Drain(), rows=64, size=100 * MIB)
    assert (trio.current_time(), rig.ledger.seconds) == (0.0, {})


async def test_a_batch_larger_than_a_seconds_worth_goes_and_the_next_waits_out_its_debt(autojump_clock):
    pacer = paced(rows=10).pacer
    moments = []
    for _ in range(3):
        await pacer.admit(Drain(), rows=50, size=0)
        moments.append(trio.current_time())
    assert moments == pytest.approx([1, 6, 11])


async def test_at_most_a_seconds_worth_is_saved_up_while_nobody_reads(autojump_clock):
    pacer = paced(rows=100).pacer
    await pacer.admit(Drain(), rows=1, size=0)
    await trio.sleep(3600)
    begun = trio.current_time()
    for _ in range(200):
        await pacer.admit(Drain(), rows=1, size=0)
    assert trio.current_time() - begun == pytest.approx(1.0)


@pytest.mark.parametrize("rows", [None, 1000])
async def test_a_higher_rate_or_none_frees_whoever_waits_at_once(autojump_clock, rows):
    rig = paced(rows=1)
    pacer = rig.pacer
    await pacer.admit(Drain(), rows=1, size=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: pacer.admit(Drain(), rows=1000, size=0))
        await trio.sleep(0.5)
        rig.set(rows=rows)
    assert trio.current_time() <= 2.5


async def test_a_lower_rate_holds_at_once_for_whoever_waits(autojump_clock):
    rig = paced(rows=100)
    pacer = rig.pacer
    await pacer.admit(Drain(), rows=100, size=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: pacer.admit(Drain(), rows=50, size=0))
        await trio.sleep(0.1)
        rig.set(rows=1)
    # At the old rate the bucket would have held 50 at 1.5 s; it held 10, of which the new one keeps a second's worth.
    read, _ = await read_for(pacer, 100, rows=1, size=0)
    assert read <= 101 - 49 + 1


async def test_what_was_saved_at_a_high_rate_is_not_spent_at_a_low_one(autojump_clock):
    rig = paced(size=100 * MIB)
    pacer = rig.pacer
    await pacer.admit(Drain(), rows=1, size=0)
    await trio.sleep(10)
    rig.set(size=MIB)
    _, read = await read_for(pacer, 100, rows=1, size=100_000)
    assert read == pytest.approx(101 * MIB, rel=0.01)


@pytest.mark.parametrize(
    ("rates", "cause"),
    [
        ({"size": MIB}, Cause.RATE_LIMIT),
        ({"timetable": MIB}, Cause.TIMETABLE),
        ({"size": MIB, "timetable": 2 * MIB}, Cause.RATE_LIMIT),
        ({"size": 2 * MIB, "timetable": MIB}, Cause.TIMETABLE),
        ({"rows": 1}, Cause.RATE_LIMIT),
    ],
)
async def test_a_wait_is_accounted_for_by_the_limit_that_causes_it(autojump_clock, rates, cause):
    rig = paced(**rates)
    pacer = rig.pacer
    for _ in range(10):
        await pacer.admit(Drain(), rows=1, size=MIB)
    assert rig.ledger.seconds == {cause: pytest.approx(10)}


async def test_a_wait_is_explained_by_the_limits_in_force(autojump_clock):
    rig = Rig(ThrottleConfig(timetable="00:00,20M 08:00,off")).set(500, 30 * MIB)
    await rig.pacer.admit(Drain(), rows=1, size=1)
    assert rig.pacer.explain(Cause.TIMETABLE) == "at most 20.0 MiB/s until 2026-03-02T08:00:00Z"
    assert rig.pacer.explain(Cause.RATE_LIMIT) == "at most 500 rows/s and 30.0 MiB/s"
    assert rig.pacer.explain(Cause.NETWORK) == ""


async def test_one_that_is_cancelled_while_it_waits_uses_nothing_up(autojump_clock):
    pacer = paced(rows=10).pacer
    with trio.move_on_after(0.5):
        await pacer.admit(Drain(), rows=1000, size=0)
    await pacer.admit(Drain(), rows=10, size=0)
    assert trio.current_time() == pytest.approx(1.0)


async def test_a_drain_ends_every_wait_at_once_and_uses_nothing_up(autojump_clock):
    pacer, drain = paced(rows=10).pacer, Drain()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(lambda: pacer.admit(drain, rows=1000, size=0))
        await trio.sleep(0.5)
        drain.request("SIGTERM")
    assert trio.current_time() == 0.5
    await pacer.admit(Drain(), rows=10, size=0)
    assert trio.current_time() == pytest.approx(1.0)


async def test_readers_are_served_in_the_order_of_their_coming(autojump_clock):
    pacer = paced(rows=10).pacer
    served = []

    async def read(name, rows):
        await pacer.admit(Drain(), rows=rows, size=0)
        served.append(name)

    async with trio.open_nursery() as nursery:
        for name, rows in [("large", 100), ("small", 1), ("smaller", 1)]:
            nursery.start_soon(read, name, rows)
            await trio.testing.wait_all_tasks_blocked()
    assert served == ["large", "small", "smaller"]


async def test_a_fetch_asks_for_no_more_than_a_seconds_worth_but_for_one_row(autojump_clock):
    rig = paced(rows=10, size=MIB, timetable=5000)
    pacer = rig.pacer
    assert (pacer.fetch_rows(64), pacer.fetch_size(64 * MIB)) == (10, 5000)
    rig.set(rows=1000)
    assert (pacer.fetch_rows(64), pacer.fetch_size(64 * MIB)) == (64, 5000)
    rig = paced(size=100 * MIB)
    pacer = rig.pacer
    assert (pacer.fetch_rows(64), pacer.fetch_size(64 * MIB)) == (64, 64 * MIB)


async def test_the_timetable_changes_the_rate_at_its_minute_for_whoever_waits_too(autojump_clock):
    rig = Rig(ThrottleConfig(timetable="00:00,1M 00:10,2M 00:20,off"))
    _, slow = await read_for(rig.pacer, 600, rows=1, size=MIB)
    _, fast = await read_for(rig.pacer, 600, rows=1, size=MIB)
    assert (slow, fast) == (pytest.approx(600 * MIB, rel=0.01), pytest.approx(1200 * MIB, rel=0.01))
    begun = trio.current_time()
    await rig.pacer.admit(Drain(), rows=1, size=10_000 * MIB)
    assert trio.current_time() == begun


async def test_a_timetable_that_a_reload_brings_holds_for_whoever_waits(autojump_clock):
    rig = Rig(ThrottleConfig(timetable="00:00,1K"))
    await rig.pacer.admit(Drain(), rows=1, size=100 * 1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: rig.pacer.admit(Drain(), rows=1, size=1))
        await trio.sleep(2)
        rig.controls.set(Tunables(1), throttle=ThrottleConfig())
    assert trio.current_time() == 3


async def test_a_wall_clock_that_is_set_is_followed_by_the_timetable_within_seconds(autojump_clock):
    rig = Rig(ThrottleConfig(timetable="00:00,1K 12:00,off"))
    await rig.pacer.admit(Drain(), rows=1, size=1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: rig.pacer.admit(Drain(), rows=1, size=MIB))
        nursery.start_soon(lambda: rig.pacer.admit(Drain(), rows=1, size=MIB))
        await trio.sleep(2)
        rig.clock_offset_us += 12 * 3_600_000_000
    assert trio.current_time() <= 12
    rig.clock_offset_us -= 12 * 3_600_000_000
    assert rig.pacer.fetch_size(MIB) == 1024


amounts = st.lists(st.tuples(st.integers(1, 3000), st.floats(0, 5)), min_size=1, max_size=60)


@given(st.integers(1, 1000), amounts)
def test_over_any_span_no_more_goes_through_than_the_rate_a_burst_and_one_excess(rate, drawn):
    bucket, now, gone = Bucket(rate, now=0.0), 0.0, []
    for amount, idle in drawn:
        now += idle
        now += bucket.wait(amount, now=now)
        assert bucket.wait(amount, now=now) == 0
        bucket.take(amount, now=now)
        gone.append((now, amount))
    for first, (begun, _) in enumerate(gone):
        total = 0
        for end, amount in gone[first:]:
            total += amount
            excess = max(0, amount - rate * BURST_SECONDS)
            assert total - excess <= rate * (end - begun + BURST_SECONDS) + 1e-3 * rate


@given(st.integers(1, 1000), amounts)
def test_one_that_always_waits_just_as_long_as_told_reaches_the_rate(rate, drawn):
    bucket, now, total = Bucket(rate, now=0.0), 0.0, 0
    for amount, _ in drawn:
        now += bucket.wait(amount, now=now)
        bucket.take(amount, now=now)
        total += amount
    assert total >= rate * (now - BURST_SECONDS) - 1e-3 * rate
