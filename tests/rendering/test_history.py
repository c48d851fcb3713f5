from __future__ import annotations

import json

import pytest

from daemon.rendering import Explained, explain_json, explain_text
from journal.entries import Settled
from journal.lifecycle import Outcome
from journal.reader import Reader
from tests.rendering.golden_files import assert_golden
from tests.rendering.stories import HOSTILE_KEY, MD5, eventful_journal

KEYS = ["a-stored", HOSTILE_KEY, "c-vanished", "d-recovered", "żółć-present", "f-released"]


@pytest.fixture(scope="module")
def histories(tmp_path_factory):
    path = tmp_path_factory.mktemp("journal") / "journal.db"
    journal = eventful_journal(path)
    journal.begin_pass(1, kind="snapshot", now_us=journal.cutoff_us)
    journal.seal_chunk(1, [("a-stored", None, 7, 1)], now_us=journal.cutoff_us)
    journal.seal_segment(1, excluded={}, unusable=0, unusable_example=None, now_us=journal.cutoff_us)
    journal.claim(1, limit=1, window=10, now_us=journal.cutoff_us)
    journal.claim(1, limit=1, window=10, now_us=journal.cutoff_us)
    journal.record([Settled(7, Outcome.STORED, 7, MD5)], now_us=journal.cutoff_us)
    journal.close()
    with Reader.open(path) as reader:
        return {key: reader.explain(key) for key in KEYS}


def test_the_life_of_a_key_is_told_in_order_and_in_words(histories):
    text = "\n\n".join(explain_text(Explained(key, histories[key])) for key in KEYS)
    assert all(line.isprintable() for line in text.splitlines())
    assert_golden("explain.txt", text)


def test_json_holds_the_key_as_it_is_and_every_plan_of_it(histories):
    document = json.loads(json.dumps(explain_json(Explained("a-stored", histories["a-stored"]))))
    assert document["schema_version"] == 1
    first, second = document["plans"]
    assert (first["ordinal"], first["superseded_by"], second["ordinal"], second["supersedes"]) == (1, 7, 7, 1)
    assert [event["kind"] for event in second["events"]] == [
        "chunk_sealed",
        "keys_claimed",
        "outcomes_recorded",
    ]
    assert explain_json(Explained(HOSTILE_KEY, histories[HOSTILE_KEY]))["key"] == HOSTILE_KEY
