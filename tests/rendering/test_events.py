from __future__ import annotations

import json

import pytest

from daemon import rendering_events
from daemon.rendering_events import event_json, event_line, happened
from journal.events import Kind, StoredEvent
from journal.reader import Reader
from tests.rendering.golden_files import assert_golden
from tests.rendering.stories import CREATED_US, eventful_journal


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    path = tmp_path_factory.mktemp("journal") / "journal.db"
    eventful_journal(path).close()
    with Reader.open(path) as reader:
        return list(reader.events())


def test_every_kind_of_event_has_a_sentence():
    assert set(rendering_events._SENTENCES) == set(Kind)


def test_every_event_is_one_safe_line(events):
    lines = [event_line(event, names={1: "cas"}) for event in events]
    assert all(line.isprintable() for line in lines)
    assert_golden("events.txt", "\n".join(lines))


def test_no_sentence_of_the_story_falls_back_to_raw_data(events):
    assert not [event.kind for event in events if happened(event) == rendering_events._raw(event.data)]


def test_data_of_a_later_version_or_an_unknown_kind_is_shown_as_stored():
    data = {"keys": ["a\x1bb"], "n": 1}
    later = StoredEvent(7, CREATED_US, Kind.KEYS_CLAIMED, 2, 3, data)
    unknown = StoredEvent(8, CREATED_US, "keys_teleported", 1, None, data)
    assert event_line(later).endswith('  source 3  keys_claimed: {"keys": ["a\\u001bb"], "n": 1}')
    assert event_line(unknown).endswith('  keys_teleported: {"keys": ["a\\u001bb"], "n": 1}')


def test_a_note_with_other_facts_than_usual_is_shown_as_stored():
    event = StoredEvent(9, CREATED_US, Kind.PROBE_RECORDED, 1, None, {"conditional": "atomic"})
    assert happened(event) == '{"conditional": "atomic"}'


def test_json_of_an_event_has_whole_microseconds_and_the_data_as_stored(events):
    event = events[4]
    document = event_json(event, names={1: "cas"})
    assert json.loads(json.dumps(document)) == {
        "seq": 5,
        "time_us": CREATED_US + 4_000_000,
        "time": "2026-01-14T14:13:24.000000Z",
        "kind": "source_added",
        "version": 1,
        "source": "cas",
        "source_id": 1,
        "data": event.data,
    }


def test_a_source_of_unknown_name_is_shown_by_its_id(events):
    assert "  source 1  source_added: " in event_line(events[4])
    assert event_json(events[4])["source"] is None
