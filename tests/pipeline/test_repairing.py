"""Keys whose outcome was revoked after a verification: what is under their object key is not believed."""

from __future__ import annotations

import dataclasses

import pytest

from daemon.errors import ExitCode
from journal.entries import Revocation
from journal.log import Journal
from tests.pipeline.rig import BUCKET, CUTOFF_US, Rig, clock_us
from tests.s3_faults import answers, loses_response

OLD = CUTOFF_US - 1_000_000


def repair(rig: Rig, *ordinals: int) -> None:
    with Journal.open(rig.journal_path, now_us=clock_us()) as journal:
        journal.revoke(ordinals, Revocation.REPAIR, message="found wrong", who="op", now_us=clock_us())


def rot(rig: Rig, key: str) -> None:
    """Let the body go bad at rest: size, ETag and metadata stay as they were."""
    versions = rig.fake.buckets[BUCKET][key]
    body = versions[-1].body
    versions[-1] = dataclasses.replace(versions[-1], body=bytes([body[0] ^ 1]) + body[1:])


async def copied(rig: Rig) -> None:
    """Key "a" is planned first: the newest is."""
    rig.table.insert("a", OLD, b"value")
    rig.table.insert("b", OLD - 1, b"value")
    assert (await rig.session()).exit_code is ExitCode.DONE
    rig.fake.seen.clear()


@pytest.mark.parametrize("conditions", ["atomic", "ignored", "refused"])
async def test_an_object_of_ours_that_only_looks_right_is_overwritten(rig, autojump_clock, conditions):
    rig.fake.conditions = conditions
    await copied(rig)
    rot(rig, "t/a")
    repair(rig, 1)
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert rig.objects() == {"t/a": b"value", "t/b": b"value"}
    assert (rig.counts().stored, rig.counts().recovered) == (2, 0)


async def test_only_the_object_that_was_looked_at_is_overwritten(tmp_path, autojump_clock):
    rig = Rig(tmp_path, upload={"max_attempts": 1})
    await copied(rig)
    rot(rig, "t/a")
    repair(rig, 1)
    rig.fake.script(answers(412, "PreconditionFailed"), times=2, operation="PUT", key="t/a")
    assert (await rig.session()).exit_code is ExitCode.PARKED
    overwrite = [seen for seen in rig.fake.seen if (seen.operation, seen.key) == ("PUT", "t/a")][-1]
    assert overwrite.headers["if-match"] == f'"{rig.fake.stored("t/a").etag}"'
    assert rig.objects()["t/a"] != b"value"


async def test_keys_that_are_not_repaired_are_not_touched(rig, autojump_clock):
    await copied(rig)
    repair(rig, 1)
    await rig.session()
    assert set(rig.requests("PUT")) == {"t/a"}


async def test_an_object_that_is_gone_is_written_again_and_nothing_is_looked_at(rig, autojump_clock):
    await copied(rig)
    del rig.fake.buckets[BUCKET]["t/a"]
    repair(rig, 1)
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert rig.requests("PUT") == ["t/a"]
    assert rig.requests("HEAD") == []
    assert rig.objects()["t/a"] == b"value"


async def test_it_is_still_overwritten_after_a_session_that_died_with_it(rig, autojump_clock):
    await copied(rig)
    rot(rig, "t/a")
    repair(rig, 1)
    with Journal.open(rig.journal_path, now_us=clock_us()) as journal:
        journal.start_session(now_us=clock_us(), facts={})
        claim = journal.claim(1, limit=10, window=10, now_us=clock_us())
        assert claim is not None
        assert [key.row_key for key in claim.keys] == ["a"]
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert rig.objects()["t/a"] == b"value"


async def test_a_lost_answer_to_the_overwrite_costs_one_more_and_ends_stored(rig, autojump_clock):
    await copied(rig)
    rot(rig, "t/a")
    repair(rig, 1)
    rig.fake.script(answers(412, "PreconditionFailed"), operation="PUT", key="t/a")
    rig.fake.script(loses_response(), operation="PUT", key="t/a")
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert rig.objects()["t/a"] == b"value"
    assert rig.counts().stored == 2


async def test_a_foreign_object_is_read_rather_than_believed_by_its_etag(rig, autojump_clock):
    rig.table.insert("a", OLD, b"value")
    rig.fake.place("t/a", b"value")
    await rig.session()
    assert rig.counts().present == 1
    rot(rig, "t/a")
    repair(rig, 1)
    assert (await rig.session()).exit_code is ExitCode.PARKED
    assert [parked["failure"] for parked in rig.events("key_parked")] == ["foreign_object"]
    assert rig.objects()["t/a"] != b"value"


async def test_a_foreign_object_that_holds_the_row_is_present_again(rig, autojump_clock):
    rig.table.insert("a", OLD, b"value")
    rig.fake.place("t/a", b"value")
    await rig.session()
    repair(rig, 1)
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert rig.counts().present == 1
    assert rig.requests("GET") == ["t/a"]


async def test_a_foreign_object_in_place_of_ours_is_never_skipped(tmp_path, autojump_clock):
    rig = Rig(tmp_path, s3={"existing": "skip"})
    await copied(rig)
    rig.fake.place("t/a", b"walue")
    repair(rig, 1)
    assert (await rig.session()).exit_code is ExitCode.PARKED
    assert (rig.counts().skipped, rig.counts().parked) == (0, 1)
    assert rig.objects()["t/a"] == b"walue"


async def test_a_foreign_object_in_place_of_ours_is_replaced_where_that_is_allowed(tmp_path, autojump_clock):
    rig = Rig(tmp_path, s3={"existing": "overwrite"})
    await copied(rig)
    rig.fake.place("t/a", b"walue")
    repair(rig, 1)
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert rig.objects()["t/a"] == b"value"
