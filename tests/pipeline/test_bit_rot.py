"""Bytes that went bad at rest, under the ETag and the metadata of the good ones: which tier sees them, what mends them."""

from __future__ import annotations

import dataclasses
import hashlib
import random

import pytest

from daemon.comparing import FindingKind, Means, TierName, exit_code_of
from daemon.errors import ExitCode
from daemon.layouts import layout_of
from daemon.pacing import Pacer
from daemon.recorder import Recorder
from daemon.requesting import RequestPolicy
from daemon.row_reading import RowReader, VerifiedTable
from daemon.runtime import Runtime, in_loop
from daemon.scanning import ScanLimits
from daemon.tier_content import ContentTier
from daemon.tier_head import HeadTier
from daemon.tier_list import ListTier
from daemon.tier_source import SourceTier
from daemon.tiers import VerifiedSource
from daemon.verifying import Step, Verifier, repair
from journal.log import Journal
from journal.reader import Reader
from tests.pipeline.rig import BUCKET, CUTOFF_US, Rig, clock_us
from tests.s3_servers import fake_server

OLD = CUTOFF_US - 1_000_000


def md5(value: bytes) -> str:
    return hashlib.md5(value, usedforsecurity=False).hexdigest()


@pytest.fixture
async def rotten(rig: Rig, autojump_clock) -> Rig:
    """Two keys are copied; then a bit of the one that is planned first flips, and nothing else of its object."""
    rig.table.insert("a", OLD, b"value")
    rig.table.insert("b", OLD - 1, b"value")
    assert (await rig.session()).exit_code is ExitCode.DONE
    versions = rig.fake.buckets[BUCKET]["t/a"]
    versions[-1] = dataclasses.replace(versions[-1], body=b"walue")
    return rig


async def verify(rig: Rig, tier: TierName, *, repairing: bool = False):
    """Verify every key by one tier, as the command does; return the result and how many keys are to be driven again."""
    [spec] = rig.sources
    runtime = Runtime(now_us=clock_us, random=random.Random(3), journal_runner=in_loop, digest_runner=in_loop)
    bucket = fake_server(rig.fake).bucket_over(rig.fake, clock_us=clock_us)
    policy = RequestPolicy(3, 60.0, random.Random(1))
    with (
        Journal.open(rig.journal_path, now_us=clock_us()) as journal,
        Reader.open(rig.journal_path) as reader,
    ):
        journal.build_key_index()
        rows = RowReader(
            rig.database,
            {1: VerifiedTable(spec, await rig.database.describe(spec))},
            Pacer(rig.controls, rig.activity, clock_us),
            latest=journal.latest,
            cutoff_us=CUTOFF_US,
            limits=ScanLimits(3, 60.0),
            random=random.Random(1),
        )
        listing = ListTier(journal.path, bucket, journal.latest, policy)
        recorder = Recorder(journal, runtime)
        results = await Verifier(
            recorder,
            reader,
            [VerifiedSource(1, spec.name, BUCKET, layout_of(spec), journal.counts()[spec.name])],
            {
                TierName.LIST: lambda: listing,
                TierName.HEAD: lambda: HeadTier(
                    bucket, policy, migration_id=journal.migration_id, concurrency=2
                ),
                TierName.SOURCE: lambda: SourceTier(listing, rows),
                TierName.CONTENT: lambda: ContentTier(bucket, rows, policy, concurrency=2),
            },
            random.Random(1),
            extra_fails=True,
            who="op",
        ).verify([Step(tier)])
        runs = [result.run for result in results]
        repaired = await repair(recorder, reader, runs, who="op") if repairing else 0
    [result] = results
    return result, repaired


@pytest.mark.parametrize("tier", [TierName.LIST, TierName.HEAD, TierName.SOURCE])
async def test_no_tier_that_reads_no_object_sees_it(rotten, tier):
    result, _ = await verify(rotten, tier)
    assert (result.right, result.found, result.exit_code) == ({Means.MD5: 2}, {}, ExitCode.DONE)


async def test_content_names_the_object_with_both_digests(rotten):
    result, _ = await verify(rotten, TierName.CONTENT)
    [finding] = result.examples
    assert (finding.kind, finding.object_key) == (FindingKind.DIFFERING, "t/a")
    assert finding.detail == f"its bytes have the MD5 {md5(b'walue')}, expected {md5(b'value')}"
    assert result.right == {Means.SHA256: 1}
    assert exit_code_of([result]) is ExitCode.MISMATCH


async def test_a_repair_lets_run_copy_that_row_again_and_no_other(rotten):
    _, repaired = await verify(rotten, TierName.CONTENT, repairing=True)
    assert repaired == 1
    rotten.fake.seen.clear()
    assert (await rotten.session()).exit_code is ExitCode.DONE
    assert set(rotten.requests("PUT")) == {"t/a"}
    assert rotten.objects() == {"t/a": b"value", "t/b": b"value"}
    result, _ = await verify(rotten, TierName.CONTENT)
    assert (result.right, result.found) == ({Means.SHA256: 2}, {})
