"""The source and its documents, held against each other and against the house rules."""

from __future__ import annotations

import logging
import re
import tokenize
from pathlib import Path

import pytest

from daemon.cli import cli
from daemon.errors import ExitCode
from daemon.log_events import LogEvent

ROOT = Path(__file__).parent.parent
PRODUCT = sorted([*ROOT.glob("daemon/**/*.py"), *ROOT.glob("journal/**/*.py")])
EVERYTHING = sorted([*PRODUCT, *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES_MAX = 400
SLEEPING = {
    "tests/transport",
    "tests/pipeline",
    "tests/simulation",
    "tests/rendering",
    "tests/planning",
    "tests/bucket",
    "tests/throttle",
    "tests/metrics",
}
"""Folders whose tests run on a virtual clock; a sleep there costs nothing and is exact."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_no_module_is_too_long_to_be_read_in_one_go(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_MAX


def test_no_module_is_called_manager_helper_util_or_misc():
    banned = re.compile(r"manager|helper|utils?$|misc|common$")
    assert [name_of(path) for path in EVERYTHING if banned.search(path.stem)] == []


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_nothing_is_left_for_later(path):
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\bfor now\b")
    with path.open("rb") as source:
        comments = [
            token.string
            for token in tokenize.tokenize(source.readline)
            if token.type == tokenize.COMMENT and marks.search(token.string)
        ]
    assert comments == []


def test_no_test_sleeps_in_real_time():
    sleepers = [
        name_of(path)
        for path in ROOT.glob("tests/**/*.py")
        if re.search(r"\btime\.sleep\(", path.read_text(encoding="utf-8"))
        or (
            re.search(r"\btrio\.sleep\(", path.read_text(encoding="utf-8"))
            and name_of(path.parent) not in SLEEPING
            and path.parent != ROOT / "tests"
        )
    ]
    assert sleepers == [] or sleepers == [name_of(Path(__file__))]


def test_the_readme_names_every_command():
    missing = [
        name for name in cli.commands if f"backfillctl {name}" not in README and f"`{name}" not in README
    ]
    assert missing == []


def test_the_readme_lists_every_exit_code():
    listed = {
        int(code)
        for cell in re.findall(r"^\| ([\d /]+) \|", README, re.MULTILINE)
        for code in re.findall(r"\d+", cell)
    }
    assert listed == {int(code) for code in ExitCode}


LOGGING_MODULES = {"daemon/log_events.py", "daemon/logs.py", "daemon/credentials.py"}
"""The one that tells, the one that writes, and one that silences a library."""


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_whatever_is_logged_has_a_stable_name(path):
    text = path.read_text(encoding="utf-8")
    around = re.findall(
        r"logging\.getLogger|\bwarnings\.warn\b|\blog(?:ger)?\.(?:debug|info|warning|error|exception)\(", text
    )
    assert around == [] or name_of(path) in LOGGING_MODULES


def test_every_log_event_is_told_somewhere():
    text = "".join(path.read_text(encoding="utf-8") for path in PRODUCT)
    assert [event.name for event in LogEvent if f"LogEvent.{event.name}" not in text] == []


def test_the_readme_lists_every_log_event_with_its_level_and_meaning():
    rows = [
        f"| {event.word} | {logging.getLevelName(event.level).lower()} | {event.meaning} |"
        for event in LogEvent
    ]
    assert [row for row in rows if row not in README] == []


def test_the_readme_has_one_command_for_the_demo_and_one_for_the_tests():
    for mark in ("demo", "tests"):
        block = README.split(f"<!-- {mark} -->", 1)[1].split("```", 2)[1]
        assert len([line for line in block.splitlines()[1:] if line.strip()]) == 1


def test_the_readme_has_no_gap_left_to_fill():
    assert "@@" not in README
