"""`status --as-of`: the state at an earlier moment, from the log alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.commands import past
from daemon.errors import ExitCode
from daemon.rendering_units import moment
from tests.cli.conftest import Invoke
from tests.journal.journals import NOW_US, planned, settle, take

SECOND_US = 1_000_000


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Ten keys; three settled a second after they were planned, two more a minute later."""
    path = tmp_path / "journal.db"
    written, source = planned(path)
    with written:
        take(written, source, 5)
        written.note("settings_changed", {}, now_us=NOW_US + SECOND_US)
        settle(written, [1, 2, 3])
        written.pause(who="alice", now_us=NOW_US + 60 * SECOND_US)
        written.end_session(now_us=NOW_US + 61 * SECOND_US, reason="drained", exit_code=143)
    return path


def test_it_tells_the_state_of_then_and_where_in_the_log_that_ends(invoke: Invoke, journal: Path) -> None:
    found = invoke("status", "--journal", journal, "--as-of", moment(NOW_US + 60 * SECOND_US))
    assert found.exit_code == 0
    first, _, state, *_ = found.stdout.splitlines()
    assert first == "as of 2025-10-09T08:54:20.000Z, up to event 10 of 2025-10-09T08:54:20.000Z"
    assert state.startswith("layer-cache: paused")
    assert "next:" not in found.stdout
    assert "layer-cache: stopped" in invoke("status", "--journal", journal).stdout


def test_programs_get_the_moment_and_the_counts_of_then(invoke: Invoke, journal: Path) -> None:
    def at(seconds: int) -> dict[str, object]:
        text = moment(NOW_US + seconds * SECOND_US)
        return dict(json.loads(invoke("status", "--json", "--journal", journal, "--as-of", text).stdout))

    assert (at(0)["as_of_us"], at(0)["state"], at(0)["pause"]) == (NOW_US, "running", None)
    assert at(60)["pause"] == {"who": "alice", "since_us": NOW_US + 60 * SECOND_US}
    assert (at(61)["state"], at(61)["head_seq"]) == ("stopped", 11)


def test_a_time_ago_is_taken_too(invoke: Invoke, journal: Path) -> None:
    assert "layer-cache: stopped" in invoke("status", "--journal", journal, "--as-of", "1s").stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yesterday", 'error: --as-of: found "yesterday"; expected a time with its zone, or a duration'),
        ("2026-01-14 15:30:45", 'error: --as-of: found "2026-01-14 15:30:45"; expected a time with its zone'),
        ("2999-01-01T00:00:00Z", "error: --as-of: found 2999-01-01T00:00:00.000Z; expected a time that has"),
        ("2001-01-01T00:00:00Z", "error: --as-of: found 2001-01-01T00:00:00.000Z; the first event of "),
    ],
)
def test_a_time_that_is_none_or_out_of_reach_is_refused(
    invoke: Invoke, journal: Path, text: str, message: str
) -> None:
    found = invoke("status", "--journal", journal, "--as-of", text)
    assert (found.exit_code, found.stdout) == (ExitCode.USAGE, "")
    assert found.stderr.startswith(message)


def test_a_long_fold_says_how_far_it_is_on_stderr(
    invoke: Invoke, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "TELL_SECONDS", 0.0)
    monkeypatch.setattr("journal.as_of.EVENTS_PER_PAGE", 4)
    found = invoke("status", "--json", "--journal", journal, "--as-of", "1s")
    assert found.stderr.splitlines() == [
        "folding the log: 4 of 11 events",
        "folding the log: 8 of 11 events",
    ]
    assert json.loads(found.stdout)["head_seq"] == 11
