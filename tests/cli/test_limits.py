"""`run` with limits of its own: exit code 8, on the record, resumable; wrong limits are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daemon.errors import ExitCode
from tests.cli.conftest import SMALLEST, Invoke
from tests.cli.migrations import Migration


def causes(migration: Migration) -> list[str]:
    lines = migration("events --kind drain_requested --json").stdout.splitlines()
    return [json.loads(line)["data"]["cause"] for line in lines]


def test_a_run_with_a_limit_exits_8_and_the_same_command_resumes(inside: Migration) -> None:
    for copied in (8, 16):
        done = inside("run --limit 8")
        assert done.returncode == ExitCode.STOPPED
        assert inside.listing().count("<Key>") == copied
        assert "WARNING drained on limit = 8 with work left" in done.stderr.splitlines()[-1]
    assert causes(inside) == ["limit = 8", "limit = 8"]
    assert inside("run --limit 8").returncode == 0
    assert inside.listing().count("<Key>") == 20


def test_the_limits_section_is_the_same(inside: Migration) -> None:
    inside.sections["upload"] = '[limits]\nmax_bytes = "10B"'
    done = inside("run")
    assert done.returncode == ExitCode.STOPPED
    assert "max_bytes = 10 with work left" in done.stderr.splitlines()[-1]


def test_a_run_whose_time_is_over_at_the_start_exits_8(migration: Migration) -> None:
    migration.changes = {"endpoint": "http://127.0.0.1:1"}
    done = migration("run --max-duration 1s")
    assert done.returncode == ExitCode.STOPPED
    assert "stopped on max_duration = 1s" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--limit", "0"], "(from --limit): found 0; expected a whole number from 1"),
        (["--limit", "many"], '(from --limit): found "many"'),
        (["--max-bytes", "10 apples"], "(from --max-bytes)"),
        (["--max-bytes", "0"], 'expected a size from "1B"'),
        (["--max-duration", "soon"], "(from --max-duration)"),
    ],
)
def test_a_limit_that_is_none_is_refused(
    invoke: Invoke, write_config: Any, flags: list[str], named: str
) -> None:
    result = invoke("run", "-c", write_config(SMALLEST), *flags)
    assert result.exit_code == ExitCode.USAGE
    assert named in result.stderr
