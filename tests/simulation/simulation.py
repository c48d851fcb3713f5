"""One seed from beginning to end: sessions in weather, deaths and restarts, then calm, then the reckoning."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio

from daemon.actions import record
from daemon.config import Config, LimitsConfig, RunOptions
from daemon.control_protocol import Action, Request
from daemon.errors import ExitCode
from daemon.opening import open_existing
from journal.errors import IdentityMismatch
from tests.simulation import checker
from tests.simulation.crashing import Crashed, Disk, journal_in, unsynced
from tests.simulation.damage import damaged_and_repaired
from tests.simulation.deterministic import run
from tests.simulation.history import History
from tests.simulation.observer import Observer, Violation, ensure
from tests.simulation.operating import WHO, Operator
from tests.simulation.postgres_end import SimulatedSource
from tests.simulation.process import DISK_BYTES, failures_of, ran, surroundings
from tests.simulation.s3_end import SimulatedS3
from tests.simulation.worlds import SECOND_US, START_US, World, make_world, object_key

STORMY_SESSIONS_MAX = 12
CALM_SESSIONS_MAX = 6
CALM_SECONDS_MAX = 7200.0
"""Virtual time in which a session must end once nothing befalls it any more."""
POISON_DEATHS = 4
"""After three recoveries a key is driven alone, the fourth parks it."""
PERMANENT = {"foreign_object", "unusable_key"}
"""Parks that calm weather and a requeue don't mend."""
BROKEN_JOURNAL = {ExitCode.JOURNAL, ExitCode.FAILED}
"""Ends at which keys may stay claimed, since the journal took nothing more."""


