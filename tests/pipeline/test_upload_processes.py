"""A session whose uploads run in several processes, which are tasks here: over streams in memory, in virtual time."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from daemon.causes import Cause
from daemon.controls import Hold
from daemon.errors import ExitCode
from daemon.halting import MigrationHalted
from daemon.signing import Credentials
from daemon.tunables import Tunables
from daemon.upload_process import work
from daemon.upload_processes import DEATHS_MAX
from tests.pipeline.rig import CUTOFF_US, Rig, clock_us
from tests.planning.fake_source import FakeSource


class DeathError(Exception):
    """Ends a process in the middle of whatever it does."""


class Process:
    """What `spawned` yields, but a task."""

    def __init__(self, number, stream):
        self.number = number
        self.stream = stream
        self.name = f"upload process {number + 1}"

    async def end(self):
        return "killed"


class Fetches(FakeSource):
    """What processes read from; `before` is called with the keys of each fetch, and may raise."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.before = lambda keys: None
        self.batches = []

    async def fetch(self, spec, facts, wanted):
        keys = [one.row_key for one in wanted]
        self.batches.append((trio.current_time(), keys))
        self.before(keys)
        await trio.sleep(0.01)
        return await super().fetch(spec, facts, wanted)


class Crew:
    """A rig with several processes.

    Attributes:
        lives: numbers of the processes started, in order.
    """

    def __init__(self, directory, *, processes=2, rows=300, **upload):
        self.rig = Rig(directory, upload={"processes": processes, "concurrency": 6, **upload})
        for number in range(rows):
            self.rig.table.insert(f"{number:05}", CUTOFF_US - 1 - number, b"v%d" % number)
        self.rig.database = self.source = Fetches(self.rig.tables, clock_us)
        self.rig.spawn = self.spawn
        self.lives = []

    @asynccontextmanager
    async def spawn(self, number):
        ours, theirs = trio.testing.memory_stream_pair()
        self.lives.append(number)

        @asynccontextmanager
        async def ends(_start, coordinator, _instruments):
            bucket = self.rig.target()
            bucket.credentials = coordinator
            yield self.source, bucket

        async def serve():
            try:
                await work(theirs, ends, log_to=lambda _handler: None)
            except* DeathError:
                pass
            finally:
                await trio.aclose_forcefully(theirs)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield Process(number, ours)
            nursery.cancel_scope.cancel()

    def assert_copied(self, *, without=()):
        expected = {
            f"t/{number:05}": b"v%d" % number for number in range(300) if f"{number:05}" not in without
        }
        assert self.rig.objects() == expected


class Rotating:
    """Credentials that are renewed when they are refused."""

    expire_us = None

    def __init__(self, *found):
        self.found = list(found)
        self.walks = 0
        self.lock = trio.Lock()

    async def current(self):
        return self.found[0]

    async def refresh(self, refused=None):
        async with self.lock:
            if refused == self.found[0]:
                self.walks += 1
                await trio.sleep(1)
                del self.found[0]
            return self.found[0]


@pytest.fixture
def crew(tmp_path):
    return Crew(tmp_path)


async def test_processes_share_the_work_and_copy_all_of_it(crew, autojump_clock):
    assert (await crew.rig.session()).exit_code is ExitCode.DONE
    crew.assert_copied()
    assert sorted(crew.lives) == [0, 1]
    assert sorted(crew.rig.requests("PUT")) == sorted(crew.rig.objects())


async def test_a_death_gives_back_what_that_process_held_and_another_takes_its_place(crew, autojump_clock):
    def die_once(keys):
        if len(crew.source.batches) == 3:
            raise DeathError

    crew.source.before = die_once
    assert (await crew.rig.session()).exit_code is ExitCode.DONE
    crew.assert_copied()
    assert len(crew.lives) == 3
    (recovered,) = crew.rig.events("keys_recovered")
    assert recovered["process"].endswith("killed")
    held = {key for _, keys in crew.source.batches[:3] for key in keys}
    assert 0 < len(recovered["ordinals"]) <= len(held) + 2 * 64


