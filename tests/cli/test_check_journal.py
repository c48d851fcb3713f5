from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.checking_journal import check_journal
from daemon.errors import ExitCode
from daemon.findings import Finding, Level
from journal.checkpoint import Order
from journal.log import Journal


def findings(path: Path) -> list[Finding]:
    found: list[Finding] = []
    check_journal(path, found.append)
    return found


def test_an_empty_directory_is_green_and_stays_empty(tmp_path: Path) -> None:
    found = findings(tmp_path / "j.db")
    assert [finding.level for finding in found] == [Level.OK, Level.OK]
    assert "free, fsync takes" in found[0].text
    assert "none yet" in found[1].text
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_fails_with_7(tmp_path: Path) -> None:
    found = findings(tmp_path / "none" / "j.db")
    assert found[0].exit_code == ExitCode.JOURNAL
    assert "no such file or directory" in found[0].text
    assert "migration.journal" in found[0].hint


@pytest.mark.skipif(os.geteuid() == 0, reason="NOT TESTED: root may write everywhere")
def test_a_directory_that_cannot_be_written_fails_with_7(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert findings(tmp_path / "j.db")[0].exit_code == ExitCode.JOURNAL


def test_a_daemon_at_work_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    with Journal.create(path, name="m", cutoff_us=None, order=Order.NEWEST_FIRST, now_us=1):
        assert f"in use by pid {os.getpid()}" in findings(path)[1].text
    assert "no daemon runs" in findings(path)[1].text


def test_a_file_that_is_no_journal_fails_with_7_and_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(b"something else" * 1000)
    assert findings(path)[1].exit_code == ExitCode.JOURNAL
    assert path.read_bytes() == b"something else" * 1000
