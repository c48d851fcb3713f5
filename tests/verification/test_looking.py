"""What single objects and rows are judged to be, and how many are looked at in spite of refusals."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
import trio
import trio.testing

from daemon.comparing import FindingKind, Means
from daemon.errors import BackfillError, RefusedError
from daemon.judging import MD5_FIELD, MIGRATION_FIELD, judge_content, judge_headers, judge_row
from daemon.layouts import Layout
from daemon.looking import REFUSED_MAX, Looker
from daemon.objects import ObjectDigests, ObjectFacts
from daemon.requesting import RequestPolicy
from daemon.retrying import Failure, FailureClass
from daemon.row_reading import STATEMENT_BYTES_MAX, STATEMENT_KEYS_MAX, split
from daemon.rows import RowDigest
from daemon.tier_content import ContentTier
from daemon.tiers import VerifiedSource
from journal.entries import SourceCounts
from journal.histories import ExpectedObject
from journal.lifecycle import Outcome

BODY = b"as it was copied"
SIZE = len(BODY)
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = "f" * 32
SOURCE = VerifiedSource(1, "a", "blobs", Layout(prefix="p/"), SourceCounts())


def expected(ordinal=1, *, etag=None, outcome=Outcome.STORED, version_id=None, size=SIZE):
    return ExpectedObject(ordinal, 1, f"k{ordinal}", None, size, MD5, etag, outcome, 7, version_id)


def headers(*, size=SIZE, etag=MD5, version_id=None, migration="m/1", md5=MD5):
    metadata = {} if migration is None else {MIGRATION_FIELD: migration, MD5_FIELD: md5}
    return ObjectFacts(size, etag, version_id, metadata=metadata)


ROW = RowDigest("k1", len(BODY), MD5, SHA)


@pytest.mark.parametrize(
    ("row", "found", "verdict"),
    [
        (expected(), headers(), Means.MD5),
        (expected(etag="kms"), headers(etag="kms"), Means.MD5),
        (expected(outcome=Outcome.PRESENT), headers(migration=None), Means.MD5),
        (expected(outcome=Outcome.PRESENT, etag="x-2"), headers(migration=None, etag="x-2"), Means.SIZE),
        (expected(), None, FindingKind.MISSING),
        (expected(), headers(size=3), FindingKind.DIFFERING),
        (expected(), headers(etag=OTHER), FindingKind.DIFFERING),
        (expected(etag="kms"), headers(etag="other"), FindingKind.DIFFERING),
        (expected(etag="kms"), headers(etag="kms", md5=OTHER), FindingKind.DIFFERING),
        (expected(version_id="v1"), headers(version_id="v2"), FindingKind.DIFFERING),
        (expected(version_id="v1"), headers(version_id="v1"), Means.MD5),
        (expected(), headers(migration=None), FindingKind.FOREIGN),
        (expected(), headers(migration="another/2"), FindingKind.FOREIGN),
    ],
)
def test_headers_tell_a_right_object_from_a_wrong_or_a_foreign_one(row, found, verdict):
    judged = judge_headers(row, found, migration_id="m/1")
    assert (judged if isinstance(judged, Means) else judged[0]) == verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (ROW, None),
        (None, FindingKind.ROW_DELETED),
        (RowDigest("k1", 3, MD5, SHA), FindingKind.ROW_CHANGED),
        (RowDigest("k1", len(BODY), OTHER, SHA), FindingKind.ROW_CHANGED),
    ],
)
def test_a_row_is_held_against_what_was_copied(found, verdict):
    judged = judge_row(expected(), found)
    assert (judged and judged[0]) == verdict


@pytest.mark.parametrize(
    ("found", "row", "verdict"),
    [
        (ObjectDigests(len(BODY), MD5, SHA), ROW, Means.SHA256),
        (None, ROW, FindingKind.MISSING),
        (ObjectDigests(3, MD5, SHA), ROW, FindingKind.DIFFERING),
        (ObjectDigests(len(BODY) + 1, "", ""), ROW, FindingKind.DIFFERING),
        (ObjectDigests(len(BODY), OTHER, SHA), ROW, FindingKind.DIFFERING),
        (ObjectDigests(len(BODY), MD5, "0" * 64), ROW, FindingKind.DIFFERING),
        (ObjectDigests(len(BODY), MD5, SHA), None, FindingKind.ROW_DELETED),
        (ObjectDigests(len(BODY), MD5, SHA), RowDigest("k1", 3, OTHER, SHA), FindingKind.ROW_CHANGED),
        (ObjectDigests(len(BODY), OTHER, SHA), RowDigest("k1", 3, OTHER, SHA), FindingKind.DIFFERING),
    ],
)
def test_content_is_damage_where_it_is_not_what_was_copied_and_else_the_row_has_changed(found, row, verdict):
    judged = judge_content(expected(), found, row)
    assert (judged if isinstance(judged, Means) else judged[0]) == verdict


def policy():
    return RequestPolicy(max_attempts=3, give_up_after=60.0, random=Random(1))


async def nothing():
    await trio.lowlevel.checkpoint()


def forbidden(code="AccessDenied"):
    return Failure(FailureClass.FORBIDDEN, "GET", "refused", http_status=403, code=code)


EXPIRED = Failure(FailureClass.EXPIRED_CREDENTIALS, "GET", "expired", http_status=400, code="ExpiredToken")


class Objects:
    """A bucket whose objects have these bytes, whatever their ETags say; some are refused."""

    def __init__(self, bodies, refused=None):
        self.bodies = bodies
        self.refused = refused or {}

    async def get_digests(self, bucket, key, *, size_max):
        await trio.lowlevel.checkpoint()
        if key in self.refused:
            raise self.refused[key]
        body = self.bodies[key]
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        return ObjectDigests(len(body), md5, hashlib.sha256(body).hexdigest())

    async def refresh_credentials(self):
        await nothing()


class Rows:
    async def digests(self, source, rows, *, with_sha256):
        await nothing()
        return {row.row_key: RowDigest(row.row_key, len(BODY), MD5, SHA) for row in rows}


async def test_bytes_that_rotted_under_an_unchanged_etag_are_found_by_content(autojump_clock):
    bucket = Objects({"p/k1": BODY, "p/k2": b"aS it was copied"})
    tier = ContentTier(bucket, Rows(), policy(), concurrency=4)
    checked = await tier.check(SOURCE, [expected(1), expected(2)])
    assert checked.right == {Means.SHA256: 1}
    assert [(each.kind, each.object_key) for each in checked.findings] == [(FindingKind.DIFFERING, "p/k2")]


async def test_an_archived_object_is_named_as_not_readable_and_no_damage(autojump_clock):
    bucket = Objects({"p/k1": BODY}, {"p/k2": forbidden("InvalidObjectState")})
    checked = await ContentTier(bucket, Rows(), policy(), concurrency=4).check(
        SOURCE, [expected(1), expected(2)]
    )
    [finding] = checked.findings
    assert (finding.kind, finding.detail) == (
        FindingKind.UNREADABLE,
        "in an archive class; restore it to read it",
    )


async def test_where_the_first_objects_are_all_refused_the_right_is_missing(autojump_clock):
    rows = [expected(ordinal) for ordinal in range(1, REFUSED_MAX + 1)]
    looker = Looker(policy(), refresh=nothing, concurrency=3)

    async def refused(_row):
        await nothing()
        raise forbidden()

    with pytest.RaisesGroup(BackfillError):
        await looker.look("blobs", rows, refused)


async def test_once_something_could_be_read_a_refusal_is_one_objects_own(autojump_clock):
    rows = [expected(ordinal) for ordinal in range(1, 3 * REFUSED_MAX)]
    looker = Looker(policy(), refresh=nothing, concurrency=1)

    async def first_only(row):
        await nothing()
        if row.ordinal > 1:
            raise forbidden()
        return "there"

    found = await looker.look("blobs", rows, first_only)
    assert found[1] == "there"
    assert sum(isinstance(answer, Failure) for answer in found.values()) == len(rows) - 1


async def test_what_could_be_read_in_one_bucket_is_no_right_in_another(autojump_clock):
    rows = [expected(ordinal) for ordinal in range(1, REFUSED_MAX + 1)]
    looker = Looker(policy(), refresh=nothing, concurrency=3)

    async def there(_row):
        await nothing()

    async def refused(_row):
        await nothing()
        raise forbidden()

    await looker.look("blobs", rows, there)
    with pytest.RaisesGroup(RefusedError):
        await looker.look("others", rows, refused)


@pytest.mark.parametrize("failure", [forbidden("ExpiredToken"), EXPIRED])
async def test_credentials_that_expire_under_many_requests_are_fetched_once_for_all_of_them(
    autojump_clock, failure
):
    fetched = 0

    async def refresh():
        nonlocal fetched
        await trio.testing.wait_all_tasks_blocked()
        fetched += 1

    async def ask(_row):
        before = fetched
        await nothing()
        if not before:
            raise failure
        return "there"

    looker = Looker(policy(), refresh=refresh, concurrency=5)
    found = await looker.look("blobs", [expected(n) for n in range(1, 9)], ask)
    assert set(found.values()) == {"there"}
    assert fetched == 1


async def test_no_more_objects_are_asked_about_at_once_than_allowed(autojump_clock):
    at_once = most = 0

    async def ask(_row):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await trio.testing.wait_all_tasks_blocked()
        at_once -= 1

    looker = Looker(policy(), refresh=nothing, concurrency=5)
    await looker.look("blobs", [expected(n) for n in range(1, 30)], ask)
    assert most == 5


def test_rows_are_digested_by_so_many_keys_and_bytes_a_statement_and_a_larger_one_alone():
    small = [expected(n, size=1) for n in range(STATEMENT_KEYS_MAX + 1)]
    assert [len(part) for part in split(small)] == [STATEMENT_KEYS_MAX, 1]
    large = [expected(n, size=STATEMENT_BYTES_MAX) for n in range(2)]
    assert [len(part) for part in split([*large, *small[:3]])] == [1, 1, 3]