async def test_a_row_that_kills_its_process_every_time_is_parked_and_the_rest_is_copied(crew, autojump_clock):
    def poison(keys):
        if "00042" in keys:
            raise DeathError

    crew.source.before = poison
    ended = await crew.rig.session()
    assert ended.exit_code is ExitCode.PARKED
    assert crew.rig.counts().parked == 1
    crew.assert_copied(without=["00042"])
    (parked,) = crew.rig.events("key_parked")
    assert parked["failure"] == "process_died"


async def test_processes_that_only_die_end_the_session(crew, autojump_clock):
    def always(_keys):
        raise DeathError

    crew.source.before = always
    with pytest.raises(BaseExceptionGroup) as caught:
        await crew.rig.session()
    (halted,) = caught.value.split(MigrationHalted)[0].exceptions
    while isinstance(halted, BaseExceptionGroup):
        (halted,) = halted.exceptions
    assert halted.exit_code is ExitCode.FAILED
    assert f"died {DEATHS_MAX} times in a row" in halted.problem


async def test_a_drain_lets_processes_end_what_they_hold(crew, autojump_clock):
    def then_drain(_keys):
        crew.rig.drain.request("SIGTERM")

    crew.source.before = then_drain
    assert (await crew.rig.session()).exit_code is ExitCode.TERMINATED
    assert 0 < len(crew.rig.objects()) < 300
    assert crew.rig.counts().in_flight == 0
    crew.source.before = lambda keys: None
    assert (await crew.rig.session()).exit_code is ExitCode.DONE
    crew.assert_copied()


async def test_a_hold_lets_no_process_begin_a_fetch(crew, autojump_clock):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crew.rig.session)
        await crew.rig.steerable.wait()
        crew.rig.controls.hold(Hold(Cause.REPLICA_LAG, "lag"))
        await trio.sleep(50)
        assert crew.source.batches == []
        crew.rig.controls.release(Cause.REPLICA_LAG)
    crew.assert_copied()


async def test_credentials_that_expire_in_mid_run_are_renewed_by_the_coordinator_once(crew, autojump_clock):
    old, new = Credentials("OLD", "old secret"), Credentials("NEW", "new secret")
    crew.rig.fake.secrets |= {one.access_key: one.secret_key for one in (old, new)}
    provider = Rotating(old, new)
    target = crew.rig.target

    def rotating():
        bucket = target()
        bucket.credentials = provider
        return bucket

    crew.rig.target = rotating

    def expire(_keys):
        crew.rig.fake.expired.add("OLD")

    crew.source.before = expire
    assert (await crew.rig.session()).exit_code is ExitCode.DONE
    crew.assert_copied()
    assert (provider.found, provider.walks) == ([new], 1)
    assert crew.rig.events("attempt_failed")


async def test_rates_are_those_of_the_session_not_of_each_process(crew, autojump_clock):
    crew.rig.throttle = {"rows_per_second": 20}
    assert (await crew.rig.session()).exit_code is ExitCode.DONE
    first, last = crew.source.batches[0][0], crew.source.batches[-1][0]
    assert last - first == pytest.approx((300 - 20) / 20, rel=0.1)


async def test_uploads_at_once_are_the_sessions_not_each_processs(tmp_path, autojump_clock):
    crew = Crew(tmp_path, adaptive=False)
    under_way = most = 0
    serve = crew.rig.fake.handle_async_request

    async def slowly(request):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(0.1)
        under_way -= 1
        return await serve(request)

    crew.rig.fake.handle_async_request = slowly
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crew.rig.session)
        await crew.rig.steerable.wait()
        await trio.sleep(2)
        assert most == 6
        crew.rig.controls.set(Tunables(1))
        await trio.sleep(1)
        most = 0
        await trio.sleep(5)
        # Fewer than there are processes: who holds keys keeps one until it has none left.
        assert most <= 2
        crew.rig.controls.set(Tunables(6))
    crew.assert_copied()
