"""A session's own limits: never passed, resumable, and no end for what is done anyway."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.drain import Drain
from daemon.errors import ExitCode
from daemon.migration import interrupted
from daemon.quota import Quota
from daemon.service import drained_after
from journal.entries import ClaimedKey
from tests.pipeline.rig import CUTOFF_US, Rig, source

VALUES = {f"k{number:02}": b"x" * 10 for number in range(20)}


def rig(tmp_path, **limits) -> Rig:
    made = Rig(tmp_path, limits=limits)
    for key, value in VALUES.items():
        made.table.insert(key, CUTOFF_US - 1, value)
    return made


async def test_a_limit_of_keys_ends_with_exactly_so_many_outcomes_and_the_next_session_resumes(
    tmp_path, autojump_clock
):
    made = rig(tmp_path, limit=7)
    # What is still in hand when the drain begins gets no time: a drain begun too early would show.
    made.upload = {"drain_deadline": 0.0}
    for stored in (7, 14):
        ended = await made.session()
        assert ended.exit_code is ExitCode.STOPPED
        assert ended.reason == "drained on limit = 7 with work left; the same command resumes"
        assert made.counts().stored == stored == len(made.objects())
        assert made.counts().in_flight == made.counts().pending == 0
    assert (await made.session()).exit_code is ExitCode.DONE
    assert len(made.objects()) == 20


@pytest.mark.parametrize("limit", [20, 21])
async def test_a_limit_that_everything_fits_into_stops_nothing(tmp_path, autojump_clock, limit):
    made = rig(tmp_path, limit=limit)
    assert (await made.session()).exit_code is ExitCode.DONE


@pytest.mark.parametrize(("max_bytes", "stored"), [(75, 7), (70, 7), (69, 6), (9, 1), (1, 1)])
async def test_a_limit_of_bytes_is_never_passed_but_by_a_single_key(
    tmp_path, autojump_clock, max_bytes, stored
):
    made = rig(tmp_path, max_bytes=max_bytes)
    ended = await made.session()
    assert ended.exit_code is ExitCode.STOPPED
    assert f"max_bytes = {max_bytes}" in ended.reason
    assert made.counts().stored == stored
    assert made.counts().in_flight == made.counts().pending == 0


async def test_limits_count_over_all_sources(tmp_path, autojump_clock):
    made = Rig(tmp_path, sources=(source("t"), source("u")), limits={"limit": 9})
    for table in made.tables.values():
        for key, value in VALUES.items():
            table.insert(key, CUTOFF_US - 1, value)
    assert (await made.session()).exit_code is ExitCode.STOPPED
    assert made.counts("t").stored + made.counts("u").stored == 9


async def test_a_drain_while_the_last_claimed_keys_are_ending_keeps_its_own_cause(tmp_path, autojump_clock):
    made = rig(tmp_path, limit=7)
    made.stop_at_start = "SIGTERM"
    assert (await made.session()).exit_code is ExitCode.TERMINATED


async def test_the_end_of_its_time_drains_with_its_own_cause(autojump_clock):
    drain = Drain()
    await drained_after(7200, drain)
    assert drain.cause == "max_duration = 2h00m"
    assert trio.current_time() == 7200
    assert interrupted(drain) is ExitCode.STOPPED


async def test_the_end_of_its_time_is_no_news_to_a_session_that_drains_already(autojump_clock, caplog):
    drain = Drain()
    drain.request("SIGTERM")
    await drained_after(7200, drain)
    assert drain.cause == "SIGTERM"
    assert not caplog.records


@given(
    st.lists(st.integers(0, 50), max_size=40),
    st.one_of(st.none(), st.integers(1, 20)),
    st.one_of(st.none(), st.integers(1, 200)),
)
def test_what_is_left_is_never_negative_and_the_limit_is_named_once_reached(sizes, keys_max, bytes_max):
    quota = Quota(keys_max, bytes_max)
    for size in sizes:
        if quota.keys_left == 0 or (quota.bytes_left is not None and quota.keys and size > quota.bytes_left):
            break
        quota.claimed([ClaimedKey(1, "k", None, size, 0)])
    assert quota.keys_left is None or quota.keys_left >= 0
    assert quota.bytes_left is None or quota.bytes_left >= 0
    assert (quota.spent is not None) == (quota.keys_left == 0)
