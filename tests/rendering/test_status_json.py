from __future__ import annotations

import json
import re

import pytest

from daemon.rendering import status_json
from tests.rendering.golden_files import assert_golden
from tests.rendering.statuses import ALL, HOSTILE_KEY, NOW_US


def document(name):
    return json.loads(json.dumps(status_json(ALL[name], now_us=NOW_US), ensure_ascii=False, allow_nan=False))


def fields(value, path=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield path, key, inner
            yield from fields(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from fields(inner, path)


@pytest.mark.parametrize("name", ["running", "complete_mismatch", "fresh"])
def test_the_document_is_the_one_that_programs_rely_on(name):
    text = json.dumps(document(name), ensure_ascii=True, indent=1, sort_keys=True)
    assert_golden(f"status_{name}.json", text)


@pytest.mark.parametrize("name", ALL)
def test_times_spans_and_sizes_are_integers_or_null(name):
    for _, key, value in fields(document(name)):
        if re.search(r"_(us|seconds|bytes|rows)$", key):
            assert value is None or type(value) is int


def test_every_field_is_documented():
    told = status_json.__doc__
    found = {
        key
        for path, key, _ in fields(document("running"))
        if not re.search(r"\.(identity|facts|excluded|probe)$", path)
    }
    assert [key for key in sorted(found) if f"`{key}`" not in told] == []


def test_keys_are_not_escaped_for_programs():
    assert document("running")["sources"][0]["checkpoint"]["position"]["row_key"] == HOSTILE_KEY
