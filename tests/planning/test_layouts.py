from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.layouts import (
    OBJECT_KEY_BYTES_MAX,
    Layout,
    object_key,
    row_key_of,
    suspect_row_keys_longer_than,
    unusable_reason,
)

TIERED = Layout(kind="tiered")
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
LAYOUTS = st.builds(
    Layout,
    prefix=st.sampled_from(["", "attachments/", "é/"]),
    kind=st.sampled_from(["flat", "tiered"]),
    reverse=st.booleans(),
)
SINGLE = st.tuples(LAYOUTS, TEXTS)
COMPOSITE = st.tuples(
    LAYOUTS.map(lambda plain: Layout(plain.prefix, plain.kind, plain.reverse, composite=True)),
    st.lists(TEXTS, min_size=2, max_size=4).map(
        lambda parts: json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    ),
)


@pytest.mark.parametrize(
    ("row_key", "expected"),
    [
        ("abc123def456", "ab/c1/23/abc123def456"),
        ("abc123", "ab/c1/23/abc123"),
        ("abc12", "ab/c1/abc12"),
        ("abc1", "ab/c1/abc1"),
        ("abc", "ab/abc"),
        ("ab", "ab/ab"),
        ("a", "a"),
    ],
)
def test_tiered_layout_matches_the_layer_caches_own(row_key: str, expected: str) -> None:
    assert object_key(TIERED, row_key) == expected


def test_tiers_are_cut_by_characters_not_bytes() -> None:
    assert object_key(TIERED, "日本語キー値x") == "日本/語キ/ー値/日本語キー値x"


@pytest.mark.parametrize(("row_key", "expected"), [("a/b/cd", "a_/b_/cd/a/b/cd"), ("..ab", "__/ab/..ab")])
def test_tiers_add_no_segment_that_a_server_would_merge(row_key: str, expected: str) -> None:
    assert object_key(TIERED, row_key) == expected


def test_reversed_key_is_spelled_backwards_under_its_prefix() -> None:
    assert object_key(Layout("p/", reverse=True), "1024") == "p/4201"


def test_parts_of_a_composite_key_are_encoded_and_joined_by_slashes() -> None:
    assert object_key(Layout(composite=True), '["a/b", "..", "é%"]') == "a%2Fb/%2E%2E/%C3%A9%25"


def test_a_reversed_composite_key_keeps_its_encoding_readable() -> None:
    assert object_key(Layout(reverse=True, composite=True), '["12", "3é"]') == "%C3%A93/21"


@given(st.one_of(SINGLE, COMPOSITE))
@example((TIERED, ""))
@example((TIERED, "日本"))
def test_layouts_are_invertible(case: tuple[Layout, str]) -> None:
    layout, row_key = case
    assert row_key_of(layout, object_key(layout, row_key)) == row_key


@given(LAYOUTS, st.text("ab/.", max_size=9), st.text("ab/.", max_size=9))
def test_layouts_are_injective(layout: Layout, one: str, other: str) -> None:
    assert (object_key(layout, one) == object_key(layout, other)) == (one == other)


@given(
    LAYOUTS,
    st.lists(st.text("a/.%", max_size=3), min_size=2, max_size=2),
    st.lists(st.text("a/.%", max_size=3), min_size=2, max_size=2),
)
def test_composite_layouts_are_injective(plain: Layout, one: list[str], other: list[str]) -> None:
    layout = Layout(plain.prefix, plain.kind, plain.reverse, composite=True)
    assert (object_key(layout, json.dumps(one)) == object_key(layout, json.dumps(other))) == (one == other)


@pytest.mark.parametrize(
    ("layout", "key"),
    [
        (Layout("p/"), "q/abc"),
        (TIERED, "ab/c1/24/abc123"),
        (TIERED, "abc123"),
        (TIERED, "abcdefg"),
        (Layout(composite=True), "a%2fb/c"),
        (Layout(composite=True), "a%/c"),
        (Layout(composite=True), "%FF/c"),
    ],
)
def test_an_object_key_of_no_row_is_refused(layout: Layout, key: str) -> None:
    with pytest.raises(ValueError):
        row_key_of(layout, key)


def test_a_composite_layout_refuses_a_key_that_is_no_array_of_texts() -> None:
    with pytest.raises(ValueError, match="expected a JSON array of texts"):
        object_key(Layout(composite=True), "[1, null]")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "is empty"),
        ("x" * (OBJECT_KEY_BYTES_MAX + 1), "longer than 1024 bytes"),
        ("é" * 513, "longer than 1024 bytes"),
        ("/a", "begins with '/'"),
        ("a/", "ends with '/'"),
        ("a//b", "contains '//'"),
        ("a/./b", "segment '.'"),
        ("../a", "segment '..'"),
        ("a/..", "segment '..'"),
        (".", "segment '.'"),
        (".backfill-probe", "reserved for the probe"),
        ("a/.backfill-probe", "reserved for the probe"),
        ("a-.backfill-probe", "reserved for the probe"),
        ("a\\b", "backslash"),
        ("a\rb", "control character"),
        ("a\n", "control character"),
        ("a\x00b", "control character"),
        ("a\x7fb", "control character"),
        ("a\x85b", "control character"),
    ],
)
def test_unusable_keys_are_named_with_their_reason(key: str, reason: str) -> None:
    assert reason in (unusable_reason(key) or "")


@pytest.mark.parametrize(
    "key", ["a", "é" * 512, "a.b/..c/.d", "...", "a b+c%~", "日本/語", "x" * 1024, ".backfill-probe/a"]
)
def test_odd_but_usable_keys_pass(key: str) -> None:
    assert unusable_reason(key) is None


@given(st.one_of(SINGLE, COMPOSITE), st.integers(0, 600))
def test_no_key_within_the_suspect_length_becomes_too_long(case: tuple[Layout, str], repeat: int) -> None:
    layout, row_key = case
    if not layout.composite:
        row_key = row_key * repeat
    if len(row_key.encode()) <= suspect_row_keys_longer_than(layout):
        assert len(object_key(layout, row_key).encode()) <= OBJECT_KEY_BYTES_MAX
