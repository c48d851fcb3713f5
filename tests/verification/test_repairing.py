"""Which keys a repair takes back."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import verifying
from daemon.comparing import REPAIRABLE, FindingKind
from daemon.verifying import repair
from journal.events import Kind
from journal.reader import Reader
from tests.verification.worlds import NOW_US, write_journal

KEYS = 12
findings = st.lists(
    st.tuples(
        st.sampled_from([5, 6, 7]), st.sampled_from(list(FindingKind)), st.none() | st.integers(1, KEYS)
    ),
    max_size=30,
)


class Called:
    """The recorder, as a repair needs it."""

    def __init__(self, journal):
        self.journal = journal

    async def call(self, function):
        await trio.lowlevel.checkpoint()
        return function(self.journal, NOW_US)


def copied(directory):
    return write_journal(
        directory / "journal.db", {"a": {f"k{index:02d}": "stored" for index in range(KEYS)}}
    )


def repaired(journal, runs):
    async def run():
        with Reader.open(journal.path) as reader:
            return await repair(Called(journal), reader, runs, who="op")

    return trio.run(run)


def revoked(journal):
    with Reader.open(journal.path) as reader:
        return [
            ordinal
            for event in reader.events(kinds=[Kind.OUTCOMES_REVOKED])
            for ordinal in event.data["ordinals"]
        ]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(verifying, "REPAIRED_PER_CALL", 4)


@settings(max_examples=50, deadline=None)
@given(found=findings)
def test_every_key_whose_object_these_runs_found_wrong_is_taken_back_once(tmp_path_factory, found):
    with copied(tmp_path_factory.mktemp("repair")) as journal:
        for run, kind, ordinal in found:
            data = {"run": run, "findings": [[kind.value, ordinal, "", ""]]}
            journal.note(Kind.FINDING_RECORDED, data, now_us=NOW_US, source=1)
        wrong = {
            ordinal
            for run, kind, ordinal in found
            if run in {5, 7} and kind in REPAIRABLE and ordinal is not None
        }
        assert repaired(journal, [5, 7]) == len(wrong)
        assert sorted(revoked(journal)) == sorted(wrong)


def test_a_second_repair_of_the_same_runs_takes_nothing_back(tmp_path):
    with copied(tmp_path) as journal:
        data = {"run": 5, "findings": [["missing", 3, "", ""], ["differing", 4, "", ""]]}
        journal.note(Kind.FINDING_RECORDED, data, now_us=NOW_US, source=1)
        assert repaired(journal, [5]) == 2
        assert repaired(journal, [5]) == 0
        assert sorted(revoked(journal)) == [3, 4]


def test_a_verification_without_runs_repairs_nothing(tmp_path):
    with copied(tmp_path) as journal:
        assert repaired(journal, []) == 0
