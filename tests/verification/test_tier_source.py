"""Tier `source` over a table in memory: by what a key is right, what the database is asked, which rows are counted."""

from __future__ import annotations

from random import Random

import pytest
import trio
import trio.testing

from daemon import unplanned
from daemon.activity import Activity
from daemon.comparing import FindingKind, Means, TierName
from daemon.config import ThrottleConfig
from daemon.controls import Controls
from daemon.layouts import Layout
from daemon.pacing import Pacer
from daemon.row_reading import RowReader, VerifiedTable
from daemon.scanning import ScanLimits
from daemon.tier_list import ListTier
from daemon.tier_source import SourceTier
from daemon.tunables import Tunables
from daemon.verification import Scope, Verification
from journal.events import Kind
from journal.reader import Reader
from tests.pipeline.rig import source as spec
from tests.planning.fake_source import FakeSource, FakeTable
from tests.verification.worlds import (
    NOW_US,
    ListOnly,
    bucket_of,
    policy,
    recording,
    value_of,
    verified_sources,
    write_journal,
)

FLAT = Layout(prefix="t/")
OLD = NOW_US - 1
TUNABLES = Tunables(concurrency=8)


class Digesting(FakeSource):
    """A database that is asked for digests too; it notes for which rows, and whether for SHA-256."""

    asked: list[tuple[str, bool]]

    async def row_digests(self, spec, facts, row_keys, *, with_sha256):
        self.asked += [(key, with_sha256) for key in row_keys]
        return await super().row_digests(spec, facts, row_keys, with_sha256=with_sha256)


@pytest.fixture
def table():
    found = FakeTable()
    for key in ("k1", "k2", "k3"):
        found.insert(key, OLD, value_of(key))
    return found


def verify(journal, table, bucket):
    """Run the tier in virtual time; return its result and what the database was asked."""

    async def run():
        database = Digesting({"t": table}, lambda: NOW_US)
        database.asked = []
        with Reader.open(journal.path) as reader:
            rows = RowReader(
                database,
                {1: VerifiedTable(spec(), await database.describe(spec()))},
                Pacer(Controls(TUNABLES, throttle=ThrottleConfig()), Activity(), lambda: NOW_US),
                latest=journal.latest,
                cutoff_us=NOW_US,
                limits=ScanLimits(3, 60.0),
                random=Random(1),
            )
            listing = ListTier(journal.path, ListOnly({"blobs": bucket}), journal.latest, policy())
            result = await Verification(
                SourceTier(listing, rows),
                verified_sources(journal, {"t": FLAT}),
                reader,
                latest=journal.latest,
                record=recording(journal),
                scope=Scope((TierName.SOURCE,)),
                seed=1,
            ).run()
        return result, database.asked

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def copied(directory, **changed):
    journal = write_journal(
        directory / "journal.db", {"t": dict.fromkeys(("k1", "k2", "k3"), "stored")}, **changed
    )
    return journal, bucket_of(FLAT, ["k1", "k2", "k3"])


def test_an_object_that_the_listing_shows_by_size_only_is_not_right_by_md5(tmp_path, table):
    journal, bucket = copied(tmp_path, etags={"k2": "opaque"})
    bucket["t/k2"] = (bucket["t/k2"][0], "opaque")
    with journal:
        result, _ = verify(journal, table, bucket)
    assert result.right == {Means.MD5: 2, Means.SIZE: 1}


def test_the_database_digests_by_md5_only_and_no_row_whose_object_is_wrong_anyway(tmp_path, table):
    journal, bucket = copied(tmp_path)
    del bucket["t/k2"]
    with journal:
        result, asked = verify(journal, table, bucket)
    assert sorted(asked) == [("k1", False), ("k3", False)]
    assert (result.checked, result.found) == (3, {FindingKind.MISSING: 1})


def test_rows_beyond_those_that_are_named_are_counted_and_told(tmp_path, table, monkeypatch):
    monkeypatch.setattr(unplanned, "NAMED_MAX", 3)
    journal, bucket = copied(tmp_path)
    for number in range(8):
        table.insert(f"late{number}", OLD, b"late")
    with journal:
        result, _ = verify(journal, table, bucket)
        with Reader.open(journal.path) as reader:
            recorded = [
                finding
                for event in reader.events(kinds=[Kind.FINDING_RECORDED])
                for finding in event.data["findings"]
            ]
    assert (result.checked, result.found, result.exit_code) == (3, {FindingKind.UNPLANNED: 8}, 4)
    assert recorded[-1] == ["unplanned", None, "", "5 more rows, which are not named"]
    assert [finding[2] for finding in recorded[:-1]] == ["t/late0", "t/late1", "t/late2"]


def test_rows_of_another_length_take_no_new_rows_place(tmp_path, table, monkeypatch):
    monkeypatch.setattr(unplanned, "NAMED_MAX", 2)
    journal, bucket = copied(tmp_path)
    for key in ("k1", "k2", "k3"):
        table.update(key, value=b"of another length")
    table.insert("late", OLD, b"late")
    with journal:
        result, _ = verify(journal, table, bucket)
    assert result.found == {FindingKind.ROW_CHANGED: 3, FindingKind.UNPLANNED: 1}
    assert result.examples[-1].object_key == "t/late"


def test_a_row_whose_value_is_gone_is_told_as_such_and_no_mismatch(tmp_path, table):
    journal, bucket = copied(tmp_path)
    table.update("k2", value=None)
    with journal:
        result, _ = verify(journal, table, bucket)
    [finding] = result.examples
    assert (finding.kind, finding.detail) == (FindingKind.ROW_DELETED, "no row with a value has its key")
    assert result.exit_code == 0
