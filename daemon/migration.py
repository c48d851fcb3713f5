"""The course of one session: recover, plan, probe, copy, close what was planned, copy what closing found, count."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from daemon.activity import Activity
from daemon.budget import ByteBudget
from daemon.causes import Cause
from daemon.config import Config, identity
from daemon.controls import Controls
from daemon.drain import Drain
from daemon.ends import SourceEnd, Survey, TargetEnd
from daemon.errors import ExitCode
from daemon.executing import Executor, LocalExecutor
from daemon.executors import copy_sources, fetch_policy, uploader_of
from daemon.gating import GatedSource
from daemon.log_events import LogEvent, log_event
from daemon.pacing import Pacer
from daemon.pipeline import Limits, Pipeline
from daemon.planner import Planner, PlanSettings
from daemon.process_link import Totals
from daemon.process_messages import Start
from daemon.quota import Quota
from daemon.recorder import Recorder
from daemon.rows import ServerFacts
from daemon.runtime import Runtime
from daemon.scanning import ScanLimits
from daemon.upload_processes import ProcessExecutor, Spawn, spawned
from daemon.upload_shares import processes_in_force
from daemon.uploader import Conditional, Destination, Uploader
from journal.entries import AttemptFailed, SourceCounts
from journal.events import Kind
from journal.log import Journal


@dataclass(frozen=True, slots=True)
class Ended:
    """How a session ended: in words for the record, and with which exit code."""

    exit_code: ExitCode
    reason: str


def identities(config: Config, server: ServerFacts, cutoff_us: int | None) -> dict[str, dict[str, object]]:
    """Return the fingerprint of each source."""
    return {
        spec.name: dict(identity(config, spec, server.database, cutoff_us=cutoff_us))
        for spec in config.sources
    }


class Migration:
    """One session over an open journal; both ends are ready, the journal's identity is checked.

    Attributes:
        controls: what the session may do at this moment.
        activity: what its tasks are doing.
        pacer: the turnstile before its fetches.
        scanned_rows: rows seen so far by the planning passes that are running, by source name.
    """

    def __init__(
        self,
        config: Config,
        recorder: Recorder,
        source: SourceEnd,
        surveyed: Survey,
        runtime: Runtime,
        drain: Drain,
        controls: Controls,
        activity: Activity,
        *,
        allow_seqscan: bool,
        spawn: Spawn = spawned,
    ) -> None:
        self._config = config
        self._recorder = recorder
        self._source = source
        self._tables = dict(surveyed.tables)
        self._server = surveyed.server
        self._probes = surveyed.probes
        self._spawn = spawn
        self._runtime = runtime
        self._drain = drain
        self.controls = controls
        self.activity = activity
        self.pacer = Pacer(controls, activity, runtime.now_us)
        self._parked = 0
        self._quota = Quota(config.limits.limit, config.limits.max_bytes)
        self.scanned_rows: dict[str, int] = {}
        self.planner = Planner(
            recorder.journal,
            GatedSource(source, controls, drain),
            runtime,
            PlanSettings(
                late_grace=config.postgres.late_grace,
                scan=scan_limits(config),
                allow_seqscan=allow_seqscan,
            ),
        )

    async def run(self, target: TargetEnd) -> Ended:
        """Work until every key is settled or parked and every source closed, or until drained.

        Raises:
            MigrationHalted, BackfillError, JournalError, one or several in an exception group.
        """
        before = _settled(await self._recorder.call(lambda journal, _now: journal.counts()))
        await self.plan()
        if self._drain:
            return await self._stopped()
        destinations = await self._destinations()
        while True:
            await self._copy(target, destinations)
            if self._drain:
                return await self._stopped()
            await self._close()
            ended = await (self._stopped() if self._drain else self._finished(before))
            if ended is not None:
                return ended

    async def plan(self) -> None:
        """Take back what a dead session held, fix the cutoff, register new sources, make every first pass.

        A drain interrupts it at once: planning resumes in the middle.
        """
        recovery = await self._recorder.call(lambda journal, now_us: journal.recover(now_us=now_us))
        if recovery.recovered or recovery.parked:
            log_event(
                LogEvent.SESSION_RECOVERED,
                f"the last session died with {recovery.recovered + recovery.parked} keys in flight: "
                f"{recovery.recovered} are driven again first, {recovery.parked} parked",
                recovered=recovery.recovered,
                parked=recovery.parked,
            )
        with self._drain.governs(grace=0), self.activity.at(Cause.PLANNING):
            # The cutoff is part of each source's identity: fixed first, then registered.
            await self.planner.settle_cutoff()
            await self._recorder.call(self._register)
            await self.planner.plan(self._config.sources, self._scanned)
            self.scanned_rows.clear()

    async def reconcile(self, *, who: str) -> None:
        """Look at every source once more, closed or not."""
        with self._drain.governs(grace=0), self.activity.at(Cause.PLANNING):
            for spec in self._config.sources:
                await self.planner.reconcile(
                    spec,
                    who=who,
                    reason="plan --reconcile",
                    on_progress=functools.partial(self._scanned, spec.name),
                )
                self.scanned_rows.pop(spec.name, None)

    async def planned(self) -> Ended:
        """Say how a session that only planned ends."""
        if self._drain:
            return await self._stopped()
        counts = (await self._recorder.call(lambda journal, _now: journal.counts())).values()
        rows = sum(count.planned_rows for count in counts)
        size = sum(count.planned_bytes for count in counts)
        return Ended(ExitCode.DONE, f"planned {rows} rows, {size} bytes")

    def _scanned(self, name: str, rows_seen: int, _blocks_done: int, _blocks_total: int) -> None:
        self.scanned_rows[name] = rows_seen

    def _register(self, journal: Journal, now_us: int) -> None:
        known = journal.sources
        for name, fingerprint in identities(self._config, self._server, journal.cutoff_us).items():
            if name not in known:
                journal.add_source(name, fingerprint, now_us=now_us)

    async def _destinations(self) -> dict[str, Destination]:
        """Record what the probes found, and say so where conditional PUTs can't be relied on."""
        destinations: dict[str, Destination] = {}
        sources = self._recorder.journal.sources
        for spec in self._config.sources:
            finding = self._probes[spec.bucket]
            data = {"bucket": spec.bucket, **asdict(finding)}
            await self._recorder.note(Kind.PROBE_RECORDED, data, source=sources[spec.name].id)
            if finding.conditional != "atomic":
                log_event(
                    LogEvent.NOT_ATOMIC,
                    f"{spec.name}: bucket {spec.bucket}: If-None-Match is {finding.conditional}: not atomic here, "
                    "a writer beside us can be overwritten",
                    source=spec.name,
                    bucket=spec.bucket,
                    conditional=finding.conditional,
                )
            conditional = Conditional(finding.conditional)
            destinations[spec.name] = Destination(spec.bucket, spec.content_type, conditional)
        return destinations

    async def _copy(self, target: TargetEnd, destinations: dict[str, Destination]) -> None:
        """Drive every claimable key; what a cut-short drain leaves claimed is given back."""
        journal = self._recorder.journal
        upload = self._config.upload
        sources = copy_sources(
            self._config,
            self._source,
            ids={name: record.id for name, record in journal.sources.items()},
            tables=self._tables,
            destinations=destinations,
            instruments=self._runtime.instruments,
        )
        counts = await self._recorder.call(lambda journal, _now: journal.counts())
        pipeline = Pipeline(
            sources,
            self._executor(target, destinations),
            self._recorder,
            Limits(
                connections=self._config.fetch_connections,
                claim_keys_max=upload.key_batch_size,
                max_in_flight=upload.max_in_flight,
                max_failures=upload.max_failures,
                planned_rows=sum(count.planned_rows for count in counts.values()),
            ),
            self.pacer,
            self.controls,
            self._drain,
            quota=self._quota,
            parked_before=self._parked,
        )
        with self._drain.governs(grace=upload.drain_deadline):
            await pipeline.run()
        self._parked = pipeline.parked
        await self._recorder.call(
            lambda journal, now_us: journal.release(journal.in_flight_ordinals(), now_us=now_us)
        )

    def _executor(self, target: TargetEnd, destinations: dict[str, Destination]) -> Executor:
        config, runtime = self._config, self._runtime
        connections = config.fetch_connections
        processes = processes_in_force(config.upload.processes, cores=runtime.cores, connections=connections)
        budget = ByteBudget(config.upload.max_in_flight)
        if processes == 1:
            return LocalExecutor(
                connections,
                fetch_policy(config),
                self._uploader(target),
                budget,
                self.pacer,
                self.controls,
                self.activity,
                self._drain,
                runtime.random,
                record=self._recorder.record,
            )
        start = Start(
            config,
            self._recorder.journal.migration_id,
            connections,
            {name: source.id for name, source in self._recorder.journal.sources.items()},
            self._tables,
            destinations,
            self._server,
        )
        totals = Totals(
            budget,
            self.pacer,
            self.activity,
            self._drain,
            runtime.instruments,
            target.credentials,
            self._record_failed,
        )
        return ProcessExecutor(processes, start, totals, self.controls, spawn=self._spawn)

    def _uploader(self, target: TargetEnd) -> Uploader:
        return uploader_of(
            self._config,
            target,
            self._recorder.journal.migration_id,
            self.activity,
            self._runtime,
            record=self._record_failed,
        )

    async def _record_failed(self, entry: AttemptFailed) -> None:
        self.controls.failed(entry)
        await self._recorder.record(entry)

    async def _close(self) -> None:
        """Close the sources that are open."""
        with self._drain.governs(grace=0), self.activity.at(Cause.CLOSING):
            for spec in self._config.sources:
                await self.planner.close_source(spec, functools.partial(self._scanned, spec.name))
                self.scanned_rows.pop(spec.name, None)

    async def _finished(self, before: int) -> Ended | None:
        """Say how a session that did all it could ends, where `before` keys were settled at its beginning.

        None where there are keys to copy: closing added them, or an operator requeued them just now. Looking and
        deciding are one call, so that no requeue falls between.
        """

        def decide(journal: Journal, now_us: int) -> Ended | None:
            if any(journal.has_unclaimed(record.id) for record in journal.sources.values()):
                return None
            self.controls.over = True
            counts = journal.counts()
            if journal.complete(now_us=now_us):
                idle = before > 0 and before == _settled(counts)
                reason = "nothing to copy: every key was settled already" if idle else "every key is settled"
                return Ended(ExitCode.DONE, reason)
            parked = sum(count.parked for count in counts.values())
            return Ended(ExitCode.PARKED, f"ended with {parked} parked {'key' if parked == 1 else 'keys'}")

        return await self._recorder.call(decide)

    async def _stopped(self) -> Ended:
        """Say how a drained session ends; one that had nothing left to do is done all the same."""
        journal = self._recorder.journal
        sources = journal.sources
        closed = all(spec.name in sources and sources[spec.name].closed for spec in self._config.sources)
        if closed and await self._recorder.call(lambda journal, now_us: journal.complete(now_us=now_us)):
            return Ended(ExitCode.DONE, "every key is settled")
        how = "cancelled" if self._drain.cancelled else "drained"
        return Ended(
            interrupted(self._drain), f"{how} on {self._drain.cause} with work left; the same command resumes"
        )


def _settled(counts: Mapping[str, SourceCounts]) -> int:
    return sum(count.settled for count in counts.values())


def scan_limits(config: Config) -> ScanLimits:
    """Return how long planning bears failures."""
    return ScanLimits(max_attempts=config.upload.max_attempts, give_up_after=config.upload.give_up_after)


def interrupted(drain: Drain) -> ExitCode:
    """Return the exit code of a drained session: 128 + the signal's number, as a shell would have it, or STOPPED."""
    codes = {"SIGINT": ExitCode.INTERRUPTED, "SIGTERM": ExitCode.TERMINATED}
    return codes.get(drain.cause or "", ExitCode.STOPPED)
