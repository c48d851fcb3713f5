from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from daemon.demo.seaweed import signed_request
from daemon.errors import ExitCode
from journal.checkpoint import Order
from journal.entries import PlannedRow, Settled
from journal.lifecycle import Outcome
from journal.log import Journal
from journal.reader import Reader
from tests.s3_servers import BUCKET

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Invoke
    from .migrations import Migration

NOW_US = 1_768_500_000_000_000
MD5 = "d" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Rows `abcdef` and `zz` of tiered source cas, and row `cas/ab/cd/ef/abcdef` of flat source files."""
    path = tmp_path / "journal.db"
    with Journal.create(
        path, name="blobs", cutoff_us=NOW_US, order=Order.OLDEST_FIRST, now_us=NOW_US
    ) as journal:
        journal.start_session(now_us=NOW_US, facts={"pid": 1})
        for name, prefix, layout, keys in (
            ("cas", "cas/", "tiered", ["abcdef", "zz"]),
            ("files", "", "flat", ["cas/ab/cd/ef/abcdef"]),
        ):
            identity = {
                "table": f"public.{name}",
                "key": ["id"],
                "bucket": name,
                "prefix": prefix,
                "layout": layout,
                "reverse_key": False,
            }
            source = journal.add_source(name, identity, now_us=NOW_US)
            journal.begin_pass(source, kind="sweep", now_us=NOW_US)
            journal.seal_chunk(
                source, [PlannedRow(key, number, 5) for number, key in enumerate(keys)], now_us=NOW_US
            )
            journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
            claim = journal.claim(source, limit=9, window=10, now_us=NOW_US)
            assert claim is not None
            journal.record(
                [Settled(key.ordinal, Outcome.STORED, 5, MD5) for key in claim.keys], now_us=NOW_US
            )
    return path


def test_a_row_is_found_by_its_object_key_with_and_without_the_bucket(invoke: Invoke, path: Path) -> None:
    for name in ("cas/zz/zz", "s3://cas/cas/zz/zz"):
        result = invoke("explain", name, "--journal", path)
        assert result.exit_code == 0
        assert result.output.startswith(f"{name} as an object key:\n\nkey zz of source cas: stored\n")
        assert "its object is s3://cas/cas/zz/zz\n" in result.output


def test_text_that_is_a_row_key_and_another_rows_object_key_is_shown_as_both(
    invoke: Invoke, path: Path
) -> None:
    name = "cas/ab/cd/ef/abcdef"
    text = invoke("explain", name, "--journal", path).output
    as_row, as_object = text.split(f"{name} as an object key:")
    assert as_row.startswith(f"{name} is a row key, and the object key of another row; as a row key:\n")
    assert f"key {name} of source files: stored" in as_row
    assert "key abcdef of source cas: stored" in as_object
    document = json.loads(invoke("explain", name, "--journal", path, "--json").output)
    assert [
        (plan["found_by"], plan["row_key"], plan["bucket"], plan["object_key"]) for plan in document["plans"]
    ] == [("row_key", name, "files", name), ("object_key", "abcdef", "cas", name)]


def test_a_row_key_that_is_its_own_object_key_is_shown_once(invoke: Invoke, path: Path) -> None:
    text = invoke("explain", "s3://files/cas/ab/cd/ef/abcdef", "--journal", path).output
    assert text.count("of source") == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("zzz", "no source has planned a row with this key"),
        ("s3://dogs/cas/zz/zz", "no source writes to bucket dogs; they write to cas, files"),
        ("s3://cas/dogs/zz", 'their prefixes are "cas/"'),
        ("s3://cas/cas/zz", "the layout of source cas gives no row this object key"),
        ("s3://cas/cas/yy/yy", 'the object key of row "yy" of source cas, which was never planned'),
    ],
)
def test_a_name_that_is_not_found_is_told_with_what_it_could_have_been(
    invoke: Invoke, path: Path, name: str, why: str
) -> None:
    result = invoke("explain", name, "--journal", path)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert why in result.stderr


def test_a_life_says_whether_a_verification_has_found_the_object_right(invoke: Invoke, path: Path) -> None:
    assert (
        "no verification has found its object right since"
        in invoke("explain", "zz", "--journal", path).output
    )
    with Journal.open(path, now_us=NOW_US) as journal:
        with Reader.open(path) as reader:
            until = reader.head_seq()
        started = {"tier": "list", "until_seq": until, "sources": None, "sample": None}
        journal.note("verification_started", started, now_us=NOW_US)
        run = until + 1
        journal.note(
            "verification_finished",
            {**started, "run": run, "exit_code": 0},
            now_us=NOW_US,
        )
    text = invoke("explain", "zz", "--journal", path).output
    assert "  verified by list: found right among all keys\n" in text
    assert "no verification" not in text


def test_a_verification_of_real_objects_is_part_of_the_life_of_each_key(migration: Migration) -> None:
    assert migration("run").returncode == 0
    gone = f"{migration.prefix}7"
    status, _ = signed_request(
        migration.server.port,
        "DELETE",
        f"/{BUCKET}/{gone}",
        access_key=migration.server.access_key,
        secret_key=migration.server.secret_key,
    )
    assert status == 204
    assert migration("verify --tier list").returncode == ExitCode.MISMATCH
    lost = migration(f"explain s3://{BUCKET}/{gone}").stdout
    assert f"its object is s3://{BUCKET}/{gone}\n" in lost
    assert "verification by list: missing" in lost
    assert "no verification has found its object right since" in lost
    assert "verified by" not in lost
    right = migration("explain 8").stdout
    assert "verified by list: found right among all keys" in right
    assert "no verification" not in right
