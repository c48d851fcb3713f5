"""Carry out a verification: open what its tiers need, tell what was found, and let it be mended if asked."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import trio

from daemon.activity import Activity
from daemon.bucket import Bucket
from daemon.comparing import TierName, VerificationResult, exit_code_of, redacted
from daemon.config import Config
from daemon.controls import Controls
from daemon.ending import Ending
from daemon.endpoints import open_bucket
from daemon.errors import ExitCode
from daemon.layouts import layout_of
from daemon.log_events import LogEvent, log_event
from daemon.log_lines import Style
from daemon.operators import operator
from daemon.pacing import Pacer
from daemon.reading import PostgresSource
from daemon.recorder import Recorder
from daemon.rendering_verification import (
    repaired_text,
    verification_json,
    verification_text,
    verification_word,
)
from daemon.requesting import RequestPolicy
from daemon.row_reading import RowReader, VerifiedTable
from daemon.runtime import Runtime
from daemon.sampling import DEFAULT_SAMPLE
from daemon.scanning import ScanLimits
from daemon.server_record import AnotherServer, database_differences, server_differences
from daemon.source import open_source
from daemon.tier_content import ContentTier
from daemon.tier_head import HeadTier
from daemon.tier_list import ListTier
from daemon.tier_receipts import ReceiptsTier
from daemon.tier_source import SourceTier
from daemon.tiers import Tier, VerifiedSource
from daemon.tunables import configured_tunables, in_force
from daemon.verify_progress import shown_on
from daemon.verifying import Step, Verifier, repair
from journal.entries import SourceCounts
from journal.reader import Reader

_READ_ROWS = {TierName.SOURCE, TierName.CONTENT}
DEFAULT_STEPS = (Step(TierName.LIST), Step(TierName.CONTENT, DEFAULT_SAMPLE))
"""What `verify` does where no tier is named."""


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What the flags of `verify` decide.

    Attributes:
        steps: tiers, in order.
        sources: only these; empty: all.
        no_extra: an object that no row accounts for is a mismatch.
        repair: keys whose object is found wrong are to be driven again.
        fresh: an interrupted verification is not taken up.
        as_json: print JSON instead of text.
    """

    steps: tuple[Step, ...] = DEFAULT_STEPS
    sources: tuple[str, ...] = ()
    no_extra: bool = False
    repair: bool = False
    fresh: bool = False
    as_json: bool = False


async def verified(
    config: Config,
    options: VerifyOptions,
    recorder: Recorder,
    runtime: Runtime,
    ending: Ending,
    *,
    bucket: Bucket | None = None,
    source: PostgresSource | None = None,
) -> ExitCode:
    """Verify, print what was found, and return the exit code.

    Args:
        config: the configuration.
        options: what is asked for.
        recorder: of the journal, which nobody else writes.
        runtime: the outside world.
        ending: is told how it went.
        bucket: open already; None: opened if a tier needs it.
        source: likewise.

    Raises:
        RefusedError, UnreachableError, BackfillError: an end that does not answer.
        JournalError: the journal.
    """
    journal = recorder.journal
    counts = await recorder.call(lambda journal, _now: journal.counts())
    await recorder.call(lambda journal, _now: journal.build_key_index())
    sources = _sources(config, options, recorder, counts)
    asked = {step.tier for step in options.steps}
    async with AsyncExitStack() as ends:
        reader = ends.enter_context(Reader.open(journal.path))
        if bucket is None and asked - {TierName.RECEIPTS}:
            bucket = await ends.enter_async_context(open_bucket(config, os.environ))
        rows = None
        if asked & _READ_ROWS:
            if source is None:
                source = await ends.enter_async_context(
                    open_source(
                        config.postgres,
                        migration=config.migration.name,
                        give_up_after=config.upload.give_up_after,
                        random=runtime.random,
                    )
                )
            rows = await _row_reader(config, recorder, runtime, source, sources)
        tiers = _tiers(config, recorder, runtime, reader, bucket, rows)
        with shown_on(
            sys.stderr,
            interval_seconds=config.upload.checkpoint_interval_secs,
            bars=ending.log.style is not Style.JSON,
        ) as told:
            results = await Verifier(
                recorder,
                reader,
                sources,
                tiers,
                runtime.random,
                extra_fails=options.no_extra,
                who=operator(),
                fresh=options.fresh,
                told=told,
            ).verify(options.steps)
        repaired = None
        if options.repair:
            repaired = await repair(recorder, reader, [result.run for result in results], who=operator())
    log = ending.log
    shown = [redacted(result, log.redacted, log.redacted_text) for result in results]
    _tell(config, options, shown, repaired)
    ending.outcome = verification_word(results)
    return exit_code_of(results)


