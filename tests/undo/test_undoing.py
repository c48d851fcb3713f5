"""What may be deleted, as a decision over plain values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.judging import migration_mark
from daemon.objects import ObjectFacts
from daemon.undoing import Reason, Scope, Step, Verdict, judge
from journal.created_objects import CreatedObject
from journal.histories import ExpectedObject
from journal.lifecycle import Outcome

ID = "blobs/1768400000000000"
NOW_US = 1_768_400_000_000_000
MD5 = "a" * 32
RECORDED = ExpectedObject(
    ordinal=1, source=1, row_key="k", created_at=None, size=3, md5=MD5, etag=None, outcome=Outcome.STORED
)
OURS = CreatedObject(RECORDED, NOW_US)
FOUND = ObjectFacts(3, MD5, metadata={"backfill-migration": migration_mark(ID)})


def verdict(created=OURS, found=FOUND):
    return judge(created, found, migration_id=ID, now_us=NOW_US)


def recorded(**changes):
    return CreatedObject(replace(RECORDED, **changes), NOW_US)


def test_an_object_about_which_everything_agrees_goes():
    assert verdict().step is Step.DELETE


@pytest.mark.parametrize("outcome", [Outcome.PRESENT, Outcome.SKIPPED, Outcome.VANISHED])
@given(st.one_of(st.none(), st.just(FOUND)))
def test_what_was_not_stored_by_us_is_never_touched(outcome, found):
    assert verdict(recorded(outcome=outcome), found).reason is Reason.PRESENT


@given(
    size=st.integers(0, 5),
    etag=st.sampled_from([MD5, "b" * 32, "", "e-2"]),
    version=st.sampled_from([None, "v1", "v2"]),
    mark=st.sampled_from([migration_mark(ID), "other/1", ""]),
    known_etag=st.sampled_from([None, "e-2"]),
    known_version=st.sampled_from([None, "v1"]),
)
def test_an_object_goes_only_if_size_etag_version_and_migration_are_those_on_record(
    size, etag, version, mark, known_etag, known_version
):
    found = ObjectFacts(size, etag, version, metadata={"backfill-migration": mark} if mark else {})
    agrees = (
        size == 3
        and etag == (known_etag or MD5)
        and known_version in {None, version}
        and mark == migration_mark(ID)
    )
    step = verdict(recorded(etag=known_etag, version_id=known_version), found).step
    assert (step is Step.DELETE) == agrees
    assert step is not Step.GONE


def test_a_version_is_deleted_by_its_id():
    found = replace(FOUND, version_id="v1")
    assert verdict(recorded(version_id="v1"), found).version_id == "v1"
    assert verdict(OURS, replace(FOUND, version_id="null")).version_id == "null"


@pytest.mark.parametrize(
    ("until", "hold", "kept"),
    [
        ("2999-01-01T00:00:00.000Z", False, True),
        ("2999-01-01T00:00:00", False, True),
        ("2001-01-01T00:00:00Z", False, False),
        ("whenever", False, True),
        (None, True, True),
        (None, False, False),
    ],
)
def test_a_lock_keeps_an_object_until_it_is_over(until, hold, kept):
    found = verdict(found=replace(FOUND, retained_until=until, legal_hold=hold))
    assert (found.reason is Reason.LOCKED) == kept


def test_of_an_undone_key_another_object_is_left_alone():
    undone = replace(OURS, undone=True)
    assert verdict(undone, None).step is Step.GONE
    assert verdict(undone, FOUND).step is Step.DELETE
    assert verdict(undone, replace(FOUND, etag="b" * 32)).step is Step.GONE
    beneath = verdict(replace(recorded(version_id="v1"), undone=True), replace(FOUND, version_id="v9"))
    assert (beneath.step, beneath.version_id) == (Step.DELETE, "v1")


def test_a_scope_is_all_its_restrictions_at_once():
    scope = Scope(frozenset({1}), frozenset({"k"}), NOW_US + 1)
    assert scope.holds(OURS)
    assert not scope.holds(replace(OURS, outcome_us=NOW_US + 1))
    assert not scope.holds(recorded(source=2))
    assert not scope.holds(recorded(row_key="K"))


@pytest.mark.parametrize(
    ("known", "found", "reason", "detail"),
    [
        ({}, {"size": 4}, Reason.REPLACED, "4 bytes, expected 3"),
        ({}, {"etag": ""}, Reason.REPLACED, f"ETag none, expected {MD5}"),
        ({"md5": ""}, {}, Reason.REPLACED, f"ETag {MD5}, expected one on record"),
        ({"version_id": "v1"}, {"version_id": "v2"}, Reason.REPLACED, "version v2, expected v1"),
        ({"version_id": "v1"}, {}, Reason.REPLACED, "version none, expected v1"),
        ({}, {"metadata": {}}, Reason.FOREIGN, "it does not bear this migration's id"),
        ({}, {"legal_hold": True}, Reason.LOCKED, "legal hold"),
        ({}, {"retained_until": "whenever"}, Reason.LOCKED, "retained until whenever"),
        ({}, {"retained_until": "2999-01-01"}, Reason.LOCKED, "retained until 2999-01-01"),
        ({"outcome": Outcome.PRESENT}, {}, Reason.PRESENT, ""),
    ],
)
def test_an_object_that_stays_is_told_with_why(known, found, reason, detail):
    assert verdict(recorded(**known), replace(FOUND, **found)) == Verdict(Step.LEAVE, reason, detail)


def test_a_retention_is_over_at_the_moment_that_it_names():
    over = datetime.fromtimestamp(NOW_US / 1e6, UTC)
    assert verdict(found=replace(FOUND, retained_until=over.isoformat())).step is Step.DELETE
    later = over + timedelta(seconds=1)
    assert verdict(found=replace(FOUND, retained_until=later.isoformat())).step is Step.LEAVE
