from __future__ import annotations

import pytest
import trio

from daemon.comparing import FindingKind, Means, TierName
from daemon.layouts import Layout
from daemon.tier_receipts import ReceiptsTier
from daemon.verification import Scope, Verification
from journal.entries import Settled
from journal.errors import JournalCorrupt
from journal.events import Kind
from journal.lifecycle import Outcome
from journal.log import Journal
from journal.reader import Reader
from tests.journal.tampering import tamper
from tests.verification.worlds import NOW_US, recording, verified_sources, write_journal

LAYOUTS = {"a": Layout(prefix="a/")}


@pytest.fixture
def path(tmp_path):
    """A finished migration of 200 keys whose first events lie behind the tail that every opening checks."""
    path = tmp_path / "journal.db"
    journal = write_journal(path, {"a": {f"k{number:03d}": "stored" for number in range(200)}})
    for _ in range(70):
        journal.note(Kind.SERVER_RECORDED, {}, now_us=NOW_US)
    journal.close()
    return path


def verify(path):
    async def run():
        with Journal.open(path, now_us=NOW_US) as journal, Reader.open(path) as reader:
            return await Verification(
                ReceiptsTier(reader, trio.to_thread.run_sync),
                verified_sources(journal, LAYOUTS),
                reader,
                latest=journal.latest,
                record=recording(journal),
                scope=Scope((TierName.RECEIPTS,)),
                seed=1,
            ).run()

    return trio.run(run)


def test_a_sound_journal_is_a_receipt_for_every_key(path):
    result = verify(path)
    assert (result.checked, result.right, result.found, result.exit_code) == (
        200,
        {Means.RECEIPT: 200},
        {},
        0,
    )


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE event SET ts = ts + 1 WHERE seq = 4", "chain: event 4"),
        (
            """UPDATE event SET data = replace(data, '"S"', '"P"') WHERE kind = 'outcomes_recorded'""",
            "chain: event",
        ),
        ("UPDATE plan SET row_key = 'other' WHERE ordinal = 7", "plan: the chunk of ordinals 1 to 200"),
        ("UPDATE plan SET size = size + 1 WHERE ordinal = 200", "plan: the chunk of ordinals 1 to 200"),
        ("UPDATE tally SET stored = stored - 1", "projection tally"),
        ("UPDATE outcome SET code = 'P' WHERE ordinal = 3", "projection outcome"),
        ("DELETE FROM outcome WHERE ordinal = 3", "projection outcome"),
    ],
)
def test_what_was_altered_in_the_journal_is_named_and_a_mismatch(path, statement, named):
    tamper(path, statement)
    result = verify(path)
    assert result.exit_code == 4
    assert result.number(FindingKind.RECEIPT) > 0
    assert any(named in finding.detail for finding in result.examples)


def test_a_receipt_that_can_be_none_is_named_with_its_key(tmp_path):
    journal = write_journal(tmp_path / "journal.db", {"a": {"k": "waiting"}})
    (key,) = journal.claim(1, limit=1, window=1, now_us=NOW_US).keys
    journal.record([Settled(key.ordinal, Outcome.STORED, 3, "not a digest")], now_us=NOW_US)
    journal.close()
    result = verify(tmp_path / "journal.db")
    [finding] = result.examples
    assert (finding.kind, finding.ordinal, finding.object_key) == (FindingKind.RECEIPT, key.ordinal, "a/k")
    assert "'not a digest'" in finding.detail


def test_a_log_whose_tail_was_cut_is_refused_at_opening(path):
    tamper(path, "DELETE FROM event WHERE seq > 70")
    with pytest.raises(JournalCorrupt, match="the log ends at event 70"):
        verify(path)
