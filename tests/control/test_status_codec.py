"""A status travels to a client whole, or is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import BackfillError
from daemon.status_codec import status_document, status_of
from journal.control_status import Sample, SlowDown
from journal.entries import SourceCounts
from journal.status import (
    FailureStatus,
    MigrationStatus,
    NoteStatus,
    ParkedStatus,
    PassStatus,
    SessionStatus,
    SourceStatus,
)

VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5)
FACTS = st.dictionaries(st.text(max_size=5), VALUES | st.lists(VALUES, max_size=2), max_size=2)
NUMBERS = st.dictionaries(st.text(max_size=5), st.integers(0), max_size=2)
NOTES = st.none() | st.builds(NoteStatus, data=FACTS)


def several(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(strategy, max_size=2).map(tuple)


SOURCES = st.builds(
    SourceStatus,
    identity=FACTS,
    counts=st.builds(SourceCounts, excluded=NUMBERS),
    passes=several(st.builds(PassStatus)),
    probe=st.none() | FACTS,
    failures=several(st.builds(FailureStatus)),
    parked=several(st.builds(ParkedStatus)),
)
STATUSES = st.builds(
    MigrationStatus,
    session=st.none() | st.builds(SessionStatus, facts=FACTS),
    sources=several(SOURCES),
    **dict.fromkeys(["halt", "probe", "server", "pause", "tunables", "throttle"], NOTES),
    verifications=several(st.builds(NoteStatus, data=FACTS)),
    spent_ms=NUMBERS,
    slow_downs=several(st.builds(SlowDown)),
    samples=several(st.builds(Sample)),
)


@settings(max_examples=50, deadline=None)
@given(STATUSES)
def test_a_status_is_read_as_it_was_sent(status: MigrationStatus) -> None:
    assert status_of(json.loads(json.dumps(status_document(status)))) == status


@settings(max_examples=20, deadline=None)
@given(STATUSES, st.sampled_from(["name", "state", "sources", "head_seq", "session"]))
def test_the_status_of_another_version_is_refused_with_the_field(status: MigrationStatus, gone: str) -> None:
    document = status_document(status)
    del document[gone]
    with pytest.raises(BackfillError, match=gone):
        status_of(document)


@given(VALUES | FACTS)
def test_whatever_is_no_status_is_refused(document) -> None:
    with pytest.raises(BackfillError):
        status_of(document)
