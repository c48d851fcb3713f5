"""What becomes a row, and what is there already, as decisions over plain values."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import SourceConfig
from daemon.objects import ObjectFacts
from daemon.restore_queries import Column, RestoredRow, problems_of
from daemon.restoring import batches, compare, filled, row_of
from daemon.row_queries import Relation
from daemon.rows import FetchedRow
from daemon.uploader import metadata_headers
from journal.histories import ExpectedObject
from journal.lifecycle import Outcome

SPEC = SourceConfig(
    name="a",
    schema_name="public",
    table_name="a",
    bucket="blobs",
    key=("id",),
    created_at="at",
    value="data",
    metadata=("Note", "n"),
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


def md5(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


def row(key: str = "k", body: bytes = b"abc", created_at: str | None = None) -> RestoredRow:
    return RestoredRow(1, key, len(body), md5(body), created_at=created_at)


@given(note=st.none() | TEXT, n=st.none() | TEXT, at=st.none() | st.just("0044-03-15 00:00:00+00 BC"))
def test_what_the_uploader_tells_of_a_row_is_read_back_as_it_was(note, n, at):
    told = {name: text for name, text in (("Note", note), ("n", n)) if text is not None}
    headers = metadata_headers(
        FetchedRow("k", 3, b"abc", at, told), md5_hex=md5(b"abc"), migration_id="m/1", content_type="x/y"
    )
    found = ObjectFacts(
        3, "e", metadata={k.removeprefix("x-amz-meta-"): v for k, v in headers.items() if "meta" in k}
    )
    whole = filled(row(created_at="planned"), SPEC, found, b"abc")
    assert (whole.value, whole.created_at, dict(whole.metadata)) == (b"abc", at, told)


@pytest.mark.parametrize("body", [b"abcd", b"ab", b"abd", b""])
def test_bytes_that_are_not_those_on_record_become_no_row(body):
    with pytest.raises(ValueError, match="expected"):
        filled(row(), SPEC, ObjectFacts(len(body), "e"), body)


def test_somebody_elses_object_gives_its_bytes_and_the_planned_time_alone():
    recorded = ExpectedObject(1, 1, "k", 0, 3, md5(b"abc"), None, Outcome.PRESENT)
    whole = filled(row_of(recorded), SPEC, ObjectFacts(3, "e", metadata={"created-at": "x"}), b"abc")
    assert (whole.created_at, whole.metadata) == ("1970-01-01T00:00:00.000000Z", ())


def test_a_row_is_equal_only_if_it_is_there_once_with_size_and_md5():
    rows = [row(key) for key in "abcde"]
    right, wrong = (3, md5(b"abc")), (3, md5(b"abd"))
    found = [(0, *right), (1, *wrong), (2, None, None), (4, *right), (4, *right)]
    result = compare(rows, found)
    assert [one.row_key for one in result.equal] == ["a"]
    assert [one.row_key for one in result.different] == ["b", "c", "e"]
    assert [one.row_key for one in result.missing] == ["d"]


@given(st.lists(st.integers(0, 30), max_size=40))
def test_batches_hold_every_row_once_within_both_bounds(sizes):
    rows = [RestoredRow(n, str(n), size, "") for n, size in enumerate(sizes)]
    found = list(batches(rows, rows_max=4, bytes_max=20))
    assert [one for batch in found for one in batch] == rows
    assert all(len(batch) <= 4 for batch in found)
    assert all(sum(one.size for one in batch) <= 20 or len(batch) == 1 for batch in found)


def column(name: str, **changes: bool) -> Column:
    facts = {"demanded": False, "generated": False, "writable": True} | changes
    return Column(name, "text", facts["demanded"], facts["generated"], facts["writable"])


def test_a_generated_metadata_column_is_left_to_the_server_and_a_generated_key_is_refused():
    table = Relation("public", "b")
    fine = [column("id"), column("at"), column("data"), column("Note", generated=True, writable=False)]
    assert problems_of(SPEC, table, [*fine, column("n")], "r") == []
    (problem,) = problems_of(SPEC, table, [column("id", generated=True), *fine[1:], column("n")], "r")
    assert "is generated" in problem
