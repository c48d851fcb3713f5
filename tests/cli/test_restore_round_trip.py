"""Copy and restore are inverse: what comes back equals what was copied, for every shape of table."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from daemon.errors import ExitCode
from tests.cli.migrations import Migration
from tests.s3_servers import fresh_prefix

SERIAL = itertools.count()
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
BYTES = st.one_of(st.just(b""), st.binary(max_size=40))
INSTANT = st.one_of(
    st.sampled_from(["infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "9999-12-31 23:59:59.999999+00"]),
    st.datetimes().map(lambda moment: f"{moment.isoformat(timespec='microseconds')}+00"),
)


@dataclass(frozen=True)
class Shape:
    """A table and how it is copied; `columns` in the order of the generated values."""

    columns: dict[str, str]
    values: dict[str, st.SearchStrategy]
    key: str
    settings: str
    metadata: str = "[]"
    excluded: str = ""


SHAPES = {
    "bytea key, text value, instants": Shape(
        {"id": "bytea", "at": "timestamptz", "data": "text", "note": "text", "n": "numeric", "f": "float8"},
        {
            "id": st.binary(min_size=1, max_size=20).map(lambda key: "\\x" + key.hex()),
            "at": st.one_of(st.none(), INSTANT.filter(lambda text: text != "infinity")),
            "data": TEXT,
            "note": st.one_of(st.none(), TEXT.filter(bool)),
            "n": st.one_of(st.none(), st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str)),
            "f": st.one_of(st.none(), st.floats(allow_nan=False).map(repr)),
        },
        '"id"',
        'null_created_at = "include"',
        '["note", "n", "f"]',
    ),
    "composite key, bytea value, dates of a zone": Shape(
        {"id": "text", "part": "int", "at": "date", "data": "bytea", "doc": "jsonb"},
        {
            "id": TEXT.filter(bool),
            "part": st.integers(-(2**31), 2**31 - 1).map(str),
            "at": st.dates().map(str),
            "data": st.one_of(st.none(), BYTES.map(lambda value: "\\x" + value.hex())),
            "doc": st.one_of(
                st.none(), st.dictionaries(TEXT.filter(bool), st.integers(), max_size=3).map(json.dumps)
            ),
        },
        '["id", "part"]',
        'created_at_zone = "Europe/Berlin"\nnull_value = "exclude"',
        '["doc"]',
        excluded=" where data is not null",
    ),
    "uuid key, varchar value, timestamps of a zone": Shape(
        {"id": "uuid", "at": "timestamp", "data": "varchar(40)"},
        {
            "id": st.uuids().map(str),
            # Not in the hour that no clock of the zone shows: PostgreSQL reads it as another.
            "at": st.datetimes().filter(lambda moment: moment.hour != 2).map(str),
            "data": TEXT,
        },
        '"id"',
        'created_at_zone = "America/New_York"',
    ),
}


def literal(value: str | None) -> str:
    return "null" if value is None else "'" + value.replace("'", "''") + "'"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@given(data=st.data())
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_what_was_copied_comes_back_equal_in_both_directions(inside: Migration, shape: Shape, data):
    rows = data.draw(
        st.lists(
            st.tuples(*shape.values.values()),
            min_size=1,
            max_size=12,
            unique_by=lambda row: tuple(row[: shape.key.count('"') // 2]),
        )
    )
    name = f"t{next(SERIAL)}"
    columns = ", ".join(f"{column} {kind}" for column, kind in shape.columns.items())
    values = ", ".join(f"({', '.join(map(literal, row))})" for row in rows)
    key = shape.key.strip("[]")
    inside.database.sql(
        f"create table {name} ({columns}, primary key ({key})); insert into {name} values {values};"
        f" analyze {name}; create table {name}_back (like {name} including all)"
    )
    inside.prefix = fresh_prefix()
    inside.changes |= {
        "journal": f"{name}.db",
        "table": f"public.{name}",
        "metadata": shape.metadata,
    }
    inside.sections |= {"source": shape.settings, "migration": 'cutoff = "2020-01-01T00:00:00Z"'}
    config = inside.config()
    config.write_text(config.read_text().replace('key = "id"', f"key = {shape.key}"))
    inside.config = lambda: config
    try:
        done = inside("run", "--allow-seqscan")
        assert done.returncode == ExitCode.DONE, done.stderr
        done = inside("restore", "--all", "--into", f"public.{name}_back", "--yes")
        assert done.returncode == ExitCode.DONE, done.stdout + done.stderr
    finally:
        del inside.config
    scope = "at < '2020-01-01' or at is null"
    wanted = f"select * from (select * from {name} where {scope}) s{shape.excluded}"
    assert inside.database.sql(f"select * from {name}_back except ({wanted})") == ""
    assert inside.database.sql(f"{wanted} except select * from {name}_back") == ""
