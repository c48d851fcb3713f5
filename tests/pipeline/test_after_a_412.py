"""An object is there already: every branch, through a whole session."""

from __future__ import annotations

import hashlib

import httpx
import pytest

from daemon.errors import ExitCode
from tests.pipeline.rig import CUTOFF_US, Rig
from tests.s3_faults import answers, loses_response

OLD = CUTOFF_US - 1_000_000


def md5(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


async def test_an_equal_foreign_object_is_present(rig, autojump_clock):
    rig.table.insert("a", OLD, b"value")
    rig.fake.place("t/a", b"value")
    ended = await rig.session()
    assert ended.exit_code is ExitCode.DONE
    assert rig.counts().present == 1
    assert rig.requests("PUT") == ["t/a"]


async def test_a_differing_foreign_object_is_parked_as_a_conflict_and_left_alone(rig, autojump_clock):
    rig.table.insert("a", OLD, b"value")
    rig.fake.place("t/a", b"valuX")
    ended = await rig.session()
    assert ended.exit_code is ExitCode.PARKED
    assert [parked["failure"] for parked in rig.events("key_parked")] == ["foreign_object"]
    assert rig.objects()["t/a"] == b"valuX"


async def test_a_truncated_foreign_object_is_a_conflict(rig, autojump_clock):
    rig.table.insert("a", OLD, b"value")
    rig.fake.place("t/a", b"val")
    await rig.session()
    assert rig.counts().parked == 1


async def test_a_foreign_object_without_a_comparable_digest_is_read_and_compared(tmp_path, autojump_clock):
    rig = Rig(tmp_path)
    rig.table.insert("a", OLD, b"same size 1")
    rig.table.insert("b", OLD, b"same size 2")
    for key in "ab":
        rig.fake.place(f"t/{key}", b"same size 1", x_amz_server_side_encryption="aws:kms")
    await rig.session()
    assert sorted(rig.requests("GET")) == ["t/a", "t/b"]
    assert (rig.counts().present, rig.counts().parked) == (1, 1)


async def test_overwrite_replaces_a_differing_foreign_object(tmp_path, autojump_clock):
    rig = Rig(tmp_path, s3={"existing": "overwrite"})
    rig.table.insert("a", OLD, b"value")
    rig.fake.place("t/a", b"valuX")
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert rig.objects()["t/a"] == b"value"
    assert rig.counts().stored == 1


async def test_overwrite_never_replaces_an_object_that_changed_since_it_was_looked_at(
    tmp_path, autojump_clock
):
    rig = Rig(tmp_path, s3={"existing": "overwrite"}, upload={"max_attempts": 1})
    rig.table.insert("a", OLD, b"value")
    rig.fake.place("t/a", b"valuX")
    rig.fake.script(answers(412, "PreconditionFailed"), times=2, operation="PUT", key="t/a")
    await rig.session()
    assert rig.objects()["t/a"] == b"valuX"
    assert rig.counts().parked == 1


async def test_skip_says_skipped_and_never_present(tmp_path, autojump_clock):
    rig = Rig(tmp_path, s3={"existing": "skip"})
    rig.table.insert("a", OLD, b"value")
    rig.fake.place("t/a", b"valuX")
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert (rig.counts().skipped, rig.counts().present) == (1, 0)


async def test_a_lost_response_is_found_to_have_been_ours(rig, autojump_clock):
    rig.table.insert("a", OLD, b"value")
    rig.fake.script(loses_response(), operation="PUT", key="t/a")
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert rig.counts().recovered == 1
    assert rig.fake.puts_taken["bucket", "t/a"] == 1


async def test_an_object_of_ours_with_other_bytes_is_overwritten(rig, autojump_clock):
    """The row changed between the lost answer of a dead session and its second life."""
    rig.table.insert("a", OLD, b"before")
    await rig.session()
    stored = rig.fake.stored("t/a")
    rig.journal_path.unlink()
    rig.table.update("a", value=b"after!")
    await rig.session()
    # Another journal is another migration: the first one's object is foreign to it.
    assert rig.counts().parked == 1
    assert rig.objects()["t/a"] == stored.body


async def test_a_changed_row_overwrites_what_the_same_migration_stored_before(rig, autojump_clock):
    rig.table.insert("a", OLD, b"before")
    rig.fake.script(loses_response(), operation="PUT", key="t/a")

    def change(name: str) -> None:
        if name == "snapshot":
            rig.table.update("a", value=b"longer than before")

    rig.database.on_statement = change
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert rig.objects()["t/a"] == b"longer than before"
    assert rig.counts().planned_rows == 2


async def test_409_is_tried_again(rig, autojump_clock):
    rig.table.insert("a", OLD, b"value")
    rig.fake.script(answers(409, "ConditionalRequestConflict"), times=3, operation="PUT", key="t/a")
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert rig.counts().stored == 1


async def test_an_object_that_went_away_between_412_and_head_is_written(rig, autojump_clock):
    rig.table.insert("a", OLD, b"value")
    rig.fake.script(answers(412, "PreconditionFailed"), operation="PUT", key="t/a")
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert rig.objects()["t/a"] == b"value"


async def test_a_head_that_is_forbidden_parks_its_key_and_nothing_else(rig, autojump_clock):
    rig.table.insert("a", OLD, b"value")
    rig.table.insert("b", OLD, b"other")
    rig.fake.place("t/a", b"value")
    rig.fake.denied.add("HEAD")
    assert (await rig.session()).exit_code is ExitCode.PARKED
    (parked,) = rig.events("key_parked")
    assert "cannot compare" in parked["message"]
    assert rig.counts().stored == 1


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
async def test_without_conditional_puts_a_head_comes_before_each_put(rig, autojump_clock, conditions):
    rig.fake.conditions = conditions
    rig.table.insert("a", OLD, b"value")
    rig.table.insert("b", OLD, b"other")
    rig.fake.place("t/b", b"OTHER")
    assert (await rig.session()).exit_code is ExitCode.PARKED
    assert sorted(rig.requests("HEAD")) == ["t/a", "t/b"]
    assert rig.requests("PUT") == ["t/a"]
    assert rig.objects() == {"t/a": b"value", "t/b": b"OTHER"}


async def test_a_wrong_etag_is_never_recorded_as_stored(rig, autojump_clock):
    rig.table.insert("a", OLD, b"value")
    rig.fake.script(answers(200, etag='"' + md5(b"other") + '"'), operation="PUT", key="t/a")
    await rig.session()
    assert [attempt["failure"] for attempt in rig.events("attempt_failed")] == ["corrupted"]
    assert rig.objects()["t/a"] == b"value"


async def test_silence_of_the_endpoint_does_not_use_up_attempts(tmp_path, autojump_clock):
    rig = Rig(tmp_path, upload={"max_attempts": 2})
    rig.table.insert("a", OLD, b"value")
    rig.fake.script(type(loses_response())(error=httpx.ConnectError), times=20, operation="PUT", key="t/a")
    assert (await rig.session()).exit_code is ExitCode.DONE
