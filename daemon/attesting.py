"""Attest: look at journal and table once more, decide whether the source may be dropped, and put that on record."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from daemon.comparing import TierName
from daemon.config import Config
from daemon.drain import Drain, Governed
from daemon.drop_sql import CopiedTable
from daemon.ending import Ending
from daemon.errors import ExitCode
from daemon.excusing import excuses
from daemon.log_events import LogEvent, log_event
from daemon.opening import open_existing
from daemon.operators import operator
from daemon.planning import Change
from daemon.reading import PostgresSource
from daemon.rendering_attestation import Attestation, attestation_json, attestation_text, attestation_word
from daemon.row_queries import RowQueries
from daemon.rows import ServerFacts
from daemon.runtime import Runtime
from daemon.scanning import ScanLimits
from daemon.server_record import database_differences, server_differences
from daemon.service import stoppable
from daemon.source import open_source
from daemon.unplanned import SourceScan, scan_for_uncopied
from daemon.verdict import Demands, Facts, ScannedSource, Standby, conditions
from journal.anchors import Anchor, anchor_problem, read_anchor
from journal.attestation import journal_facts, source_digests
from journal.checking import problems
from journal.events import Kind
from journal.log import Journal
from journal.reader import Reader

T = TypeVar("T")

OWNER_WAIT_SECONDS = 1.0
"""How long to wait for a daemon that is just ending; one that runs is named at once after that."""
EXAMPLES_MAX = 5
"""Rows without a copy that a verdict names."""


@dataclass(frozen=True, slots=True)
class AttestOptions:
    """What the flags of `attest` decide.

    Attributes:
        excused: parked keys that may be without a copy, as KEY or SOURCE:KEY.
        accept_unproven: as in `Demands`.
        tier: as in `Demands`.
        primary_lsn: as in `Standby`.
        manifest: of an earlier report.
        as_json: print JSON instead of text.
    """

    excused: tuple[str, ...] = ()
    accept_unproven: bool = False
    tier: TierName | None = None
    primary_lsn: str | None = None
    manifest: Path | None = None
    as_json: bool = False


async def attest(config: Config, options: AttestOptions, ending: Ending) -> ExitCode:
    """Print a verdict with its reasons and record it; return DONE for GO, MISMATCH for NO-GO.

    Raises:
        ConfigError: an excused key that is not parked.
        JournalError: missing, held by somebody, damaged beyond opening; a manifest that is none.
        BackfillError: PostgreSQL does not answer, or the table is not what it was.
    """
    return await stoppable(functools.partial(_attest, config, options, ending), ending, grace_seconds=0)


async def _attest(
    config: Config, options: AttestOptions, ending: Ending, _drain: Drain, _starting: Governed
) -> ExitCode:
    anchor = None if options.manifest is None else read_anchor(options.manifest)
    runtime = Runtime()
    journal = await runtime.journal_runner(
        lambda: open_existing(config, now_us=runtime.now_us(), wait_seconds=OWNER_WAIT_SECONDS)
    )
    try:
        ending.log.identify(journal.migration_id)
        ending.begin(journal.counts().values())
        with Reader.open(journal.path) as reader:
            attestation = await _looked_at(
                config, options, runtime, journal, reader, anchor, ending.log.redacted
            )
        await runtime.journal_runner(lambda: _record(journal, attestation))
    finally:
        journal.close()
    if options.as_json:
        sys.stdout.write(json.dumps(attestation_json(attestation), indent=2) + "\n")
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        sys.stdout.write(attestation_text(attestation, width=width) + "\n")
    sys.stdout.flush()
    ending.outcome = attestation_word(attestation)
    return ExitCode.DONE if attestation.go else ExitCode.MISMATCH


async def _looked_at(
    config: Config,
    options: AttestOptions,
    runtime: Runtime,
    journal: Journal,
    reader: Reader,
    anchor: Anchor | None,
    show: Callable[[str], str],
) -> Attestation:
    found = await _told("counting every key", lambda: journal_facts(reader))
    excused = excuses(options.excused, found.sources)
    demands = Demands(excused, accept_unproven=options.accept_unproven, tier=options.tier)
    async with open_source(
        config.postgres,
        migration=config.migration.name,
        give_up_after=config.upload.give_up_after,
        random=runtime.random,
    ) as source:
        server = await source.server()
        # Before the first snapshot: each of them shows what had been replayed by then, at least.
        replayed = await source.replayed_lsn() if server.in_recovery else None
        cutoff_us = server.now_us if journal.cutoff_us is None else journal.cutoff_us
        scans: dict[str, SourceScan] = {}
        queries: dict[str, RowQueries] = {}
        for spec in config.sources:
            if spec.name in journal.sources:
                log_event(LogEvent.ATTESTING, f"{spec.name}: looking through its table", source=spec.name)
                queries[spec.name] = source.queries(spec, await source.describe(spec))
                scans[spec.name] = await _scan(
                    config,
                    source,
                    runtime,
                    journal,
                    queries[spec.name],
                    cutoff_us,
                    excused.get(spec.name, ()),
                )
    wrong = await _told("checking the journal", lambda: problems(reader))
    digests = await _told("digesting what is in the bucket", lambda: source_digests(reader))
    facts = Facts(
        journal=found,
        problems=wrong,
        anchor_problem="" if anchor is None else anchor_problem(reader, anchor),
        server_change=_server_change(journal, server),
        standby=Standby(replayed, options.primary_lsn) if server.in_recovery else None,
        unplanned=[spec.name for spec in config.sources if spec.name not in journal.sources],
        scanned={name: _summary(scan, show) for name, scan in scans.items()},
        demands=demands,
    )
    return Attestation(
        facts=facts,
        conditions=conditions(facts, show),
        digests={each.name: digests[each.id] for each in found.sources},
        tables={
            name: CopiedTable(
                queries[name],
                cutoff_us,
                scan.seen,
                facts.scanned[name].left_out,
                scan.size,
                sorted(scan.excused),
            )
            for name, scan in scans.items()
        },
        server=server,
        now_us=runtime.now_us(),
        who=operator(),
    )


async def _scan(
    config: Config,
    source: PostgresSource,
    runtime: Runtime,
    journal: Journal,
    queries: RowQueries,
    cutoff_us: int,
    excused: Collection[str],
) -> SourceScan:
    await runtime.journal_runner(journal.build_key_index)
    return await scan_for_uncopied(
        source,
        queries.spec,
        queries.facts,
        source_id=journal.sources[queries.spec.name].id,
        latest=journal.latest,
        cutoff_us=cutoff_us,
        limits=ScanLimits(config.upload.max_attempts, config.upload.give_up_after),
        random=runtime.random,
        excused=excused,
    )


async def _told(what: str, work: Callable[[], T]) -> T:
    log_event(LogEvent.ATTESTING, what)
    return await trio.to_thread.run_sync(work)


def _summary(scan: SourceScan, show: Callable[[str], str]) -> ScannedSource:
    return ScannedSource(
        seen=scan.seen,
        excluded=scan.excluded.as_dict(),
        new=scan.uncopied.get(Change.NEW, 0),
        reappeared=scan.uncopied.get(Change.REAPPEARED, 0),
        changed=scan.uncopied.get(Change.CHANGED, 0),
        examples=tuple(show(row.row_key) for row in scan.rows[:EXAMPLES_MAX]),
    )


def _server_change(journal: Journal, server: ServerFacts) -> str:
    changed = [
        f"{each.field.replace('_', ' ')} {each.recorded} on record, {each.configured} found"
        for each in [*server_differences(journal, server), *database_differences(journal, server)]
    ]
    return f"another PostgreSQL: {', '.join(dict.fromkeys(changed))}" if changed else ""


def _record(journal: Journal, attestation: Attestation) -> None:
    anchor = attestation.facts.journal.anchor
    journal.note(
        Kind.ATTESTED,
        {
            "verdict": "GO" if attestation.go else "NO-GO",
            "who": attestation.who,
            "head_seq": anchor.head_seq,
            "chain": anchor.chain,
            "not_met": [each.subject for each in attestation.conditions if not each.met],
            "digests": {
                name: [digest.objects, digest.size, digest.sha256]
                for name, digest in attestation.digests.items()
            },
        },
        now_us=attestation.now_us,
    )
