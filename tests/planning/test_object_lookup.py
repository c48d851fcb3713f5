from __future__ import annotations

import pytest
from hypothesis import given

from daemon.layouts import object_key, recorded_layout
from daemon.object_lookup import ObjectName, object_name, rows_of_object, unnamed
from journal.entries import SourceRecord
from tests.planning.test_layouts import COMPOSITE, SINGLE


def source(name: str, *, bucket: str = "blobs", prefix: str = "", layout: str = "flat") -> SourceRecord:
    identity = {"bucket": bucket, "prefix": prefix, "layout": layout, "reverse_key": False, "key": ["id"]}
    return SourceRecord(len(name), name, identity)


CAS = source("cas", prefix="cas/", layout="tiered")
FILES = source("files", bucket="files")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cas/ab", ObjectName(None, "cas/ab")),
        ("s3://blobs/cas/ab", ObjectName("blobs", "cas/ab")),
        ("s3://blobs", ObjectName(None, "s3://blobs")),
        ("s3:///ab", ObjectName(None, "s3:///ab")),
    ],
)
def test_a_bucket_is_named_as_the_aws_cli_names_it(text: str, name: ObjectName) -> None:
    assert object_name(text) == name


@given(SINGLE | COMPOSITE)
def test_the_object_of_any_row_leads_back_to_it_by_the_layout_on_record(case: object) -> None:
    layout, row_key = case  # type: ignore[misc] -- a strategy of pairs
    identity = {
        "prefix": layout.prefix,
        "layout": layout.kind,
        "reverse_key": layout.reverse,
        "key": ["a", "b"] if layout.composite else ["a"],
    }
    assert recorded_layout(identity) == layout
    record = SourceRecord(1, "s", identity)
    assert rows_of_object(ObjectName(None, object_key(layout, row_key)), [record]) == [(record, row_key)]


def test_a_bucket_that_is_named_leaves_out_sources_that_write_elsewhere() -> None:
    assert rows_of_object(ObjectName("files", "cas/ab/cd/abcd"), [CAS, FILES]) == [(FILES, "cas/ab/cd/abcd")]
    assert rows_of_object(ObjectName(None, "cas/ab/cd/abcd"), [CAS, FILES]) == [
        (CAS, "abcd"),
        (FILES, "cas/ab/cd/abcd"),
    ]


def test_a_source_whose_layout_is_not_on_record_names_nothing() -> None:
    assert rows_of_object(ObjectName(None, "ab"), [SourceRecord(1, "old", {"table": "t"})]) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (ObjectName("other", "cas/ab"), "no source writes to bucket other; they write to blobs, files"),
        (ObjectName("blobs", "dog/ab"), 'no source gives an object this key; their prefixes are "cas/"'),
        (ObjectName("blobs", "cas/xx/cd/abcd"), "the layout of source cas gives no row this object key"),
    ],
)
def test_a_name_that_no_source_gives_is_told_with_what_they_give(name: ObjectName, why: str) -> None:
    assert rows_of_object(name, [CAS, FILES]) == []
    assert unnamed(name, [CAS, FILES]) == why
