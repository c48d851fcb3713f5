"""Whole sessions in virtual time against an endpoint that does not tell how many uploads at once it takes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio

from daemon.adapting import START
from daemon.errors import ExitCode
from journal.reader import Reader
from tests.pipeline.hidden_limit import CEILING, HiddenLimit, LimitedRig, Measured, RecordingRig, limited
from tests.s3_faults import slow_down

SETTLING_SECONDS = 20.0
WATCHED_SECONDS = 60.0
"""Long enough for probes that find nothing: after 1 s, 2 s, 4 s and so on."""
TOLERANCE = 0.15


async def settled(rig: LimitedRig, seconds: float = WATCHED_SECONDS) -> Measured:
    """What comes of a session once it has had time to settle; it ends by then."""
    async with rig.running():
        await trio.sleep(SETTLING_SECONDS)
        found = await rig.measured(seconds)
        rig.drain.request("SIGTERM")
    assert rig.counts().unclaimed > 0, "it ran out of rows while it was watched"
    return found


@pytest.mark.parametrize(("limit", "rows"), [(1, 500), (3, 1000), (8, 2000), (24, 5000), (60, 11_000)])
@pytest.mark.parametrize("refusals_cost", [False, True], ids=["cheap", "costly"])
async def test_it_settles_at_what_the_endpoint_takes(tmp_path, autojump_clock, limit, rows, refusals_cost):
    found = await settled(limited(tmp_path, HiddenLimit(limit, refusals_cost=refusals_cost), rows=rows))
    assert found.mean == pytest.approx(limit, rel=TOLERANCE)
    assert found.refused < max(0.01, 0.2 / limit)


async def test_it_settles_where_the_endpoint_is_silent_instead_of_refusing(tmp_path, autojump_clock):
    """Slower, since silence is noticed after seconds."""
    rig = limited(tmp_path, HiddenLimit(24, silent=5.0), rows=10_000)
    async with rig.running():
        await trio.sleep(100)
        found = await rig.measured(WATCHED_SECONDS)
        rig.drain.request("SIGTERM")
    assert found.mean == pytest.approx(24, rel=TOLERANCE)
    assert found.refused < 0.01


@pytest.mark.parametrize(("chance", "share"), [(1e-4, 0.9), (1e-3, 0.45)])
async def test_refusals_that_have_nothing_to_do_with_the_load_cost_no_more_than_they_cost_tcp(
    tmp_path, autojump_clock, chance, share
):
    """Reno's window is 1.22 / sqrt(chance) (RFC 5348 without timeouts): 122 of 64 at 1e-4, 38 at 1e-3."""
    rig = limited(tmp_path, HiddenLimit(10_000, chance=chance), rows=12_000, concurrency=64)
    assert (await settled(rig, 60)).mean > share * 64


@pytest.mark.parametrize(("before", "after"), [(24, 8), (8, 24)])
async def test_it_finds_a_limit_that_changes_in_mid_run(tmp_path, autojump_clock, before, after):
    rig = limited(tmp_path, HiddenLimit(before), rows=10_000)
    async with rig.running():
        await trio.sleep(SETTLING_SECONDS)
        first = await rig.measured(WATCHED_SECONDS)
        rig.hidden.limit = after
        # The longest plateau is a minute.
        await trio.sleep(60 + SETTLING_SECONDS)
        second = await rig.measured(WATCHED_SECONDS)
        rig.drain.request("SIGTERM")
    assert first.mean == pytest.approx(before, rel=TOLERANCE)
    assert second.mean == pytest.approx(after, rel=TOLERANCE)


