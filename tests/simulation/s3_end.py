"""S3 of a simulated session: the fake in the weather, with foreign writers and credentials that expire."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import httpx
import trio

from daemon.credentials import CredentialSource
from daemon.runtime import in_loop
from daemon.signing import Credentials
from tests.s3_fake import ACCESS_KEY, SECRET_KEY, FakeS3, Stored
from tests.s3_faults import (
    Fault,
    answers,
    arrives_again,
    delays,
    drips,
    drops_request,
    flips_bit,
    lands_late,
    loses_response,
    slow_down,
    truncates,
)
from tests.simulation.observer import ensure

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

PROBE = ".backfill-probe"
IO_SECONDS = 60.0
"""After so long without a byte the transport gives a request up (`s3.io_timeout`)."""
HTML = b"<html>welcome to the hotel network</html>"


class SimulatedS3(FakeS3):
    """S3 in the weather; witnesses every PUT.

    Attributes:
        repeated: PUTs taken for an object that was already ours with the same bytes.
        opened: what was there before is in place.
        raced: (bucket, key) to what another writer put there in the last moment.
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
        self.clock_offset_us = world.weather.server_skew_us
        self.repeated = 0
        self.raced: dict[tuple[str, str], tuple[bytes, str | None]] = {}
        self._landing = False
        self._expiring: list[tuple[float, str]] = []
        for (bucket, key), (body, encryption) in world.foreign.items():
            headers = {} if encryption is None else {"x_amz_server_side_encryption": encryption}
            self.place(key, body, bucket, **headers)
        self.opened = True

    def credentials(self) -> CredentialSource:
        """Return what a new process finds."""
        if not self._simulation.stormy or self._simulation.world.weather.credentials == "fixed":
            return CredentialSource(resolve=_Fixed, run_sync=in_loop)
        kind = _Refreshable if self._simulation.world.weather.credentials == "refreshable" else _Temporary
        renews = self._simulation.world.weather.credentials != "lost"
        chain = kind(self, self._weather.choice([2.0, 20.0, 200.0]), renews=renews)

        def resolve() -> _Temporary:
            chain.walked()
            return chain

        return CredentialSource(resolve=resolve, run_sync=in_loop)

    def issue(self, lifetime: float) -> str:
        """Return a new access key."""
        name = f"AKIATEMP{len(self._expiring)}"
        self.secrets[name] = SECRET_KEY
        self._expiring.append((trio.current_time() + lifetime, name))
        return name

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._simulation.step(f"s3 {request.method}")
        now = trio.current_time()
        self.expired = {name for until, name in self._expiring if until <= now}
        weather = self._simulation.world.weather
        if weather.client_skew and self._simulation.stormy and self._weather.random() < 0.03:
            # In mid-run, too: what the probe learnt of the server's clock holds no more.
            self.clock_offset_us = self._weather.choice([0, -1_200_000_000, 1_200_000_000])
        if request.method == "PUT" and self._simulation.stormy:
            await self._race(request)
        response = await super().handle_async_request(request)
        if response.status_code >= 400 and (code := re.search(rb"<Code>(\w+)", response.stream.whole)):  # type: ignore[union-attr]
            self._simulation.reached[f"s3 answered {code[1].decode()}"] += 1
        self._simulation.step(f"s3 {request.method} answered")
        return response

    async def _race(self, request: httpx.Request) -> None:
        """Let another writer come first, where the condition of the PUT is to protect what it puts there."""
        if self._weather.random() >= self._simulation.world.weather.races:
            return
        path = request.extensions["target"].decode("ascii").partition("?")[0]
        bucket, key = self._locate(request.headers["host"], path)
        there = self._current(bucket, key)
        if key.endswith(PROBE) or (there is not None and "backfill-migration" in there.metadata):
            return
        body = await request.aread()
        theirs = self._weather.choice([body, body[: len(body) // 2], b"y" * len(body)])
        self.place(key, theirs, bucket)
        self.raced[bucket, key] = (theirs, None)
        self._simulation.reach("s3 raced by a foreign writer")

    def _fault(self, operation: str, key: str) -> Fault:
        simulation = self._simulation
        if operation == "PUT" and not key.endswith(PROBE):
            simulation.put_arrives(key)
        if not simulation.stormy:
            return Fault()
        if trio.current_time() < self._storm_until:
            simulation.reach("s3 storm")
            return self._weather.choice([slow_down(), slow_down(), replace(slow_down(), drip=0.5)])
        if self._weather.random() >= simulation.world.weather.s3:
            return Fault()
        name, fault = self._draw(operation, key)
        simulation.reach(f"s3 {name}")
        return fault

    def _draw(self, operation: str, key: str) -> tuple[str, Fault]:
        rng, weather = self._weather, self._simulation.world.weather
        if weather.redirects and rng.random() < weather.redirects:
            return rng.choice(
                [
                    ("301", answers(301, "PermanentRedirect", location="http://elsewhere.example/")),
                    ("301 of a region", answers(301, x_amz_bucket_region="eu-other-1")),
                    ("307", answers(307, "TemporaryRedirect", location="http://elsewhere.example/")),
                ]
            )
        drawn: list[tuple[str, Callable[[], Fault]]] = [
            ("storm", lambda: self._storm(rng.choice([0.3, 2.0, 8.0, 45.0]))),
            ("500", lambda: answers(500, "InternalError")),
            ("500 dripping", lambda: replace(answers(500, "InternalError"), drip=rng.choice([1.0, 30.0]))),
            (
                "500 falling silent",
                lambda: replace(answers(500, "InternalError"), drip=IO_SECONDS, truncated=True),
            ),
            ("lost response", loses_response),
            ("silence after effect", lambda: replace(loses_response(httpx.ReadTimeout), seconds=IO_SECONDS)),
            ("silence", lambda: replace(drops_request(httpx.ReadTimeout), seconds=IO_SECONDS)),
            ("dropped request", drops_request),
            ("slow", lambda: delays(rng.uniform(0.5, 20.0))),
            ("truncated answer", truncates),
            ("dripping answer", lambda: drips(rng.choice([0.2, 20.0]))),
            ("garbage", lambda: answers(200, body=HTML)),
            ("error document with 200", lambda: answers(200, "InternalError")),
            ("garbage with 400", lambda: answers(400, body=HTML)),
        ]
        if operation == "PUT" and not key.endswith(PROBE):
            drawn += self._of_puts(key)
        if weather.forbids and rng.random() < 0.1:
            return "403", answers(403, "AccessDenied")
        name, make = rng.choice(drawn)
        return f"{operation} {name}" if name.startswith(("garbage", "error", "trunc")) else name, make()

    def _of_puts(self, key: str) -> list[tuple[str, Callable[[], Fault]]]:
        rng = self._weather
        drawn: list[tuple[str, Callable[[], Fault]]] = [
            ("409", lambda: answers(409, "ConditionalRequestConflict")),
            ("flipped bit", flips_bit),
        ]
        if self.conditions == "atomic":
            # Where conditions mean nothing, a request that lands late overwrites whatever is there by then.
            drawn += [
                ("late", lambda: lands_late(rng.choice([0.2, 3.0, 40.0]))),
                ("again", lambda: arrives_again(rng.choice([0.2, 3.0, 40.0]))),
                ("lost, and again", lambda: replace(loses_response(), again_seconds=rng.choice([0.2, 40.0]))),
            ]
        if self._simulation.world.config.s3.sse in {None, "AES256"}:
            # Under SSE-KMS no answer tells of bytes that changed inside the server.
            drawn.append(("rot", lambda: self._rot(key)))
        return drawn

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
        ours = "x-amz-meta-backfill-migration" in headers
        if self.opened and ours and not key.endswith(PROBE):
            there = self._current(bucket, key)
            before = there is not None and "backfill-migration" in there.metadata
            if there is not None and not before:
                policy = self._simulation.world.config.s3.existing
                with self._simulation.noted():
                    ensure(
                        policy == "overwrite", f"overwrote the foreign object {key!r} under existing={policy}"
                    )
                self._simulation.reach("foreign object overwritten")
            if there is not None and before and there.body == body and not self._landing:
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


class _Fixed:
    def get_frozen_credentials(self) -> Credentials:
        return Credentials(ACCESS_KEY, SECRET_KEY, None)


class _Temporary:
    """Credentials that expire without anybody being told; walking the chain again finds new ones, or the same."""

    def __init__(self, s3: SimulatedS3, lifetime: float, *, renews: bool) -> None:
        self._s3, self._lifetime, self._renews = s3, lifetime, renews
        self._name = ""
        self._until = 0.0

    def walked(self) -> None:
        if self._renews or not self._name:
            self._issue()

    def get_frozen_credentials(self) -> Credentials:
        return Credentials(self._name, SECRET_KEY, None)

    def _issue(self) -> None:
        self._name = self._s3.issue(self._lifetime)
        self._until = trio.current_time() + self._lifetime


class _Refreshable(_Temporary):
    """Credentials that say when they expire, as botocore's do."""

    def refresh_needed(self, refresh_in: float = 900.0) -> bool:
        return trio.current_time() >= self._until - min(refresh_in, self._lifetime / 2)

    def get_frozen_credentials(self) -> Credentials:
        if self.refresh_needed():
            self._issue()
        return super().get_frozen_credentials()
