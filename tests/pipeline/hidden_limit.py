"""An endpoint that serves so many uploads at once and refuses every other, and a session against it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from daemon.accounting import Accounting
from daemon.objects import PutReceipt
from daemon.probing import ProbeFinding
from daemon.retrying import Failure, FailureClass
from tests.pipeline.rig import CUTOFF_US, Rig

if TYPE_CHECKING:
    from daemon.migration import Ended, Migration
    from daemon.recorder import Recorder

SERVICE_SECONDS = 0.5
REFUSAL_SECONDS = 0.05
"""How long a refusal takes to arrive: a tenth of an upload."""
CEILING = 128


@dataclass
class HiddenLimit:
    """A bucket without contents.

    Attributes:
        limit: uploads served at once.
        refusals_cost: a refusal takes one of the places that uploads are served in, as where the server refuses
            only after it has read the request; else it costs nothing.
        silent: seconds after which what is above the limit is left without any answer, instead of refused.
        chance: of being refused, whatever is under way.
        seconds: how long an upload takes on the average; half as long to half as long again.
        serving, refusing: requests now.
        served, refused: requests so far.
        busy: the integral of both over time, up to the last change.
    """

    limit: int
    refusals_cost: bool = False
    silent: float | None = None
    chance: float = 0.0
    seconds: float = SERVICE_SECONDS
    serving: int = 0
    refusing: int = 0
    served: int = 0
    refused: int = 0
    busy: float = 0.0
    _changed_at: float = 0.0
    _random: random.Random = field(default_factory=lambda: random.Random(11))

    def snapshot(self) -> tuple[float, float, int, int]:
        """Now: the time, and the integral, what was served and what was refused up to then."""
        self._pass_time()
        return trio.current_time(), self.busy, self.served, self.refused

    async def put(self, bucket, key, body, *, md5, headers, condition, sha256_hex=None) -> PutReceipt:
        self._pass_time()
        taken = self.serving + self.refusals_cost * self.refusing
        if taken >= self.limit or self._random.random() < self.chance:
            await self._refuse()
        self.serving += 1
        try:
            await trio.sleep(self.seconds * self._random.uniform(0.5, 1.5))
        finally:
            self._pass_time()
            self.serving -= 1
        self.served += 1
        return PutReceipt(md5.hex())

    async def _refuse(self) -> None:
        self.refused += 1
        self.refusing += 1
        try:
            await trio.sleep(REFUSAL_SECONDS if self.silent is None else self.silent)
        finally:
            self._pass_time()
            self.refusing -= 1
        if self.silent is not None:
            raise Failure(FailureClass.TIMEOUT, "PUT", "no answer", answered=False)
        raise Failure(FailureClass.THROTTLED, "PUT", "503 SlowDown", http_status=503)

    def _pass_time(self) -> None:
        now = trio.current_time()
        self.busy += (self.serving + self.refusing) * (now - self._changed_at)
        self._changed_at = now

    async def head(self, bucket, key) -> None:
        return None

    async def get_digest(self, bucket, key, *, size_max) -> tuple[str, int]:
        raise AssertionError("nothing is there to be compared")

    async def refresh_credentials(self) -> None:
        raise AssertionError("no credentials expire here")

    async def probe(self, bucket, prefix) -> ProbeFinding:
        return ProbeFinding("atomic", deletable=True, key=f"{prefix}.backfill-probe")


@dataclass(frozen=True)
class Measured:
    """What came of some stretch of time: uploads under way on the average, served per second, refused per served."""

    mean: float
    goodput: float
    refused: float


class RecordingRig(Rig):
    """A session that puts its changes of concurrency on record."""

    async def work(self, migration: Migration, recorder: Recorder, target) -> Ended:
        accounting = Accounting(recorder, migration.controls, migration.activity)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accounting.run)
            ended = await migration.run(target)
            nursery.cancel_scope.cancel()
        await accounting.finish()
        return ended


class LimitedRig(RecordingRig):
    """One whose target is `hidden`."""

    hidden: HiddenLimit

    def target(self) -> HiddenLimit:
        return self.hidden

    async def measured(self, seconds: float) -> Measured:
        """Let it work so long, and say what came of it."""
        begun, busy, served, refused = self.hidden.snapshot()
        await trio.sleep(seconds)
        ended, busy_then, served_then, refused_then = self.hidden.snapshot()
        lasted, done = ended - begun, served_then - served
        return Measured(
            (busy_then - busy) / lasted,
            done / lasted,
            (refused_then - refused) / done if done else float("inf"),
        )


def limited(directory, hidden: HiddenLimit, *, rows: int, **upload) -> LimitedRig:
    rig = LimitedRig(directory, upload={"concurrency": CEILING, **upload})
    rig.hidden = hidden
    rig.table.rows_per_block = 100
    for number in range(rows):
        rig.table.insert(f"k{number:06}", CUTOFF_US - 1 - number, b"v")
    return rig
