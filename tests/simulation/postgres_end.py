"""PostgreSQL of a simulated session: the fake tables behind a server that freezes, drops, cancels and fails over.

Patience and splitting are the product's own; what only asyncpg could show is raised as the adapter's documented
failures.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from daemon.catalogue import FirstServer
from daemon.causes import Cause
from daemon.config import SourceConfig, ThrottleConfig
from daemon.crowding import in_halves
from daemon.errors import UnreachableError
from daemon.health import Health
from daemon.reading import PostgresSource
from daemon.retrying import Failure, FailureClass
from daemon.rows import (
    Exclusions,
    FetchedRow,
    RowDigest,
    ServerFacts,
    SweptRange,
    SweptRow,
    TableFacts,
    Wanted,
)
from daemon.source import COMMAND_GRACE_SECONDS
from daemon.throttling import Reading
from tests.planning.fake_source import FakeSource, FakeWriters
from tests.simulation.observer import ensure

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

T = TypeVar("T")
READING_ROWS = {"sweep_range", "snapshot", "scan_batch", "fetch", "row_digests"}


class SimulatedSource(FakeSource):
    """PostgreSQL in the weather; counts what the program holds of it.

    Attributes:
        held: bytes of values asked for or handed over and not yet let go by an uploader.
        timeline: of the server that answers now; rises with each failover.
    """

    def __init__(self, simulation: Simulation, **settings: Any) -> None:
        super().__init__(**settings)
        self._simulation = simulation
        self._rng = Random(f"postgres {simulation.world.seed}")
        self._failovers_left = simulation.world.weather.failovers
        self._frozen_until = self._down_until = -1.0
        self.timeline = 1
        self.held = 0
        self._fetching = 0

    async def connect(self, *, give_up_after: float, random: Random) -> None:
        """Begin as a new process does, which knows no server yet."""
        self._give_up_after, self._random = give_up_after, random
        self.first_server = FirstServer()
        self.held = self._fetching = 0
        try:
            await self._execute("connect")
        except Failure as failure:
            raise UnreachableError(failure.message) from failure

    # The weather

    async def _execute(self, name: str) -> None:
        simulation = self._simulation
        simulation.step(f"postgres {name}")
        await trio.sleep(self._rng.choice([0.0, 0.001, 0.02]))
        await self._arrive(name)
        self.first_server.admit(self._facts(), "the fake")
        if name in READING_ROWS and simulation.observer.events:
            with simulation.noted():
                ensure(
                    simulation.observer.timeline == self.timeline,
                    f"{name} on timeline {self.timeline}, on record is {simulation.observer.timeline}",
                )
        self.statements.append(name)

    async def _arrive(self, name: str) -> None:
        simulation, rng = self._simulation, self._rng
        if not simulation.stormy:
            return
        weather = simulation.world.weather
        if self._failovers_left and simulation.observer.plan and rng.random() < 0.03:
            self._failovers_left -= 1
            self._fail_over()
        if rng.random() < weather.freezes:
            self._frozen_until = trio.current_time() + rng.choice([0.5, 8.0, 50.0, 200.0])
            simulation.reach("postgres frozen")
        if trio.current_time() < self._down_until:
            simulation.reach("postgres down")
            raise self._failure(name, FailureClass.CONNECTION, "connection refused", answered=False)
        await self._thaw(name)
        if rng.random() < weather.postgres:
            self._befall(name)

    async def _thaw(self, name: str) -> None:
        frozen = self._frozen_until - trio.current_time()
        if frozen <= 0:
            return
        patience = self._simulation.world.config.postgres.statement_timeout + COMMAND_GRACE_SECONDS
        await trio.sleep(min(frozen, patience))
        if frozen > patience:
            self._simulation.reach("postgres never answered")
            raise self._failure(name, FailureClass.TIMEOUT, "no answer in time", answered=False)

    def _befall(self, name: str) -> None:
        rng = self._rng
        kind, answered = rng.choice(
            [
                (FailureClass.TIMEOUT, True),
                (FailureClass.TIMEOUT, False),
                (FailureClass.CONFLICT, True),
                (FailureClass.SERVER, True),
                (FailureClass.CONNECTION, False),
                (FailureClass.CONNECTION, False),
            ]
        )
        words = f"{kind} {'answered' if answered else 'unanswered'}"
        place = name if name in READING_ROWS else "statement"
        self._simulation.reach(f"postgres {place}: {words}")
        if kind is FailureClass.CONNECTION and rng.random() < 0.1:
            self._down_until = trio.current_time() + rng.choice([1.0, 15.0, 60.0])
        raise self._failure(name, kind, words, answered=answered)

    def _fail_over(self) -> None:
        simulation = self._simulation
        lost = simulation.history.fail_over()
        self.timeline += 1
        self._down_until = trio.current_time() + self._rng.choice([0.0, 0.5, 10.0])
        simulation.reach("postgres failover")
        if lost:
            simulation.reach("postgres failover without the tail")

    def _failure(self, name: str, kind: FailureClass, words: str, *, answered: bool) -> Failure:
        operation = {"fetch": "FETCH", "snapshot": "SCAN", "scan_batch": "SCAN"}.get(name, name.upper())
        return Failure(kind, operation, f"simulated: {name}: {words}", answered=answered)

    def _facts(self) -> ServerFacts:
        return ServerFacts(
            "7300000000000000000",
            self.timeline,
            180000,
            "fake",
            "loopback",
            self.in_recovery,
            self.clock_us(),
        )

    async def _answered(self, name: str, read: Callable[[], Awaitable[T]]) -> T:
        """Read, then perhaps lose the answer."""
        found = await read()
        simulation = self._simulation
        simulation.step(f"postgres {name} answered")
        if simulation.stormy and self._rng.random() < simulation.world.weather.postgres / 4:
            simulation.reach(f"postgres {name}: dropped in mid-answer")
            raise self._failure(name, FailureClass.CONNECTION, "connection lost", answered=False)
        return found

    async def _patient(self, name: str, read: Callable[[], Awaitable[T]]) -> T:
        """Repeat the read as the product does."""
        patiently = PostgresSource._patiently
        return await patiently(self, lambda: self._answered(name, read))  # type: ignore[arg-type]

    # What the program asks

    async def server(self) -> ServerFacts:
        await self._patient("server", lambda: self._execute("server"))
        return self._facts()

    async def describe(self, spec: SourceConfig) -> TableFacts:
        asked = super().describe
        return await self._patient("describe", lambda: asked(spec))

    async def check_fetch_plan(self, spec: SourceConfig, facts: TableFacts) -> None:
        asked = super().check_fetch_plan
        await self._patient("check_fetch_plan", lambda: asked(spec, facts))

    async def sweep_range(self, spec: SourceConfig, facts: TableFacts, **bounds: Any) -> SweptRange:
        asked = super().sweep_range
        return await self._patient("sweep_range", lambda: asked(spec, facts, **bounds))

    async def writers_before(self, cutoff_us: int) -> FakeWriters:
        asked = super().writers_before
        return await self._patient("writers_before", lambda: asked(cutoff_us))

    async def row_digests(
        self, spec: SourceConfig, facts: TableFacts, row_keys: Sequence[str], *, with_sha256: bool
    ) -> dict[str, RowDigest]:
        asked = super().row_digests
        return await self._patient(
            "row_digests", lambda: asked(spec, facts, row_keys, with_sha256=with_sha256)
        )

    def scan(
        self, spec: SourceConfig, facts: TableFacts, *, cutoff_us: int
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[list[SweptRow], Exclusions, int]]]:
        scanned = super().scan(spec, facts, cutoff_us=cutoff_us)
        simulation = self._simulation

        @asynccontextmanager
        async def witnessed() -> AsyncIterator[AsyncIterator[tuple[list[SweptRow], Exclusions, int]]]:
            async with scanned as batches:
                simulation.history.snapshot_begins(spec, cutoff_us)
                yield self._broken_off(batches)

        return witnessed()

    async def _broken_off(self, batches: AsyncIterator[T]) -> AsyncIterator[T]:
        timeline = self.timeline
        async for batch in batches:
            if self.timeline != timeline:
                raise self._failure("scan_batch", FailureClass.CONNECTION, "connection lost", answered=False)
            yield batch

    async def health(self, throttle: ThrottleConfig) -> Health:
        simulation, rng = self._simulation, self._rng
        simulation.step("postgres health")
        await trio.sleep(0.001)
        self.first_server.admit(self._facts(), "the fake")
        if not simulation.stormy:
            return Health({Cause.ACTIVE_SESSIONS: Reading(0.0)})
        kind = rng.choices(["calm", "busy", "crowded", "unread", "silent"], [8, 3, 1, 1, 1])[0]
        simulation.reach(f"reading {kind}")
        if kind in {"unread", "silent"}:
            silence = "simulated: not connected" if kind == "silent" else ""
            return Health({Cause.ACTIVE_SESSIONS: Reading(None, "simulated: no answer")}, silence)
        return Health({Cause.ACTIVE_SESSIONS: Reading({"calm": 1.0, "busy": 8.0, "crowded": 30.0}[kind])})

    async def fetch(
        self, spec: SourceConfig, facts: TableFacts, wanted: Sequence[Wanted]
    ) -> list[FetchedRow]:
        asked, simulation = super().fetch, self._simulation
        reserved = sum(one.reserved for one in wanted)
        fetches_max = simulation.session_config.fetch_connections
        self._fetching += 1
        with simulation.noted():
            ensure(self._fetching <= fetches_max, f"{self._fetching} fetches at once")
            self._hold(reserved)

        async def read(batch: Sequence[Wanted]) -> list[FetchedRow]:
            return await self._answered("fetch", lambda: asked(spec, facts, batch))

        try:
            rows = await in_halves(wanted, read, random=self._random)
        finally:
            self._fetching -= 1
            self.held -= reserved
        with simulation.noted():
            for row in rows:
                ensure(row.value is None or len(row.value) == row.size, "a fetched value has another size")
            self._hold(sum(row.size for row in rows if row.value is not None))
        return rows

    def _hold(self, size: int) -> None:
        self.held += size
        simulation = self._simulation
        bound = max(simulation.world.config.upload.max_in_flight, simulation.history.largest)
        ensure(self.held <= bound, f"{self.held} bytes in flight, at most {bound} expected")
