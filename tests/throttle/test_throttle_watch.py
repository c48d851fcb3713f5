from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from daemon.causes import Cause
from daemon.config import ThrottleConfig
from daemon.controls import Controls
from daemon.drain import Drain
from daemon.errors import ConfigError, RefusedError, UnreachableError
from daemon.health import Health
from daemon.throttle_watch import ThrottleWatch, refuse_unreadable
from daemon.throttling import Reading
from daemon.tunables import Tunables

LAG = ThrottleConfig(replica_lag=10, replica_lag_hibernate=60)


@dataclass
class ScriptedHealth:
    """A server at the other end whose lag follows a script, the last value for ever; None is silence."""

    lags: list[float | None]
    seconds: float = 0.0
    asked: list[float] = field(default_factory=list)
    others: dict[Cause, Reading] = field(default_factory=dict)

    async def health(self, throttle: ThrottleConfig) -> Health:
        self.asked.append(trio.current_time())
        await trio.sleep(self.seconds)
        lag = self.lags.pop(0) if len(self.lags) > 1 else self.lags[0]
        silence = "connection lost" if lag is None else ""
        return Health({Cause.REPLICA_LAG: Reading(lag, silence), **self.others}, silence)


async def followed(source, seconds, *, throttle=LAG, drain=None, give_up_after=900.0):
    """Watch for `seconds`; return (time, cause in force) whenever that changes."""
    controls = Controls(Tunables(1), throttle=throttle)
    watch = ThrottleWatch(source, controls, drain or Drain(), give_up_after=give_up_after)
    seen = []

    def look():
        cause = None if controls.held is None else controls.held.cause
        if not seen or seen[-1][1] is not cause:
            seen.append((round(trio.current_time(), 3), cause))

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            await nursery.start(watch.run)
            look()
            while True:
                await controls.changed.wait()
                look()
    return seen


async def test_the_first_readings_are_in_force_before_any_work_begins(autojump_clock):
    assert await followed(ScriptedHealth([11], seconds=2), 3) == [(2, Cause.REPLICA_LAG)]


async def test_a_hold_begins_with_one_reading_and_ends_with_the_third_calm_one(autojump_clock):
    source = ScriptedHealth([0, 11, 12, 3])
    assert await followed(source, 59) == [(0, None), (5, Cause.REPLICA_LAG), (25, None)]
    assert source.asked == [5.0 * n for n in range(12)]


async def test_a_hibernating_session_asks_nothing_until_its_rest_is_over(autojump_clock):
    source = ScriptedHealth([61, 11, 0])
    assert await followed(source, 100) == [
        (0, Cause.HIBERNATION),
        (60, Cause.REPLICA_LAG),
        (75, None),
    ]
    assert source.asked[:3] == [0, 60, 65]


async def test_the_intervals_are_those_of_the_configuration(autojump_clock):
    throttle = ThrottleConfig(replica_lag=10, replica_lag_hibernate=60, check_interval=1, hibernate=7)
    source = ScriptedHealth([0, 0, 61, 0])
    await followed(source, 12.5, throttle=throttle)
    assert source.asked == [0, 1, 2, 9, 10, 11, 12]


async def test_the_detail_in_force_is_that_of_the_latest_reading(autojump_clock):
    controls = Controls(Tunables(1), throttle=LAG)
    watch = ThrottleWatch(ScriptedHealth([11, 12]), controls, Drain(), give_up_after=900)
    details = []
    with trio.move_on_after(7):
        async with trio.open_nursery() as nursery:
            await nursery.start(watch.run)
            details.append(controls.held.detail)
            await controls.changed.wait()
            details.append(controls.held.detail)
    assert details == ["replica lag 11 s, above 10 s", "replica lag 12 s, above 10 s"]


