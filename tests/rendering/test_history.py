from __future__ import annotations

import json

import pytest

from daemon.rendering import Explained, explain_json, explain_text
from journal.checkpoint import Order
from journal.entries import Revocation, Settled
from journal.events import Kind
from journal.lifecycle import Outcome
from journal.log import Journal
from journal.reader import Reader
from tests.rendering.golden_files import assert_golden
from tests.rendering.stories import CREATED_US, CUTOFF_US, HOSTILE_KEY, MD5, eventful_journal

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


def test_a_life_goes_on_behind_the_outcome_verified_repaired_undone_and_deleted(tmp_path):
    journal = Journal.create(
        tmp_path / "journal.db",
        name="layer-cache",
        cutoff_us=CUTOFF_US,
        order=Order.NEWEST_FIRST,
        now_us=CREATED_US,
    )
    at = CREATED_US

    def now():
        nonlocal at
        at += 1_000_000
        return at

    def verify(tier, *, finding=None, sample=None):
        with Reader.open(tmp_path / "journal.db") as reader:
            run = reader.head_seq() + 1
        data = {"tier": tier, "until_seq": run - 1, "sources": None, "sample": sample}
        journal.note(Kind.VERIFICATION_STARTED, data, now_us=now())
        if sample:
            progress = {"run": run, "tier": tier, "after_seq": 0, "counts": {}, "ordinals": [1]}
            journal.note(Kind.VERIFICATION_PROGRESSED, progress, now_us=now())
        if finding:
            found = {"run": run, "tier": tier, "findings": [finding], "ordinals": [1]}
            journal.note(Kind.FINDING_RECORDED, found, source=source, now_us=now())
        journal.note(Kind.VERIFICATION_FINISHED, {**data, "run": run, "exit_code": 0}, now_us=now())

    journal.start_session(now_us=now(), facts={"pid": 1})
    identity = {"bucket": "blobs", "prefix": "cas/", "layout": "flat", "reverse_key": True, "key": ["id"]}
    source = journal.add_source("cas", identity, now_us=now())
    journal.begin_pass(source, kind="sweep", now_us=now())
    journal.seal_chunk(source, [("abc", CUTOFF_US - 1, 7, None)], now_us=now())
    journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=now())
    journal.claim(source, limit=1, window=10, now_us=now())
    journal.record([Settled(1, Outcome.STORED, 7, MD5)], now_us=now())
    verify("list")
    verify("head", finding=["differing", 1, "cas/cba", "size 6 \x1b[2J, expected 7"])
    journal.revoke([1], Revocation.REPAIR, message="verify --repair", who="alice", now_us=now())
    journal.claim(source, limit=1, window=10, now_us=now())
    journal.record([Settled(1, Outcome.STORED, 7, MD5, None, "v2")], now_us=now())
    verify("content", sample={"keys": 1, "of": 1, "seed": 7})
    journal.revoke([1], Revocation.UNDO, message="undo --all", who="bob", now_us=now())
    deleted = {"ordinals": [1], "already_gone": False, "bytes": 7, "versions": ["v2"]}
    journal.note(Kind.OBJECTS_DELETED, deleted, source=source, now_us=now())
    journal.close()
    with Reader.open(tmp_path / "journal.db") as reader:
        explained = Explained("cas/cba", (), reader.explain("abc"))
    text = explain_text(explained)
    assert all(line.isprintable() for line in text.splitlines())
    assert_golden("explain_undone.txt", text)
    (plan,) = explain_json(explained)["plans"]
    assert (plan["found_by"], plan["object_key"], plan["state"]) == ("object_key", "cas/cba", "parked")
    assert [(found["tier"], found["sampled"]) for found in plan["verifications"]] == [
        ("list", False),
        ("content", True),
    ]