@dataclass(frozen=True)
class Deaths:
    """At which commits and steps (of all sessions, from 1) the process dies, for runs that choose them.

    A commit is named with what of it survives: ("before", 3) dies before the third COMMIT, ("after", 3) behind it.
    ("step", 5) dies at the fifth moment at which a statement or request is sent, or its answer arrives.
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
        broken: the journal's disk has failed; not another call of SQLite is allowed to the process.
    """

    world: World
    deaths: Deaths | None = None
    dead: bool = False
    broken: bool = False
    stormy: bool = True
    commits: int = 0
    steps: int = 0
    claimed_at_deaths: int = 0
    outcome: str = ""
    reached: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = Random(f"simulation {self.world.seed}")
        self._requests = Random(f"options {self.world.seed}")
        self.session_config = self.world.config
        self.patient = False
        self._crashes_left = self.world.weather.crashes
        self._full_left = self.world.weather.full_disks
        self._io_left = self.world.weather.io_errors
        self._io_after = False
        self._low_until = -1.0
        self._death: tuple[str, int] | None = None
        self._clock_offset_us = 0
        self._accept_source = False
        self.stormy_commits = self.stormy_steps = 0
        keys = [
            object_key(spec, row.key)
            for spec in self.world.config.sources
            for row in self.world.rows[spec.name]
        ]
        self._poison = self._rng.choice(keys) if keys and self.world.weather.poison else None
        self.violations: list[Violation] = []
        self.disk = Disk(self.world.config.migration.journal)
        self.observer = Observer(on_outcome=lambda *found: checker.outcome(self, *found))
        self.operator = Operator(self)
        self.kind = journal_in(self)

    # What the ends and the journal call

    def reach(self, what: str) -> None:
        self.reached[what] += 1
        self.trace.append(what)

    def step(self, name: str) -> None:
        """Something is about to happen at one of the ends: tables may change, the process may die."""
        if self.dead:
            raise Crashed
        self.steps += 1
        self.trace.append(f"{trio.current_time():.6f} {name}")
        if self.stormy and self._rng.random() < 0.1 and (change := self.history.change()) is not None:
            self.reach(f"table {change}")
        if self.deaths is not None and ("step", self.steps) in self.deaths.at:
            self._die("step")
        self._count_down("answer" if name.endswith("answered") else "step")

    def before_commit(self) -> None:
        self.commits += 1
        if self.deaths is not None and ("before", self.commits) in self.deaths.at:
            self._die("before commit")
        self._count_down("before commit")
        if self.stormy and self._full_left and self._rng.random() < 0.05:
            self._full_left -= 1
            self.reach("disk full")
            raise _sqlite_error(sqlite3.SQLITE_FULL)
        if self.stormy and self._io_left and self._rng.random() < 0.02:
            self._io_left -= 1
            self._io_after = self._rng.random() < 0.5
            if not self._io_after:
                self._break_disk("lost")

    def after_commit(self, connection: sqlite3.Connection) -> None:
        with self.noted():
            self.observer.follow(connection)
        self.trace.append(f"event {len(self.observer.events)} {self.observer.events[-1][2]}")
        self.reached["suspect alone"] += self.observer.suspects_alone
        if self.deaths is not None and ("after", self.commits) in self.deaths.at:
            self._die("after commit")
        self._count_down("after commit")
        if self._io_after:
            self._io_after = False
            self._break_disk("written")

    def touched_when_broken(self, statement: str) -> None:
        """Note that the process went on with a journal whose disk has failed."""
        self.violations.append(Violation(f"after an I/O error of the journal: {statement}"))

    def ends_broken(self) -> None:
        """Check that nothing was written since the journal's disk failed."""
        with self.noted():
            self.disk.ensure_untouched()

    def put_arrives(self, key: str) -> None:
        """Check that the claim was committed before its PUT is sent."""
        claimed = {
            object_key(spec, planned.row_key)
            for ordinal in self.observer.in_flight
            for planned in [self.observer.plan[ordinal]]
            for spec in self.world.config.sources
            if self.observer.source_ids.get(spec.name) == planned.source
        }
        with self.noted():
            ensure(key in claimed, f"PUT of {key!r}, which no claim on disk covers")
        if self.stormy and key == self._poison and self.reached["death by poison"] < POISON_DEATHS:
            self._die("by poison")

    def disk_free(self) -> int:
        """Return what the journal's disk has free."""
        may_begin = self.stormy and self.world.weather.low_disk and trio.current_time() >= self._low_until
        if may_begin and self._rng.random() < 0.15:
            self._low_until = trio.current_time() + self._rng.choice([3.0, 30.0, 400.0])
            self.reach("disk low")
        return 2**20 if self.stormy and trio.current_time() < self._low_until else DISK_BYTES // 2

    def now_us(self) -> int:
        """Return the process's wall clock."""
        return START_US + round(trio.current_time() * 1e6) + self._clock_offset_us

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Remember a violation even where the program would only tell of it."""
        try:
            yield
        except Violation as violation:
            self.violations.append(violation)
            raise

    def _count_down(self, kind: str) -> None:
        if self._death is None or self._death[0] != kind:
            return
        self._death = (kind, self._death[1] - 1)
        if self._death[1] <= 0:
            self._die(kind)

    def _die(self, how: str) -> None:
        self._death = None
        self.dead = True
        if not self.broken:
            self.disk.freeze()
        self.reach(f"death {how}")
        raise Crashed

    def _break_disk(self, what: str) -> None:
        self.broken = True
        self.disk.freeze()
        self.reach(f"disk I/O error, commit {what}")
        raise _sqlite_error(sqlite3.SQLITE_IOERR)

    # The run

    async def run(self) -> None:
        with self.world.scale.applied(), unsynced(), surroundings(self):
            self._begin()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_late_transactions)
                await self._sessions()
                await self._calm()
                nursery.cancel_scope.cancel()
            # Whatever is still on its way arrives.
            await trio.sleep(120)
            checker.final(self)
            if self.world.weather.verify and await damaged_and_repaired(self):
                await self._calm()
                checker.final(self)

    def _begin(self) -> None:
        self.source = SimulatedSource(
            self, tables=self.world.tables, clock_us=_true_time_us, visible=self.world.visible
        )
        self.history = History(self.world, self.source, trio.current_time)
        self.s3 = SimulatedS3(self, _true_time_us)

    async def _end_late_transactions(self) -> None:
        await trio.sleep(self._rng.choice([1.0, 30.0, 200.0]))
        self.history.end_late_transactions()

    async def _sessions(self) -> None:
        for _ in range(STORMY_SESSIONS_MAX):
            code = await self._session(self._stormy_config(), verify=self.world.weather.verify)
            if code in {ExitCode.DONE, ExitCode.PARKED} and self._rng.random() < 0.8:
                return
            await trio.sleep(self._rng.choice([0.0, 5.0, 60.0]))
            if self.world.weather.lost_stages and self._rng.random() < 0.3 and self.disk.lose_stage():
                self.reach("stage lost")

    def _stormy_config(self) -> Config:
        drawn = {
            "limit": self._requests.choice([*[None] * 9, 1, 7, 40]),
            "max_bytes": self._requests.choice([*[None] * 9, 1024, 3000]),
            "max_duration": self._requests.choice([*[None] * 14, 1.0, 30.0]),
        }
        limits = LimitsConfig(**{name: value for name, value in drawn.items() if value is not None})
        return self.world.config.model_copy(update={"limits": limits})

    async def _calm(self) -> None:
        """Let everything mend; then it must come to an end (I8)."""
        self.stormy = False
        self.deaths = None
        self.stormy_commits, self.stormy_steps = self.commits, self.steps
        self._death = None
        self.history.end_late_transactions()
        upload = self.world.config.upload.model_copy(
            update={"max_failures": type(self.world.config.upload.max_failures)(count=1000)}
        )
        self.world.config = self.world.config.model_copy(update={"upload": upload})
        requeue = True
        for _ in range(CALM_SESSIONS_MAX):
            begun = trio.current_time()
            if requeue:
                self._requeue_all()
            code = await self._session(self.world.config)
            ensure(trio.current_time() - begun <= CALM_SECONDS_MAX, "a calm session took too long")
            if code is ExitCode.DONE:
                return
            parked = {self.observer.parked_as[ordinal] for ordinal in self.observer.unsettled}
            if code is ExitCode.PARKED and parked <= PERMANENT:
                return
            # A key that too many storms died with is parked by the first calm session's recovery; an operator
            # gives it another chance.
            requeue = code is ExitCode.PARKED
        raise Violation(f"no end in {CALM_SESSIONS_MAX} calm sessions: {self.ends}")

    def _requeue_all(self) -> None:
        """Requeue as the command does where no daemon runs."""
        config = self.world.config
        if not config.migration.journal.exists():
            return
        with open_existing(config, now_us=self.now_us(), wait_seconds=0) as journal:
            parked = sum(state == "parked" for state in self.observer.state.values())
            record(journal, Request(Action.REQUEUE), who=WHO, now_us=self.now_us(), running=False)
            self.reached["requeued"] += parked

    async def _session(self, config: Config, *, verify: bool = False) -> ExitCode | None:
        """One process; returns its exit code, None if it died."""
        skew = 1200 if self.world.weather.client_skew else 30
        self._clock_offset_us = self._rng.choice([0, 0, -skew, skew]) * SECOND_US
        self.patient = self._rng.random() < 0.3
        self.session_config = config
        if self.stormy and self._crashes_left and self._rng.random() < 0.75:
            self._crashes_left -= 1
            kind = self._rng.choice(["before commit", "after commit", "step", "answer"])
            self._death = (
                kind,
                self._rng.choice([1, 3, self._rng.randint(1, 40), self._rng.randint(1, 200)]),
            )
        self.observer.window = (
            2 * config.upload.concurrency + config.fetch_connections * self.world.scale.fetch_batch
        )
        code: ExitCode | None = None
        how = "died"
        seconds = CALM_SECONDS_MAX * 4 if self.stormy else CALM_SECONDS_MAX + 1
        options = RunOptions(accept_source=self._accept_source, verify=verify)
        self._accept_source = False
        sessions = self.observer.kinds["session_started"]
        try:
            with trio.fail_after(seconds):
                code = await ran(self, config, options)
            how = f"{code.name}: {self.outcome.split(' with ')[0]}"
        except BaseException as error:
            if self.violations:
                raise self.violations[0] from error
            if not self.dead:
                code, failures = failures_of(error)
                how = f"halted {code.name}"
                self._accept_source = any(isinstance(one, IdentityMismatch) for one in failures)
            elif _leaves(error) != {Crashed}:
                raise
        if self.violations:
            raise self.violations[0]
        self._end_process(code, how, began=self.observer.kinds["session_started"] > sessions)
        return code

    def _end_process(self, code: ExitCode | None, how: str, *, began: bool) -> None:
        self.trace.append(how)
        if self.broken:
            # Where an operator's request met it, something else may end the session first.
            ensure(self.dead or how.startswith("halted"), f"an I/O error of the journal ended as {how}")
            self.reached[f"disk I/O error: {how}"] += 1
        if self.dead or self.broken:
            self.disk.thaw()
        if began and not self.dead and code not in BROKEN_JOURNAL:
            ensure(not self.observer.in_flight, f"{len(self.observer.in_flight)} keys in flight after {how}")
        self.claimed_at_deaths += len(self.observer.in_flight)
        if began and code is not None and not how.startswith("halted"):
            checker.honest(self, code)
        self.dead = self.broken = False
        self._death = None
        self.ends.append(how)
        self.reach(f"ended: {how}")
        with self.disk.copied() as connection:
            checker.on_disk(self, connection)
            checker.checkpoints(self, connection)


def _true_time_us() -> int:
    return START_US + round(trio.current_time() * 1e6)


def _sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(f"simulated: SQLite error {code}")
    error.sqlite_errorcode = code
    return error


def _leaves(error: BaseException) -> set[type[BaseException]]:
    if isinstance(error, BaseExceptionGroup):
        return {leaf for one in error.exceptions for leaf in _leaves(one)}
    return {type(error)}


def simulate(seed: int, directory: Path) -> Simulation:
    """Run the world of `seed` to its end; raises where an invariant breaks."""
    simulation = Simulation(make_world(seed, directory / "journal.db"))
    simulated(simulation)
    return simulation


def simulated(simulation: Simulation) -> None:
    """Run a simulation to its end; raises what is wrong without the nurseries around it."""
    try:
        run(simulation.world.seed, simulation.run)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from group