async def _row_reader(
    config: Config,
    recorder: Recorder,
    runtime: Runtime,
    source: PostgresSource,
    sources: Sequence[VerifiedSource],
) -> RowReader:
    """Return what reads the rows of these sources, under the rates that are in force.

    Raises:
        SourceUnfitError, RefusedError, UnreachableError: the table is not what it was, or can't be read.
        AnotherServer: these rows are not those that were copied.
    """
    journal = recorder.journal
    server = await source.server()
    another = [*server_differences(journal, server), *database_differences(journal, server)]
    if another:
        raise AnotherServer(another)
    specs = {spec.name: spec for spec in config.sources}
    tables = {
        each.id: VerifiedTable(specs[each.name], await source.describe(specs[each.name])) for each in sources
    }
    tunables = in_force(configured_tunables(config), journal.overrides)
    controls = Controls(tunables, throttle=config.throttle)
    return RowReader(
        source,
        tables,
        Pacer(controls, Activity(), runtime.now_us),
        latest=journal.latest,
        cutoff_us=server.now_us if journal.cutoff_us is None else journal.cutoff_us,
        limits=ScanLimits(config.upload.max_attempts, config.upload.give_up_after),
        random=runtime.random,
    )


def _tiers(
    config: Config,
    recorder: Recorder,
    runtime: Runtime,
    reader: Reader,
    bucket: Bucket | None,
    rows: RowReader | None,
) -> dict[TierName, Callable[[], Tier]]:
    """Return how to make each tier whose ends are open."""
    journal = recorder.journal
    policy = RequestPolicy(config.upload.max_attempts, config.upload.give_up_after, runtime.random)
    concurrency = config.upload.concurrency
    tiers: dict[TierName, Callable[[], Tier]] = {
        TierName.RECEIPTS: lambda: ReceiptsTier(reader, trio.to_thread.run_sync)
    }
    if bucket is not None:
        listing = functools.partial(ListTier, journal.path, bucket, journal.latest, policy)
        tiers[TierName.LIST] = listing
        tiers[TierName.HEAD] = functools.partial(
            HeadTier, bucket, policy, migration_id=journal.migration_id, concurrency=concurrency
        )
        if rows is not None:
            tiers[TierName.SOURCE] = lambda: SourceTier(listing(), rows)
            tiers[TierName.CONTENT] = functools.partial(
                ContentTier, bucket, rows, policy, concurrency=concurrency
            )
    return tiers


def _sources(
    config: Config, options: VerifyOptions, recorder: Recorder, counts: dict[str, SourceCounts]
) -> list[VerifiedSource]:
    found = []
    for spec in config.sources:
        if options.sources and spec.name not in options.sources:
            continue
        if spec.name not in counts:
            log_event(
                LogEvent.SOURCE_UNPLANNED,
                f"{spec.name}: not planned yet, nothing of it is verified; `backfillctl run` copies it",
                source=spec.name,
            )
            continue
        found.append(
            VerifiedSource(
                recorder.journal.sources[spec.name].id,
                spec.name,
                spec.bucket,
                layout_of(spec),
                counts[spec.name],
            )
        )
    return found


def _tell(
    config: Config, options: VerifyOptions, results: Sequence[VerificationResult], repaired: int | None
) -> None:
    """Print to stdout: under systemd that is in its journal too."""
    if options.as_json:
        text = json.dumps(verification_json(results, repaired=repaired), indent=2)
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        text = "\n".join(verification_text(result, width=width) for result in results)
        if repaired is not None:
            text += "\n" + repaired_text(
                repaired, results, overwrites=config.s3.existing == "overwrite", width=width
            )
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
