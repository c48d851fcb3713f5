"""A whole session over fakes in virtual time: real journal, planner, pipeline and uploader; fake table and S3."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from daemon.activity import Activity
from daemon.config import (
    Config,
    LimitsConfig,
    MigrationConfig,
    PostgresConfig,
    S3Config,
    SourceConfig,
    ThrottleConfig,
    UploadConfig,
)
from daemon.control_protocol import Action, Reply, Request
from daemon.drain import Drain
from daemon.ends import TargetEnd, survey
from daemon.migration import Ended, Migration
from daemon.opening import begin_session, check_identity, controls_of
from daemon.recorder import Recorder
from daemon.runtime import Runtime, in_loop
from daemon.steering import Steering
from daemon.upload_processes import Spawn, spawned
from journal.checkpoint import Order
from journal.log import Journal
from journal.reader import Reader
from tests.planning.fake_source import FakeSource, FakeTable
from tests.s3_fake import ENDPOINT, REGION, FakeS3
from tests.s3_servers import fake_server

if TYPE_CHECKING:
    from pathlib import Path

    from journal.entries import SourceCounts
    from journal.status import MigrationStatus

CUTOFF_US = 1_700_000_000_000_000
BUCKET = "bucket"


def clock_us() -> int:
    """One second past the cutoff when virtual time begins."""
    return CUTOFF_US + 1_000_000 + int(trio.current_time() * 1e6)


def source(name: str = "t", **settings: Any) -> SourceConfig:
    given: dict[str, Any] = {
        "name": name,
        "schema_name": "public",
        "table_name": name,
        "bucket": BUCKET,
        "key": ("id",),
        "value": "data",
        "created_at": "created_at",
        "prefix": f"{name}/",
    }
    return SourceConfig(**{**given, **settings})


@dataclass
class Rig:
    """One migration on disk, its table and its bucket.

    Attributes:
        stop_at_start: a signal that comes before the session has done anything.
        spawn: starts upload processes, where `upload` has several.
        steering, controls: of the newest session.
        activity: what the tasks of all its sessions are at.
        ended: how it ended, if it ran beside a test (`running`).
    """

    directory: Path
    sources: tuple[SourceConfig, ...] = field(default_factory=lambda: (source(),))
    upload: dict[str, Any] = field(default_factory=dict)
    s3: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    throttle: dict[str, Any] = field(default_factory=dict)
    order: Order = Order.NEWEST_FIRST
    stop_at_start: str | None = None
    spawn: Spawn = spawned
    ended: Ended | None = None

    def __post_init__(self) -> None:
        self.tables = {one.table_name: FakeTable() for one in self.sources}
        self.database = FakeSource(self.tables, clock_us)
        self.fake = FakeS3(clock_us, random.Random(5), buckets=sorted({one.bucket for one in self.sources}))
        self.drain = Drain()
        self.activity = Activity()
        self.steerable = trio.Event()

    @property
    def table(self) -> FakeTable:
        return self.tables["t"]

    @property
    def journal_path(self) -> Path:
        return self.directory / "journal.db"

    @property
    def config(self) -> Config:
        return Config(
            migration=MigrationConfig(
                name="rig", journal=self.journal_path, order=self.order, cutoff_us=CUTOFF_US
            ),
            postgres=PostgresConfig(),
            s3=S3Config(endpoint=ENDPOINT, region=REGION, bucket=BUCKET, **self.s3),
            upload=UploadConfig(**{"concurrency": 4, **self.upload}),
            limits=LimitsConfig(**self.limits),
            throttle=ThrottleConfig(**self.throttle),
            sources=self.sources,
        )

    async def session(self, *, journal_kind: type[Journal] = Journal) -> Ended:
        """Run one session to its end, as `service.run` does, with a drain of its own."""
        self.drain = Drain()
        config = self.config
        runtime = Runtime(
            now_us=clock_us, random=random.Random(3), journal_runner=in_loop, digest_runner=in_loop
        )
        bucket = self.target()
        surveyed = await survey(config, self.database, bucket, runtime, allow_seqscan=False)
        if self.journal_path.exists():
            journal = journal_kind.open(self.journal_path, now_us=clock_us())
        else:
            journal = journal_kind.create(
                self.journal_path, name="rig", cutoff_us=CUTOFF_US, order=self.order, now_us=clock_us()
            )
        with journal:
            check_identity(journal, config, surveyed.server, accept_source=False, now_us=clock_us())
            begin_session(journal, config, surveyed.server, clock_us())
            recorder = Recorder(journal, runtime)
            if self.stop_at_start is not None:
                self.drain.request(self.stop_at_start)
            self.controls = controls_of(config, journal)
            self.steering = Steering(config, recorder, self.controls, self.drain)
            self.steerable.set()
            migration = Migration(
                config,
                recorder,
                self.database,
                surveyed,
                runtime,
                self.drain,
                self.controls,
                self.activity,
                allow_seqscan=False,
                spawn=self.spawn,
            )
            ended = await self.work(migration, recorder, bucket)
            journal.end_session(now_us=clock_us(), reason=ended.reason, exit_code=int(ended.exit_code))
        return ended

    def target(self) -> TargetEnd:
        """Where objects go."""
        return fake_server(self.fake).bucket_over(self.fake, clock_us=clock_us, **self.s3)

    async def work(self, migration: Migration, _recorder: Recorder, target: TargetEnd) -> Ended:
        """What a session does."""
        return await migration.run(target)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run a session beside the block, from when it can be steered; both end together."""
        self.ended, self.steerable = None, trio.Event()

        async def run() -> None:
            self.ended = await self.session()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await self.steerable.wait()
            yield

    async def steer(self, action: str, *words: str, who: str = "alice (uid 1000)") -> Reply:
        """Do as the control socket does when `who` asks."""
        return await self.steering.answer(Request(Action(action), words=words), who)

    def status(self) -> MigrationStatus:
        with Reader.open(self.journal_path) as reader:
            return reader.status(now_us=CUTOFF_US)

    def counts(self, name: str = "t") -> SourceCounts:
        return next(one.counts for one in self.status().sources if one.name == name)

    def events(self, *kinds: str) -> list[Any]:
        with Reader.open(self.journal_path) as reader:
            return [event.data for event in reader.events(kinds=kinds)]

    def objects(self, bucket: str = BUCKET) -> dict[str, bytes]:
        return {
            key: body
            for key, body in self.fake.objects(bucket).items()
            if not key.endswith(".backfill-probe")
        }

    def requests(self, operation: str) -> list[str]:
        """Keys of the requests of one kind, the probe's left out."""
        return [
            seen.key
            for seen in self.fake.seen
            if seen.operation == operation and not seen.key.endswith(".backfill-probe")
        ]
