from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

import daemon
from daemon.rendering import status_json
from tests.rendering.courses import COURSES
from tests.rendering.golden_files import assert_golden
from tests.rendering.statuses import ALL, HOSTILE_KEY, NOW_US

SCHEMA = Path(daemon.__file__).with_name("status.schema.json")
EVERY = {**ALL, **COURSES}


def document(name):
    return json.loads(
        json.dumps(status_json(EVERY[name], now_us=NOW_US), ensure_ascii=False, allow_nan=False)
    )


def fields(value, path=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield path, key, inner
            yield from fields(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from fields(inner, path)


@pytest.mark.parametrize("name", ["running", "complete_mismatch", "fresh", "going", "paused", "throttled"])
def test_the_document_is_the_one_that_programs_rely_on(name):
    text = json.dumps(document(name), ensure_ascii=True, indent=1, sort_keys=True)
    assert_golden(f"status_{name}.json", text)


@pytest.mark.parametrize("name", EVERY)
def test_times_spans_and_sizes_are_integers_or_null(name):
    for _, key, value in fields(document(name)):
        if re.search(r"_(us|seconds|bytes|rows)$", key):
            assert value is None or type(value) is int


def test_every_field_is_documented():
    told = status_json.__doc__
    found = {
        key
        for name in EVERY
        for path, key, _ in fields(document(name))
        if not re.search(r"\.(identity|facts|excluded|probe|overrides|data)$", path)
    }
    assert [key for key in sorted(found) if f"`{key}`" not in told] == []


def closed(schema):
    """The schema, refusing what it does not name: what is not in it is not documented."""
    if isinstance(schema, dict):
        inner = {key: closed(value) for key, value in schema.items()}
        return {**inner, "additionalProperties": False} if "properties" in schema else inner
    return [closed(value) for value in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_the_shipped_schema_names_every_field_and_its_type(name, past):
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    found = status_json(EVERY[name], now_us=NOW_US, past=past)
    jsonschema.validate(json.loads(json.dumps(found)), closed(schema))


def test_an_earlier_moment_is_named_and_gives_no_advice():
    found = status_json(COURSES["paused"], now_us=NOW_US, past=True)
    assert (found["as_of_us"], found["next_steps"]) == (NOW_US, [])
    assert document("paused")["as_of_us"] is None
    assert document("paused")["next_steps"] != []


def test_keys_are_not_escaped_for_programs():
    assert document("running")["sources"][0]["checkpoint"]["position"]["row_key"] == HOSTILE_KEY
