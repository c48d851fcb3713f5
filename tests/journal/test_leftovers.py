from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from journal.errors import JournalCorrupt, JournalExists
from tests.journal.journals import create, planned, reopen, settle, take
from tests.journal.test_maintenance import tamper

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_journal_never_takes_the_wal_of_a_deleted_one(tmp_path: Path) -> None:
    """A killed daemon left its -wal, and the operator deleted only the journal itself."""
    (tmp_path / "old").mkdir()
    journal, source = planned(tmp_path / "old" / "journal.db")
    settle(journal, [key.ordinal for key in take(journal, source, 5).keys])
    path = tmp_path / "journal.db"
    shutil.copyfile(tmp_path / "old" / "journal.db-wal", tmp_path / "journal.db-wal")
    journal.close()
    before = (tmp_path / "journal.db-wal").read_bytes()
    with pytest.raises(
        JournalExists, match=r"journal\.db-wal, left by a journal that was deleted"
    ) as refused:
        create(path)
    assert "move them away too" in refused.value.hint
    assert not path.exists()
    assert (tmp_path / "journal.db-wal").read_bytes() == before


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_creating_names_each_side_file_that_is_in_the_way_and_works_once_it_is_gone(
    tmp_path: Path, suffix: str
) -> None:
    left = tmp_path / f"journal.db{suffix}"
    left.touch()
    with pytest.raises(JournalExists, match=f"beside it there is journal.db{suffix}, left"):
        create(tmp_path / "journal.db")
    assert left.exists()
    left.unlink()
    create(tmp_path / "journal.db").close()


def test_the_hint_to_restore_a_backup_says_how(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    planned(path)[0].close()
    tamper(path, "UPDATE event SET ts = ts + 1 WHERE seq = 3")
    with pytest.raises(JournalCorrupt) as refused:
        reopen(path)
    assert "name the copy in migration.journal, or move the journal and its -wal and -shm away" in (
        refused.value.hint
    )
