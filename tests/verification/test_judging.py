"""What an object, its headers and its row say together, as decisions over plain values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.comparing import FindingKind, Means
from daemon.judging import judge_content, judge_headers, judge_row, migration_mark
from daemon.objects import ObjectDigests, ObjectFacts
from daemon.rows import RowDigest
from journal.histories import ExpectedObject
from journal.lifecycle import Outcome

ID = "blobs ü/1768400000000000"
MD5, OTHER, SHA = "a" * 32, "b" * 32, "c" * 64
ROW = ExpectedObject(
    ordinal=1, source=1, row_key="k", created_at=None, size=3, md5=MD5, etag=None, outcome=Outcome.STORED
)
OURS = {"backfill-migration": "blobs %C3%BC/1768400000000000", "backfill-md5": MD5}
FOUND = ObjectFacts(3, MD5, metadata=OURS)


def judged(found, **changes):
    return judge_headers(replace(ROW, **changes), found, migration_id=ID)


def test_a_mark_is_ascii_and_keeps_blanks_and_slashes():
    assert migration_mark(ID) == OURS["backfill-migration"]


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (None, (FindingKind.MISSING, "")),
        ({"size": 4}, (FindingKind.DIFFERING, "4 bytes, expected 3")),
        ({"etag": OTHER}, (FindingKind.DIFFERING, f"MD5 {OTHER}, expected {MD5}")),
        ({"metadata": {}}, (FindingKind.FOREIGN, f"written by another program, expected by {ID}")),
        (
            {"metadata": {**OURS, "backfill-migration": "x/1"}},
            (FindingKind.FOREIGN, f"written by migration x/1, expected by {ID}"),
        ),
        (
            {"metadata": {**OURS, "backfill-md5": OTHER}},
            (FindingKind.DIFFERING, f"MD5 {OTHER} in its metadata, expected {MD5}"),
        ),
    ],
)
def test_headers_that_contradict_the_journal_are_told_with_both_values(found, wrong):
    assert judged(None if found is None else replace(FOUND, **found)) == wrong


def test_the_version_counts_where_both_name_one():
    found = replace(FOUND, version_id="v2")
    assert judged(found, version_id="v1") == (FindingKind.DIFFERING, "version v2, expected v1")
    assert judged(found, version_id="v2") is Means.MD5
    assert judged(found) is Means.MD5
    assert judged(FOUND, version_id="v1") is Means.MD5


def test_where_the_etag_says_nothing_our_own_metadata_does():
    kms = replace(FOUND, etag="opaque")
    assert judged(kms, etag="opaque") is Means.MD5
    present = replace(kms, metadata={})
    assert judged(present, etag="opaque", outcome=Outcome.PRESENT) is Means.SIZE
    assert judged(replace(FOUND, metadata={}), outcome=Outcome.PRESENT) is Means.MD5


CONTENT = ObjectDigests(3, MD5, SHA)
SOURCE = RowDigest("k", 3, MD5, SHA)


@pytest.mark.parametrize(
    ("found", "source", "verdict"),
    [
        (CONTENT, SOURCE, Means.SHA256),
        (None, SOURCE, (FindingKind.MISSING, "")),
        (ObjectDigests(2, OTHER, ""), SOURCE, (FindingKind.DIFFERING, "2 bytes, expected 3")),
        (ObjectDigests(4, "", ""), SOURCE, (FindingKind.DIFFERING, "more than 3 bytes, expected 3")),
        (
            replace(CONTENT, md5=OTHER),
            None,
            (FindingKind.DIFFERING, f"its bytes have the MD5 {OTHER}, expected {MD5}"),
        ),
        (
            replace(CONTENT, sha256="d" * 64),
            SOURCE,
            (FindingKind.DIFFERING, f"its bytes have the SHA-256 {'d' * 64}, the row's {SHA}"),
        ),
        (CONTENT, None, (FindingKind.ROW_DELETED, "no row with a value has its key")),
        (
            CONTENT,
            RowDigest("k", 9, MD5, SHA),
            (FindingKind.ROW_CHANGED, "the row has 9 bytes now, 3 were copied"),
        ),
    ],
)
def test_the_object_is_blamed_before_the_row(found, source, verdict):
    assert judge_content(ROW, found, source) == verdict


def test_a_row_of_equal_length_is_told_by_its_digest():
    assert judge_row(ROW, SOURCE) is None
    changed = RowDigest("k", 3, OTHER, SHA)
    expected = (FindingKind.ROW_CHANGED, f"the row's MD5 is {OTHER} now, {MD5} was copied")
    assert judge_row(ROW, changed) == expected