@pytest.mark.parametrize("refusals_cost", [False, True], ids=["cheap", "costly"])
async def test_a_fixed_setting_above_the_limit_wastes_requests_or_throughput(
    tmp_path, autojump_clock, refusals_cost
):
    """Where a refusal costs the endpoint nothing, as many objects get through (3 % more), at 120 times the refusals.

    Where it takes a place that an upload could have had, 9 % fewer get through as well.
    """
    found = {}
    for adaptive in (True, False):
        directory = tmp_path / str(adaptive)
        directory.mkdir()
        hidden = HiddenLimit(24, refusals_cost=refusals_cost)
        found[adaptive] = await settled(limited(directory, hidden, rows=5000, adaptive=adaptive))
    adapted, fixed = found[True], found[False]
    assert adapted.goodput > 0.96 * fixed.goodput
    assert fixed.refused > 50 * adapted.refused
    if refusals_cost:
        assert adapted.goodput > 1.05 * fixed.goodput
        assert fixed.refused > 1


async def test_a_fixed_setting_below_the_limit_leaves_most_of_it_unused(tmp_path, autojump_clock):
    rig = limited(tmp_path, HiddenLimit(24), rows=3000, adaptive=False, concurrency=START)
    found = await settled(rig)
    assert found.mean == pytest.approx(START, rel=0.01)


async def test_slow_start_costs_less_than_a_percent_of_a_minute(tmp_path, autojump_clock):
    lasted = {}
    for adaptive in (True, False):
        directory = tmp_path / str(adaptive)
        directory.mkdir()
        hidden = HiddenLimit(10_000, seconds=0.03)
        rig = limited(directory, hidden, rows=4000, adaptive=adaptive, concurrency=64)
        begun = trio.current_time()
        await rig.session()
        lasted[adaptive] = trio.current_time() - begun
    assert lasted[True] - lasted[False] < 0.3


async def test_nothing_is_allowed_that_a_slow_source_leaves_unused(tmp_path, autojump_clock):
    rig = limited(tmp_path, HiddenLimit(10_000), rows=1000)
    rig.throttle = {"rows_per_second": START - 2}
    async with rig.running():
        await trio.sleep(100)
        assert rig.controls.concurrency == START
        rig.drain.request("SIGTERM")
    assert rig.events("concurrency_changed") == []


async def test_every_change_is_on_record_with_its_cause_and_there_are_few(tmp_path, autojump_clock):
    rig = limited(tmp_path, HiddenLimit(24), rows=9000)
    async with rig.running():
        await trio.sleep(170)
        status = rig.status()
        rig.drain.request("SIGTERM")
    changes = rig.events("concurrency_changed")
    assert status.concurrency is not None
    assert status.concurrency.data in changes
    assert changes[0] == {"from": START, "to": 2 * START, "cause": "grew", "ceiling": CEILING, "cuts": 0}
    assert {change["cause"] for change in changes} == {"grew", "s3_slow_down", "recovered"}
    assert all(earlier["to"] == later["from"] for earlier, later in pairwise(changes))
    assert all(change["cuts"] > 0 for change in changes if change["cause"] == "s3_slow_down")
    assert len(changes) <= 20
    refused = {failed["ordinal"] for failed in rig.events("attempt_failed")}
    assert {change["ordinal"] for change in changes if change["cuts"]} <= refused


async def test_the_failed_attempt_is_on_record_before_the_change_and_its_key_tells_of_both(
    tmp_path, autojump_clock
):
    """Over the real S3 client."""
    rig = RecordingRig(tmp_path, upload={"concurrency": 32})
    for number in range(40):
        rig.table.insert(f"k{number:02}", 1, b"v")
    rig.fake._latency = lambda: 0.05
    rig.fake.script(slow_down(), times=1, operation="PUT", key="t/k07")
    ended = await rig.session()
    assert ended.exit_code is ExitCode.DONE
    with Reader.open(rig.journal_path) as reader:
        events = [
            event for event in reader.events() if event.kind in {"attempt_failed", "concurrency_changed"}
        ]
        failed = next(event for event in events if event.kind == "attempt_failed")
        changed = next(event for event in events if event.data.get("cuts"))
        (history,) = reader.explain("k07")
    assert changed.seq > failed.seq
    assert changed.data["ordinal"] == failed.data["ordinal"]
    assert changed.data["cause"] == "s3_slow_down"
    assert "concurrency_changed" in [event.kind for event in history.events]
