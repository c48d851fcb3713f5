"""One seed from beginning to end: sessions in weather, deaths and restarts, then calm, then the reckoning."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import trio

from daemon.accounting import Accounting
from daemon.activity import Activity
from daemon.bucket import Bucket
from daemon.causes import HOLDS
from daemon.config import LimitsConfig
from daemon.controls import Controls, Hold
from daemon.drain import Drain
from daemon.ends import survey
from daemon.errors import BackfillError, ExitCode
from daemon.migration import Ended, Migration
from daemon.opening import controls_of
from daemon.recorder import Recorder
from daemon.runtime import Runtime, in_loop
from daemon.session import _record_end, _record_halt, _record_stop
from daemon.signing import Signer
from daemon.tunables import Tunables
from journal.errors import JournalError, JournalFull
from journal.log import Journal
from tests.s3_fake import REGION
from tests.simulation import checker
from tests.simulation.crashing import Crashed, Disk, SimulatedJournal, journal_in, unsynced
from tests.simulation.deterministic import run
from tests.simulation.ends import SimulatedS3, SimulatedSource, credentials
from tests.simulation.history import History
from tests.simulation.measuring import MeasuredMigration
from tests.simulation.observer import Observer, Violation, ensure
from tests.simulation.worlds import SECOND_US, START_US, World, make_world, object_key

STORMY_SESSIONS_MAX = 14
CALM_SESSIONS_MAX = 6
CALM_SECONDS_MAX = 7200.0
"""Virtual time in which a session must end once nothing befalls it any more."""
STOPPING_SECONDS_MAX = 0.5
"""Virtual time that a session may take to end once it is cancelled, or beyond its `drain_deadline`."""
POISON_DEATHS = 4
"""After three recoveries a key is driven alone, the fourth parks it."""
PERMANENT = {"foreign_object", "unusable_key"}
"""Parks that calm weather and a requeue don't mend."""


@dataclass(frozen=True)
class Deaths:
    """At which commits (of all sessions, from 1) the process dies, for runs that choose them.

    A commit is named with what of it survives: ("before", 3) dies before the third COMMIT, ("after", 3) behind it.
    """

    at: frozenset[tuple[str, int]] = frozenset()


