"""Opening a journal that another process holds."""

from __future__ import annotations

import pytest

from daemon.opening import open_journal
from daemon.runtime import Runtime
from journal.checkpoint import Order
from journal.errors import JournalLocked
from journal.log import Journal


@pytest.fixture
def holder(tmp_path, monkeypatch):
    monkeypatch.setitem(Journal.open.__func__.__kwdefaults__, "wait_seconds", 0.0)
    journal = Journal.create(
        tmp_path / "journal.db", name="t", cutoff_us=1, order=Order.NEWEST_FIRST, now_us=1
    )
    yield journal
    journal.close()


class Attempts:
    """Runs journal calls; the holder lets go before the `freed`-th."""

    def __init__(self, holder, *, freed):
        self.count = 0
        self._holder = holder
        self._freed = freed

    async def __call__(self, function):
        self.count += 1
        if self.count == self._freed:
            self._holder.close()
        return function()


async def test_a_service_outlasts_another_process_that_holds_its_journal(holder, tmp_path, caplog):
    attempts = Attempts(holder, freed=3)
    opened = await open_journal(
        tmp_path / "journal.db", Runtime(journal_runner=attempts), patience_seconds=600.0
    )
    opened.close()
    assert attempts.count == 3
    assert [record.getMessage().endswith("tried again") for record in caplog.records] == [True, True]


async def test_at_a_terminal_it_is_told_who_holds_the_journal(holder, tmp_path):
    attempts = Attempts(holder, freed=3)
    with pytest.raises(JournalLocked):
        await open_journal(tmp_path / "journal.db", Runtime(journal_runner=attempts), patience_seconds=0.0)
    assert attempts.count == 1
