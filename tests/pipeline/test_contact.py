"""First contact: how long it waits, what it ends with."""

from __future__ import annotations

import random

import pytest
import trio

from daemon.contact import SILENCE_SECONDS_MAX, first_contact, outlasting
from daemon.errors import ExitCode
from daemon.halting import MigrationHalted
from daemon.retrying import Failure, FailureClass


def failing(*failures):
    left = list(failures)

    async def attempt():
        if left:
            raise left.pop(0)
        return "there"

    return attempt


async def contact(attempt, **settings):
    return await first_contact(
        "bucket b", attempt, max_attempts=3, give_up_after=60.0, random=random.Random(1), **settings
    )


async def test_a_failure_that_passes_is_waited_out(autojump_clock):
    assert await contact(failing(Failure(FailureClass.SERVER, "PUT", "500"))) == "there"


async def test_silence_is_borne_for_seconds_and_then_unreachable(autojump_clock):
    silent = Failure(FailureClass.CONNECTION, "PUT", "refused", answered=False)
    with pytest.raises(MigrationHalted) as halt:
        await contact(failing(*[silent] * 1000))
    assert halt.value.exit_code is ExitCode.UNREACHABLE
    assert SILENCE_SECONDS_MAX <= trio.current_time() < 4 * SILENCE_SECONDS_MAX


async def test_an_end_that_only_answers_errors_is_unreachable(autojump_clock):
    with pytest.raises(MigrationHalted) as halt:
        await contact(failing(*[Failure(FailureClass.SERVER, "PUT", "500")] * 3))
    assert halt.value.exit_code is ExitCode.UNREACHABLE


async def test_a_refusal_is_tried_once_more_with_fresh_credentials_and_then_refused(autojump_clock):
    refreshed = []

    async def refresh():
        refreshed.append(True)

    with pytest.raises(MigrationHalted) as halt:
        await contact(failing(*[Failure(FailureClass.FORBIDDEN, "PUT", "403")] * 5), refresh=refresh)
    assert (halt.value.exit_code, len(refreshed)) == (ExitCode.REFUSED, 1)


async def test_a_plea_to_slow_down_is_heeded_for_longer_than_silence(autojump_clock):
    with pytest.raises(MigrationHalted):
        await contact(failing(*[Failure(FailureClass.THROTTLED, "PUT", "503")] * 1000))
    assert trio.current_time() >= 60.0


async def test_under_a_service_manager_silence_is_borne_as_long_as_in_mid_run(autojump_clock):
    silent = Failure(FailureClass.CONNECTION, "PUT", "refused", answered=False)
    with pytest.raises(MigrationHalted) as halt:
        await contact(failing(*[silent] * 1000), patient=True)
    assert halt.value.exit_code is ExitCode.UNREACHABLE
    assert trio.current_time() >= 60.0


async def outlast(attempt, silence_seconds):
    return await outlasting("b", attempt, silence_seconds=silence_seconds, random=random.Random(1))


LOST = Failure(FailureClass.CONNECTION, "CONNECT", "refused", answered=False)


async def test_an_end_that_comes_back_in_time_is_outlasted(autojump_clock):
    assert await outlast(failing(*[LOST] * 5), 60.0) == "there"


async def test_an_end_that_stays_away_is_outlasted_for_so_long_only(autojump_clock):
    with pytest.raises(Failure):
        await outlast(failing(*[LOST] * 1000), 60.0)
    assert 60.0 <= trio.current_time() < 90.0


async def test_without_patience_there_is_one_attempt(autojump_clock):
    with pytest.raises(Failure):
        await outlast(failing(LOST), 0.0)
    assert trio.current_time() == 0.0
