"""A verification that is interrupted anywhere and taken up again finds what an uninterrupted one finds."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import verification
from daemon.comparing import Finding, FindingKind, Means, TierName
from daemon.layouts import Layout, object_key
from daemon.sampling import SampleSize
from daemon.tier_list import ListTier
from daemon.tiers import Checked
from daemon.verification_stage import STAGE_SUFFIX
from daemon.verifying import Step, Verifier
from journal.entries import Revocation, Settled
from journal.events import Kind
from journal.lifecycle import Outcome
from journal.reader import Reader
from tests.verification.worlds import (
    NOW_US,
    ListOnly,
    bucket_of,
    md5_of,
    policy,
    recording,
    verified_sources,
    write_journal,
)

FLAT = Layout(prefix="a/")
LIST = (Step(TierName.LIST),)


class Crash(BaseException):
    """The process is gone."""


class Deaths:
    """Counts down to the moment of a crash; 0: there is none."""

    def __init__(self, at: int = 0) -> None:
        self.left = at

    def step(self):
        self.left -= 1
        if self.left == 0:
            raise Crash


class Notes:
    """The recorder, as a verifier needs it."""

    def __init__(self, journal, deaths):
        self.journal = journal
        self._record = recording(journal)
        self._deaths = deaths

    async def note(self, kind, data, *, source=None):
        self._deaths.step()
        return await self._record(kind, data, source=source)


class DyingLister(ListOnly):
    def __init__(self, objects, deaths):
        super().__init__(objects)
        self._deaths = deaths

    async def list_page(self, bucket, prefix, *, token):
        self._deaths.step()
        return await super().list_page(bucket, prefix, token=token)


class LookedUp:
    """A tier that can take samples: looks each object up, three at a time."""

    name = TierName.HEAD
    batch_keys = 3

    def __init__(self, objects, deaths):
        self._objects = objects
        self._deaths = deaths
        self.looked_at = 0

    @asynccontextmanager
    async def ready(self, run, sources):
        yield True

    async def check(self, source, rows):
        self._deaths.step()
        await trio.lowlevel.checkpoint()
        checked = Checked()
        for row in rows:
            self.looked_at += 1
            key = object_key(source.layout, row.row_key)
            if self._objects.get(key) == (row.size, row.md5):
                checked.right[Means.MD5] += 1
            else:
                checked.findings.append(
                    Finding(FindingKind.DIFFERING, source.name, key, row.ordinal, row.row_key)
                )
        return checked

    async def others(self, source):
        await trio.lowlevel.checkpoint()
        yield []


def go(journal, tiers, steps, deaths, *, extra_fails=True, fresh=False):
    """Verify once, in virtual time; None if the process died."""

    async def run():
        with Reader.open(journal.path) as reader:
            verifier = Verifier(
                Notes(journal, deaths),
                reader,
                verified_sources(journal, {"a": FLAT}),
                tiers,
                Random(1),
                extra_fails=extra_fails,
                who="op",
                fresh=fresh,
            )
            try:
                return await verifier.verify(steps)
            except Crash:
                return None

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def events(journal, *kinds):
    with Reader.open(journal.path) as reader:
        return list(reader.events(kinds=kinds))


def facts(result):
    return (result.checked, result.right, result.found, result.exit_code)


@pytest.fixture(autouse=True)
def _progress_each_page(monkeypatch):
    monkeypatch.setattr(verification, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(ListTier, "batch_keys", 3)


def world(path, number=20):
    """Keys settled four at a time, so that there are pages; some objects wrong, some extra."""
    keys = [f"k{index:03d}" for index in range(number)]
    journal = write_journal(path, {"a": dict.fromkeys(keys, "waiting")})
    while claim := journal.claim(1, limit=4, window=100, now_us=NOW_US):
        journal.record(
            [stored(key) for key in claim.keys],
            now_us=NOW_US,
        )
    bucket = bucket_of(FLAT, keys)
    del bucket["a/k003"], bucket["a/k010"]
    bucket["a/k015"] = (1, md5_of("other"))
    bucket["a/stray"] = (1, md5_of("stray"))
    return journal, bucket


def stored(key):
    return Settled(key.ordinal, Outcome.STORED, len(key.row_key) * 3, md5_of(key.row_key))


@settings(max_examples=40, deadline=None)
@given(crashes=st.lists(st.integers(1, 12), max_size=5))
def test_the_listing_tier_gives_the_same_result_however_often_it_is_interrupted(tmp_path_factory, crashes):
    journal, bucket = world(tmp_path_factory.mktemp("world") / "journal.db")
    with journal:
        for at in [*crashes, 0]:
            deaths = Deaths(at)
            lister = DyingLister({"blobs": bucket}, deaths)
            tiers = {
                TierName.LIST: lambda lister=lister: ListTier(journal.path, lister, journal.latest, policy())
            }
            results = go(journal, tiers, LIST, deaths)
            if results is not None:
                break
        [result] = results
        assert facts(result) == (
            20,
            {Means.MD5: 17},
            {FindingKind.MISSING: 2, FindingKind.DIFFERING: 1, FindingKind.EXTRA: 1},
            4,
        )
        assert len(events(journal, Kind.VERIFICATION_STARTED)) == 1
        assert {finding.object_key for finding in result.examples} == {
            "a/k003",
            "a/k010",
            "a/k015",
            "a/stray",
        }


@pytest.mark.parametrize("crash", range(1, 17))
def test_a_run_whose_listing_was_lost_looks_at_every_key_again(tmp_path, crash):
    journal, bucket = world(tmp_path / "journal.db")
    with journal:
        for at in (crash, 0):
            deaths = Deaths(at)
            lister = DyingLister({"blobs": bucket}, deaths)
            tiers = {
                TierName.LIST: lambda lister=lister: ListTier(journal.path, lister, journal.latest, policy())
            }
            results = go(journal, tiers, LIST, deaths)
            if results is None:
                journal.path.with_name(journal.path.name + STAGE_SUFFIX).unlink(missing_ok=True)
        [result] = results
    assert (result.checked, result.number(FindingKind.EXTRA)) == (20, 1)


def test_a_listing_that_was_complete_is_not_asked_for_again(tmp_path):
    journal, bucket = world(tmp_path / "journal.db")
    with journal:
        for at in (11, 0):
            deaths = Deaths(at)
            lister = DyingLister({"blobs": bucket}, deaths)
            tiers = {
                TierName.LIST: lambda lister=lister: ListTier(journal.path, lister, journal.latest, policy())
            }
            results = go(journal, tiers, LIST, deaths)
        assert results is not None
        assert lister.requests == 0


@pytest.mark.parametrize("crash", range(1, 12))
def test_a_sample_is_taken_up_where_it_was_and_names_the_keys_that_were_right(tmp_path, crash):
    journal, bucket = world(tmp_path / "journal.db")
    bucket |= bucket_of(FLAT, ["k003", "k010", "k015"])
    steps = (Step(TierName.HEAD, SampleSize(keys=9)),)
    with journal:
        looked_at = 0
        for at in (crash, 0):
            deaths = Deaths(at)
            tier = LookedUp(bucket, deaths)
            results = go(journal, {TierName.HEAD: lambda tier=tier: tier}, steps, deaths)
            looked_at += tier.looked_at
            if results is not None:
                break
        [result] = results
        assert (result.checked, result.sample.of, result.exit_code) == (9, 20, 0)
        assert looked_at <= 9 + LookedUp.batch_keys
        named = [
            ordinal
            for event in events(journal, Kind.VERIFICATION_PROGRESSED)
            for ordinal in event.data["ordinals"]
        ]
        assert len(named) == len(set(named)) == 9


def test_a_mismatch_in_the_sample_makes_every_key_be_looked_at(tmp_path):
    journal, bucket = world(tmp_path / "journal.db")
    for key in [key for key in bucket if key not in {"a/k000", "a/k001"}]:
        bucket[key] = (0, "")
    steps = (Step(TierName.HEAD, SampleSize(keys=9)),)
    with journal:
        sampled, whole = go(journal, {TierName.HEAD: lambda: LookedUp(bucket, Deaths())}, steps, Deaths())
    assert sampled.exit_code == 4
    assert (whole.sample, whole.checked, whole.number(FindingKind.DIFFERING)) == (None, 20, 18)


@settings(max_examples=40, deadline=None)
@given(crashes=st.lists(st.integers(1, 25), max_size=5))
def test_a_verification_of_two_tiers_tells_of_both_wherever_it_is_interrupted(tmp_path_factory, crashes):
    """The sample of the second is escalated."""
    journal, bucket = world(tmp_path_factory.mktemp("world") / "journal.db")
    rotten = {key: (1, md5_of("rotten")) for key in bucket}
    steps = (Step(TierName.LIST), Step(TierName.HEAD, SampleSize(keys=9)))
    with journal:
        for at in [*crashes, 0]:
            deaths = Deaths(at)
            lister, head = DyingLister({"blobs": bucket}, deaths), LookedUp(rotten, deaths)
            tiers = {
                TierName.LIST: lambda lister=lister: ListTier(journal.path, lister, journal.latest, policy()),
                TierName.HEAD: lambda head=head: head,
            }
            results = go(journal, tiers, steps, deaths)
            if results is not None:
                break
        listed = {FindingKind.MISSING: 2, FindingKind.DIFFERING: 1, FindingKind.EXTRA: 1}
        assert [facts(result) for result in results] == [
            (20, {Means.MD5: 17}, listed, 4),
            (9, {}, {FindingKind.DIFFERING: 9}, 4),
            (20, {}, {FindingKind.DIFFERING: 20}, 4),
        ]
        assert {each.object_key for each in results[0].examples} == {"a/k003", "a/k010", "a/k015", "a/stray"}


def interrupted(tmp_path):
    journal, bucket = world(tmp_path / "journal.db")
    tier = LookedUp(bucket, Deaths(3))
    steps = (Step(TierName.HEAD),)
    assert go(journal, {TierName.HEAD: lambda: tier}, steps, tier._deaths) is None
    again = LookedUp(bucket, Deaths())
    return journal, {TierName.HEAD: lambda: again}, steps


def test_another_scope_is_begun_anew(tmp_path):
    journal, tiers, steps = interrupted(tmp_path)
    with journal:
        go(journal, tiers, steps, Deaths(), extra_fails=False)
        assert len(events(journal, Kind.VERIFICATION_STARTED)) == 2


def test_fresh_begins_anew(tmp_path):
    journal, tiers, steps = interrupted(tmp_path)
    with journal:
        go(journal, tiers, steps, Deaths(), fresh=True)
        assert len(events(journal, Kind.VERIFICATION_STARTED)) == 2


def test_nothing_is_taken_up_once_keys_may_have_changed(tmp_path):
    journal, tiers, steps = interrupted(tmp_path)
    with journal:
        journal.revoke([1], Revocation.REPAIR, message="", who="op", now_us=NOW_US)
        go(journal, tiers, steps, Deaths())
        assert len(events(journal, Kind.VERIFICATION_STARTED)) == 2
