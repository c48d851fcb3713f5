from __future__ import annotations

from typing import TYPE_CHECKING

from journal.events import Kind
from journal.reader import Reader
from journal.verification_runs import SampledKeys, verification_runs
from tests.journal.journals import NOW_US, planned

if TYPE_CHECKING:
    from pathlib import Path


def test_finished_verifications_are_told_newest_first_with_what_they_covered(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    journal.note(Kind.VERIFICATION_FINISHED, {"tier": "list", "checked": 0, "exit_code": 4}, now_us=NOW_US)
    started = journal.note(Kind.VERIFICATION_STARTED, {"tier": "content"}, now_us=NOW_US)
    data = {"run": started, "tier": "content", "until_seq": 3, "exit_code": 0}
    journal.note(Kind.VERIFICATION_FINISHED, {**data, "sample": {"keys": 5, "of": 10}}, now_us=NOW_US + 7)
    journal.note(Kind.VERIFICATION_FINISHED, {**data, "sources": [source]}, now_us=NOW_US)
    with Reader.open(journal.path) as reader:
        whole, sampled, old = reader.read(verification_runs)
    assert (old.tier, old.exit_code, old.sample) == ("list", 4, None)
    assert sampled.sample == SampledKeys(5, 10)
    assert (sampled.started_us, sampled.finished_us) == (NOW_US, NOW_US + 7)
    assert not sampled.covers(source, 2)
    assert whole.covers(source, 3)
    assert not whole.covers(source, 4)
    assert not whole.covers(source + 1, 2)