async def test_silence_throttles_and_once_it_has_lasted_give_up_after_it_ends_the_session(autojump_clock):
    controls = Controls(Tunables(1), throttle=LAG)
    watch = ThrottleWatch(ScriptedHealth([0, None]), controls, Drain(), give_up_after=60)
    with pytest.raises(UnreachableError, match="connection lost; no readings for 60 s"):
        await watch.run()
    assert trio.current_time() == 65
    assert controls.held.detail == "replica lag could not be read: connection lost"


async def test_silence_that_ends_in_time_is_forgotten(autojump_clock):
    source = ScriptedHealth([None, None, 0, None, None, 0])
    await followed(source, 100, give_up_after=6)
    assert len(source.asked) > 6


async def test_a_drain_does_not_wait_for_the_first_readings(autojump_clock):
    drain = Drain()
    drain.request("SIGTERM")
    assert await followed(ScriptedHealth([0], seconds=1000), 1, drain=drain) == [(0, None)]


async def test_without_a_reading_to_take_nobody_is_asked(autojump_clock):
    source = ScriptedHealth([11])
    assert await followed(source, 60, throttle=ThrottleConfig(rows_per_second=5)) == [(0, None)]
    assert source.asked == []


@pytest.mark.parametrize(
    ("lag", "reloaded", "held"),
    [
        (11, ThrottleConfig(), None),
        (11, ThrottleConfig(active_sessions=5), None),
        (61, ThrottleConfig(replica_lag=10, hibernate=1), Cause.REPLICA_LAG),
        (5, ThrottleConfig(replica_lag=1), Cause.REPLICA_LAG),
    ],
)
async def test_a_reload_is_heeded_at_once_even_in_a_rest(autojump_clock, lag, reloaded, held):
    source = ScriptedHealth([lag])
    source.others = {Cause.ACTIVE_SESSIONS: Reading(0)}
    controls = Controls(Tunables(1), throttle=LAG)
    watch = ThrottleWatch(source, controls, Drain(), give_up_after=900)
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        await trio.sleep(1)
        controls.set(Tunables(1), throttle=reloaded)
        await trio.testing.wait_all_tasks_blocked()
        assert (controls.held and controls.held.cause) == held
        nursery.cancel_scope.cancel()


async def test_readings_that_a_reload_asks_for_are_taken_though_there_were_none_before(autojump_clock):
    source = ScriptedHealth([11])
    controls = Controls(Tunables(1))
    watch = ThrottleWatch(source, controls, Drain(), give_up_after=900)
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        await trio.sleep(100)
        assert source.asked == []
        controls.set(Tunables(1), throttle=LAG)
        await trio.testing.wait_all_tasks_blocked()
        assert source.asked == [100]
        nursery.cancel_scope.cancel()
    assert controls.held.cause is Cause.REPLICA_LAG


@dataclass
class FixedHealth:
    readings: dict[Cause, Reading]

    async def health(self, throttle: ThrottleConfig) -> Health:
        return Health(self.readings)


BLIND = RefusedError("no right", "grant it")
BROKEN = ConfigError(["throttle.query: syntax error"], "correct it")


@pytest.mark.parametrize(
    ("errors", "kind", "problem", "hint"),
    [
        ([BLIND], RefusedError, "no right", "grant it"),
        ([BROKEN], ConfigError, "throttle.query: syntax error", "correct it"),
        (
            [BLIND, BLIND, BROKEN],
            ConfigError,
            "no right\nno right\nthrottle.query: syntax error",
            "grant it; correct it",
        ),
    ],
)
async def test_a_start_refuses_readings_that_can_never_be_had_all_at_once(errors, kind, problem, hint):
    found = {cause: Reading(None, "", error) for cause, error in zip(Cause, errors, strict=False)}
    with pytest.raises(kind) as caught:
        await refuse_unreadable(LAG, FixedHealth(found))
    assert (caught.value.problem, caught.value.hint) == (problem, hint)


async def test_a_start_goes_on_where_a_reading_merely_failed():
    await refuse_unreadable(LAG, FixedHealth({Cause.REPLICA_LAG: Reading(None, "no answer")}))
