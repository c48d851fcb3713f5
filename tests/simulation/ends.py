"""Both ends of a simulated session: the fakes, with weather, witnesses and a process that can die at each step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import trio

from daemon.config import SourceConfig
from daemon.credentials import CredentialSource
from daemon.errors import UnreachableError
from daemon.retrying import Failure, FailureClass
from daemon.rows import Exclusions, FetchedRow, SweptRow, TableFacts, Wanted
from daemon.runtime import in_loop
from daemon.signing import Credentials
from tests.planning.fake_source import FakeSource
from tests.s3_fake import ACCESS_KEY, SECRET_KEY, FakeS3, Stored
from tests.s3_faults import (
    Fault,
    answers,
    delays,
    drops_request,
    flips_bit,
    lands_late,
    loses_response,
    slow_down,
    truncates,
)
from tests.simulation.observer import ensure

if TYPE_CHECKING:
    import httpx

    from tests.simulation.simulation import Simulation

PROBE = ".backfill-probe"


def credentials() -> CredentialSource:
    """Fixed credentials, found without a thread."""

    class Fixed:
        def get_frozen_credentials(self) -> Credentials:
            return Credentials(ACCESS_KEY, SECRET_KEY, None)

    return CredentialSource(resolve=Fixed, run_sync=in_loop)


class SimulatedSource(FakeSource):
    """PostgreSQL in the weather; counts what the program holds of it.

    Attributes:
        held: bytes of values asked for or handed over and not yet let go by an uploader.
    """

    def __init__(self, simulation: Simulation, **settings: Any) -> None:
        super().__init__(**settings)
        self._simulation = simulation
        self._rng = Random(f"postgres {simulation.world.seed}")
        self.held = 0
        self._fetching = 0
        self.fetches_max = 1

    async def _execute(self, name: str) -> None:
        self._simulation.step(f"postgres {name}")
        await trio.sleep(self._rng.choice([0.0, 0.001, 0.02]))
        self.statements.append(name)
        self._befall(name)

    def _befall(self, name: str) -> None:
        simulation = self._simulation
        if not simulation.stormy or self._rng.random() >= simulation.world.weather.postgres:
            return
        if name in {"fetch", "snapshot", "scan_batch"}:
            operation = "FETCH" if name == "fetch" else "SCAN"
            kind = self._rng.choice([FailureClass.TIMEOUT, FailureClass.CONNECTION, FailureClass.SERVER])
            simulation.reach(f"{operation} {kind}")
            raise Failure(kind, operation, f"simulated {kind}", answered=kind is FailureClass.SERVER)
        if self._rng.random() < 0.2:
            simulation.reach("postgres unreachable")
            raise UnreachableError(f"simulated: {name} was not answered")

    def scan(
        self, spec: SourceConfig, facts: TableFacts, *, cutoff_us: int
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[list[SweptRow], Exclusions, int]]]:
        scanned = super().scan(spec, facts, cutoff_us=cutoff_us)

        @asynccontextmanager
        async def witnessed() -> AsyncIterator[AsyncIterator[tuple[list[SweptRow], Exclusions, int]]]:
            async with scanned as batches:
                self._simulation.history.snapshot_begins(spec, cutoff_us)
                yield batches

        return witnessed()

    async def fetch(
        self, spec: SourceConfig, facts: TableFacts, wanted: Sequence[Wanted]
    ) -> list[FetchedRow]:
        reserved = sum(one.reserved for one in wanted)
        self._fetching += 1
        ensure(self._fetching <= self.fetches_max, f"{self._fetching} fetches at once")
        self._hold(reserved)
        try:
            rows = await super().fetch(spec, facts, wanted)
        finally:
            self._fetching -= 1
            self.held -= reserved
        for row in rows:
            ensure(row.value is None or len(row.value) == row.size, "a fetched value has another size")
        self._hold(sum(row.size for row in rows if row.value is not None))
        return rows

    def _hold(self, size: int) -> None:
        self.held += size
        simulation = self._simulation
        bound = max(simulation.world.config.upload.max_in_flight, simulation.history.largest)
        ensure(self.held <= bound, f"{self.held} bytes in flight, at most {bound} expected")


class SimulatedS3(FakeS3):
    """S3 in the weather; witnesses every PUT.

    Attributes:
        repeated: PUTs taken for an object that was already ours with the same bytes.
        opened: what was there before is in place.
    """

    def __init__(self, simulation: Simulation, clock: Callable[[], int]) -> None:
        world = simulation.world
        rng = Random(f"s3 {world.seed}")
        super().__init__(
            clock, rng, buckets=("bucket", "other"), latency=lambda: rng.choice([0.0, 0.001, 0.03, 0.2])
        )
        self.opened = False
        self._simulation = simulation
        self._weather = rng
        self._storm_until = -1.0
        self._rots: set[str] = set()
        self.conditions = world.conditions
        self.versioned = world.versioned
        self.repeated = 0
        self._landing = False
        for (bucket, key), (body, encryption) in world.foreign.items():
            headers = {} if encryption is None else {"x_amz_server_side_encryption": encryption}
            self.place(key, body, bucket, **headers)
        self.opened = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._simulation.step(f"s3 {request.method}")
        response = await super().handle_async_request(request)
        self._simulation.step(f"s3 {request.method} answered")
        return response

    def _fault(self, operation: str, key: str) -> Fault:
        simulation = self._simulation
        if operation == "PUT" and not key.endswith(PROBE):
            simulation.put_arrives(key)
        if not simulation.stormy:
            return Fault()
        if trio.current_time() < self._storm_until:
            simulation.reach("s3 storm")
            return slow_down()
        if self._weather.random() >= simulation.world.weather.s3:
            return Fault()
        name, fault = self._draw(operation, key)
        simulation.reach(f"s3 {name}")
        return fault

    def _draw(self, operation: str, key: str) -> tuple[str, Fault]:
        rng = self._weather
        drawn: list[tuple[str, Callable[[], Fault]]] = [
            ("storm", lambda: self._storm(rng.choice([0.3, 2.0, 8.0, 45.0]))),
            ("500", lambda: answers(500, "InternalError")),
            ("lost response", loses_response),
            ("dropped request", drops_request),
            ("slow", lambda: delays(rng.uniform(0.5, 20.0))),
            ("truncated answer", truncates),
        ]
        if operation == "PUT" and not key.endswith(PROBE):
            drawn += [
                ("409", lambda: answers(409, "ConditionalRequestConflict")),
                ("garbage", lambda: answers(200, body=b"<html>welcome to the hotel network</html>")),
                ("flipped bit", flips_bit),
            ]
            if self.conditions == "atomic":
                # Where conditions mean nothing, a request that lands late overwrites whatever is there by then.
                drawn.append(("late", lambda: lands_late(rng.choice([0.2, 3.0, 40.0]))))
            if self._simulation.world.config.s3.sse in {None, "AES256"}:
                # Under SSE-KMS no answer tells of bytes that changed inside the server.
                drawn.append(("rot", lambda: self._rot(key)))
            if rng.random() < 0.1:
                return "403", answers(403, "AccessDenied")
        name, make = rng.choice(drawn)
        return name, make()

    def _storm(self, seconds: float) -> Fault:
        self._storm_until = trio.current_time() + seconds
        return slow_down()

    def _rot(self, key: str) -> Fault:
        self._rots.add(key)
        return Fault()

    def _land(self) -> None:
        # Nobody sends these again: they are still on their way.
        self._landing = True
        super()._land()
        self._landing = False

    def _store(self, bucket: str, key: str, body: bytes, headers: dict[str, str]) -> Stored:
        if self.opened and not key.endswith(PROBE):
            there = self._current(bucket, key)
            ours = there is not None and "backfill-migration" in there.metadata
            if there is not None and not ours:
                policy = self._simulation.world.config.s3.existing
                ensure(policy == "overwrite", f"overwrote the foreign object {key!r} under existing={policy}")
                self._simulation.reach("foreign object overwritten")
            if there is not None and ours and there.body == body and not self._landing:
                self.repeated += 1
                self._simulation.reach("repeated upload")
            if key in self._rots and body:
                self._rots.discard(key)
                body = body[:-1] + bytes([body[-1] ^ 1])
        return super()._store(bucket, key, body, headers)

    def current(self, bucket: str, key: str) -> Stored | None:
        """What is there now."""
        self._land()
        return self._current(bucket, key)