@dataclass
class Simulation:
    """Everything that one seed needs; also the process that the journal lives in.

    Attributes:
        reached: what happened, for the proof that the weather is bad enough.
        trace: what happened in what order, for the proof that a seed is one run.
        objects: what the buckets hold at the end, by bucket and key.
        claimed_at_deaths: keys in flight whenever the process died: what may be uploaded again.
    """

    world: World
    deaths: Deaths | None = None
    dead: bool = False
    stormy: bool = True
    commits: int = 0
    claimed_at_deaths: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = Random(f"simulation {self.world.seed}")
        self._operator = Random(f"operator {self.world.seed}")
        self.limits = LimitsConfig()
        self._crashes_left = self.world.weather.crashes
        self._drains_left = self.world.weather.drains
        self._full_left = self.world.weather.full_disks
        self._death: tuple[str, int] | None = None
        self._clock_offset_us = 0
        self.stormy_commits = 0
        keys = [
            object_key(spec, row.key)
            for spec in self.world.config.sources
            for row in self.world.rows[spec.name]
        ]
        self._poison = self._rng.choice(keys) if keys and self.world.weather.poison else None
        self.violations: list[Violation] = []
        self.disk = Disk(self.world.config.migration.journal)
        self.observer = Observer(on_outcome=lambda *found: checker.outcome(self, *found))
        self.kind = journal_in(self)

    # What the ends and the journal call

    def reach(self, what: str) -> None:
        self.reached[what] += 1
        self.trace.append(what)

    def step(self, name: str) -> None:
        """Something is about to happen at one of the ends: tables may change, the process may die."""
        if self.dead:
            raise Crashed
        self.trace.append(f"{trio.current_time():.6f} {name}")
        if self.stormy and self._rng.random() < 0.1 and (change := self.history.change()) is not None:
            self.reach(f"table {change}")
        self._count_down("answer" if name.endswith("answered") else "step")

    def before_commit(self) -> None:
        self.commits += 1
        if self.deaths is not None and ("before", self.commits) in self.deaths.at:
            self._die("before commit")
        self._count_down("before commit")
        if self.stormy and self._full_left and self._rng.random() < 0.05:
            self._full_left -= 1
            self.reach("disk full")
            full = sqlite3.OperationalError("simulated: database or disk is full")
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise full

    def after_commit(self, connection: sqlite3.Connection) -> None:
        try:
            self.observer.follow(connection)
        except Violation as violation:
            self.violations.append(violation)
            raise
        self.trace.append(f"event {len(self.observer.events)} {self.observer.events[-1][2]}")
        self.reached["suspect alone"] += self.observer.suspects_alone
        if self.deaths is not None and ("after", self.commits) in self.deaths.at:
            self._die("after commit")
        self._count_down("after commit")

    def put_arrives(self, key: str) -> None:
        """Check that the claim was committed before its PUT is sent."""
        claimed = {
            object_key(spec, planned.row_key)
            for ordinal in self.observer.in_flight
            for planned in [self.observer.plan[ordinal]]
            for spec in self.world.config.sources
            if self.observer.source_ids.get(spec.name) == planned.source
        }
        ensure(key in claimed, f"PUT of {key!r}, which no claim on disk covers")
        if self.stormy and key == self._poison and self.reached["death by poison"] < POISON_DEATHS:
            self._die("by poison")

    def _count_down(self, kind: str) -> None:
        if self._death is None or self._death[0] != kind:
            return
        self._death = (kind, self._death[1] - 1)
        if self._death[1] <= 0:
            self._die(kind)

    def _die(self, how: str) -> None:
        self._death = None
        self.dead = True
        self.disk.freeze()
        self.claimed_at_deaths += len(self.observer.in_flight)
        self.reach(f"death {how}")
        raise Crashed

    # The run

    async def run(self) -> None:
        with self.world.scale.applied(), unsynced():
            self._begin()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_late_transactions)
                await self._sessions()
                await self._calm()
                nursery.cancel_scope.cancel()
            # Whatever is still on its way arrives.
            await trio.sleep(120)
            checker.final(self)

    def _begin(self) -> None:
        self.source = SimulatedSource(
            self,
            tables=self.world.tables,
            clock_us=lambda: START_US + round(trio.current_time() * 1e6),
            visible=self.world.visible,
        )
        self.source.fetches_max = self.world.config.postgres.connections - 1
        self.history = History(self.world, self.source, trio.current_time)
        self.s3 = SimulatedS3(self, self._now_us)

    async def _end_late_transactions(self) -> None:
        await trio.sleep(self._rng.choice([1.0, 30.0, 200.0]))
        self.history.end_late_transactions()

    async def _sessions(self) -> None:
        for _ in range(STORMY_SESSIONS_MAX):
            code = await self._session()
            if code in {ExitCode.DONE, ExitCode.PARKED} and self._rng.random() < 0.8:
                return
            await trio.sleep(self._rng.choice([0.0, 5.0, 60.0]))
            if self.world.weather.lost_stages and self._rng.random() < 0.3 and self.disk.lose_stage():
                self.reach("stage lost")

    async def _calm(self) -> None:
        """Let everything mend; then it must come to an end (I8)."""
        self.stormy = False
        self.deaths = None
        self.stormy_commits = self.commits
        self._death = None
        self.history.end_late_transactions()
        upload = self.world.config.upload.model_copy(
            update={"max_failures": type(self.world.config.upload.max_failures)(count=1000)}
        )
        self.world.config = self.world.config.model_copy(update={"upload": upload})
        requeue = True
        for _ in range(CALM_SESSIONS_MAX):
            begun = trio.current_time()
            code = await self._session(requeue=requeue)
            ensure(trio.current_time() - begun <= CALM_SECONDS_MAX, "a calm session took too long")
            requeue = False
            if code is ExitCode.DONE:
                return
            parked = {self.observer.parked_as[ordinal] for ordinal in self.observer.unsettled}
            if code is ExitCode.PARKED and parked <= PERMANENT:
                return
            # A key that too many storms died with is parked by the first calm session's recovery; an operator
            # gives it another chance.
            requeue = code is ExitCode.PARKED
        raise Violation(f"no end in {CALM_SESSIONS_MAX} calm sessions: {self.ends}")

    async def _session(self, *, requeue: bool = False) -> ExitCode | None:
        """One process; returns its exit code, None if it died."""
        self._clock_offset_us = self._rng.choice([0, 0, -30, 30]) * SECOND_US
        drawn = {
            "limit": self._operator.choice([None, None, None, 1, 7, 40]),
            "max_bytes": self._operator.choice([None, None, None, 1024, 3000]),
        }
        given = {name: value for name, value in drawn.items() if value is not None and self.stormy}
        self.limits = LimitsConfig(**given)
        if self.stormy and self._crashes_left and self._rng.random() < 0.75:
            self._crashes_left -= 1
            kind = self._rng.choice(["before commit", "after commit", "step", "answer"])
            self._death = (
                kind,
                self._rng.choice([1, 3, self._rng.randint(1, 40), self._rng.randint(1, 200)]),
            )
        outcome: ExitCode | None = None
        how = "died"
        seconds = CALM_SECONDS_MAX * 4 if self.stormy else CALM_SECONDS_MAX + 1
        try:
            with trio.fail_after(seconds):
                outcome, how = await self._process(requeue=requeue)
        except BaseException as error:
            if self.violations:
                raise self.violations[0] from error
            if not self.dead or _leaves(error) != {Crashed}:
                raise
        if self.dead:
            self.dead = False
            self.disk.thaw()
        self._death = None
        self.ends.append(how)
        self.reach(f"ended: {how.split(' with ')[0] if outcome is not None else how}")
        with self.disk.copied() as connection:
            checker.on_disk(self, connection)
        return outcome

    async def _process(self, *, requeue: bool) -> tuple[ExitCode, str]:
        runtime = Runtime(
            now_us=self._now_us,
            random=Random(f"jitter {self.world.seed} {len(self.ends)}"),
            journal_runner=in_loop,
            digest_runner=in_loop,
        )
        journal = self._open()
        try:
            checker.checkpoints(self, journal)
            if requeue:
                count = journal.requeue(who="simulation", now_us=self._now_us())
                self.reached["requeued"] += count
            ended = await self._work(Recorder(journal, runtime), runtime)
            checker.honest(self, ended)
            checker.checkpoints(self, journal)
        except BackfillError as error:
            return error.exit_code, f"halted {error.exit_code.name}"
        except JournalFull:
            # Its keys stay claimed, as after a death.
            self.claimed_at_deaths += len(self.observer.in_flight)
            return ExitCode.JOURNAL, "disk full"
        else:
            return ended.exit_code, f"{ended.exit_code.name}: {ended.reason}"
        finally:
            if self.dead:
                journal.vanish()
            else:
                journal.close()

    def _open(self) -> SimulatedJournal:
        migration = self.world.config.migration
        if not migration.journal.exists():
            return self.kind.create(
                migration.journal,
                name=migration.name,
                cutoff_us=migration.cutoff_us,
                order=migration.order,
                now_us=self._now_us(),
            )
        return self.kind.open(migration.journal, now_us=self._now_us(), wait_seconds=0)

    async def _work(self, recorder: Recorder, runtime: Runtime) -> Ended:
        """What `daemon.session.in_session` does, but for the progress line, which reads in threads."""
        config = self.world.config.model_copy(update={"limits": self.limits})
        bucket = Bucket(
            self.s3,
            Signer(REGION),
            config.s3,
            credentials=credentials(),
            clock_us=self._now_us,
        )
        surveyed = await survey(config, self.source, bucket, runtime, allow_seqscan=False)
        await recorder.call(lambda journal, now_us: journal.start_session(now_us=now_us, facts={}))
        drain = Drain()
        migration: Migration = MeasuredMigration(
            config,
            recorder,
            self.source,
            surveyed,
            runtime,
            drain,
            controls_of(config, recorder.journal),
            Activity(),
            allow_seqscan=False,
        )
        accounting = Accounting(recorder, migration.controls, migration.activity)
        self.observer.window = (
            2 * config.upload.concurrency + (config.postgres.connections - 1) * self.world.scale.fetch_batch
        )
        self.source.held = 0
        results: list[Ended] = []
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_record_stop, recorder, drain)
                nursery.start_soon(self._drain, drain)
                nursery.start_soon(self._operate, recorder, migration.controls)
                nursery.start_soon(accounting.run)
                results.append(await migration.run(bucket))
                nursery.cancel_scope.cancel()
        except* (BackfillError, JournalError) as group:
            await _record_halt(recorder, accounting, group)
            raise _first(group) from None
        await accounting.finish()
        await _record_end(recorder, results[0])
        return results[0]

    async def _drain(self, drain: Drain) -> None:
        if not self.stormy or not self._drains_left or self._rng.random() < 0.5:
            return
        self._drains_left -= 1
        await trio.sleep(self._rng.choice([0.01, 0.3, 2.0, 20.0]) * self._rng.random())
        self.reach("drain")
        drain.request("SIGTERM")
        if self._rng.random() < 0.5:
            await trio.sleep(self._rng.choice([0.0, 0.1, 1.0]))
            self.reach("cancel")
            drain.cancel()
        await trio.sleep(STOPPING_SECONDS_MAX)
        if not drain.cancelled:
            await trio.sleep(self.world.config.upload.drain_deadline)
        raise Violation(f"a session goes on {'after a cancel' if drain.cancelled else 'past its deadline'}")

    async def _operate(self, recorder: Recorder, controls: Controls) -> None:
        """Pause, resume, requeue, set tunables and throttle at random; once it is calm, only resume what was left paused."""
        while True:
            await trio.sleep(self._rng.choice([0.01, 0.3, 2.0, 20.0]) * self._rng.random())
            if controls.paused:
                await recorder.call(lambda journal, now_us: journal.resume(who="sim", now_us=now_us))
                controls.resume()
            if not self.stormy:
                return
            if self._operator.random() < 0.2:
                requeued = await recorder.call(partial(_requeue, controls))
                self.reached["requeued live"] += requeued
            action = self._rng.choice(["pause", "set", "hold", "rest", "rest"])
            self.reach(action)
            if action == "pause":
                await recorder.call(lambda journal, now_us: journal.pause(who="sim", now_us=now_us))
                controls.pause()
            elif action == "set":
                # Never above what is configured: the observer's bound on keys in flight is made of that.
                concurrency = self._rng.randint(1, self.world.config.upload.concurrency)
                await recorder.call(partial(_set_concurrency, concurrency))
                controls.set(
                    Tunables(concurrency, self._rng.choice([None, 3, 100]), self._rng.choice([None, 5000]))
                )
            elif action == "hold":
                cause = self._rng.choice(HOLDS)
                controls.hold(Hold(cause, "by the simulation"))
                try:
                    await trio.sleep(self._rng.choice([0.1, 3.0, 60.0]) * self._rng.random())
                finally:
                    controls.release(cause)

    def _now_us(self) -> int:
        return START_US + round(trio.current_time() * 1e6) + self._clock_offset_us


def _requeue(controls: Controls, journal: Journal, now_us: int) -> int:
    # What is requeued once the session has decided how it ends, the next one drives.
    return 0 if controls.over else journal.requeue(who="sim", now_us=now_us)


def _set_concurrency(concurrency: int, journal: Journal, now_us: int) -> None:
    change = {"concurrency": concurrency}
    journal.set_tunables(change, change, who="sim", now_us=now_us)


def _leaves(error: BaseException) -> set[type[BaseException]]:
    if isinstance(error, BaseExceptionGroup):
        return {leaf for one in error.exceptions for leaf in _leaves(one)}
    return {type(error)}


def _first(group: BaseExceptionGroup[BackfillError | JournalError]) -> BackfillError | JournalError:
    one = group.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one


def simulate(seed: int, directory: Path) -> Simulation:
    """Run the world of `seed` to its end; raises where an invariant breaks."""
    simulation = Simulation(make_world(seed, directory / "journal.db"))
    run(seed, simulation.run)
    return simulation
