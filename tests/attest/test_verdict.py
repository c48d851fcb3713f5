from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.comparing import FindingKind, TierName
from daemon.errors import ConfigError
from daemon.excusing import excuses
from daemon.verdict import Demands, Facts, ScannedSource, Standby, conditions, lsn
from journal.anchors import Anchor
from journal.attestation import CountedSource, JournalFacts, ParkedKey, digest_line
from journal.standing_findings import UNREADABLE, StandingFinding
from journal.verification_runs import SampledKeys, VerificationRun

CLEAN = {"checked": 10, "counts": {}, "bound": {"rate": 0.5, "confidence": 0.999}}


def source(name="a", **changed):
    return replace(
        CountedSource(
            id=1,
            name=name,
            closed=True,
            closing_proof="seen",
            proven=True,
            planned=10,
            stored=8,
            present=1,
            skipped=0,
            vanished=1,
            unsettled=0,
            parked=0,
            parked_keys=(),
            outcome_seq=50,
        ),
        **changed,
    )


def run(tier, **changed):
    return replace(VerificationRun(60, 70, tier, 0, 0, 55, None, None, 0, CLEAN), **changed)


SAMPLED = run("content", sample=SampledKeys(5, 10))
VERIFIED = (run("list"), SAMPLED)
DAMAGED = run("content", exit_code=4, data={"checked": 10, "counts": {"differing": 1}})
UNREAD = run("content", data={"checked": 10, "counts": {"unreadable": 10}})
ROTTEN = StandingFinding(40, "content", 1, "differing", 2, "k")
CHANGED = StandingFinding(40, "source", 1, "row_changed", 3, "k")
DELETED = StandingFinding(40, "source", 1, "row_deleted", 3, "k")
REFUSED = StandingFinding(40, "content", 1, "unreadable", 1, "k")
HIDDEN = StandingFinding(40, "head", 1, "unreadable", 1, "k")


B = source("b", id=2, outcome_seq=56)
OF_B = tuple(replace(each, sources=(2,), until_seq=56) for each in VERIFIED)


def facts(*sources, runs=VERIFIED, findings=(), **changed):
    known = sources or (source(),)
    journal = JournalFacts(Anchor(80, "00" * 32, "m/1"), True, tuple(known), tuple(runs), findings)
    scanned = {each.name: ScannedSource(10, {"where": 0}, 0, 0, 0) for each in known}
    return replace(Facts(journal, [], "", "", None, scanned, Demands()), **changed)


def failed(found):
    return [each.subject for each in conditions(found) if not each.met]


def test_what_is_whole_closed_and_verified_is_a_go():
    assert failed(facts()) == []


@pytest.mark.parametrize(
    ("found", "subjects"),
    [
        (facts(source(unsettled=1)), ["a: settled"]),
        (facts(source(skipped=1)), ["a: skipped"]),
        (facts(source(parked=1, parked_keys=(ParkedKey("k", "rejected"),))), ["a: parked"]),
        (facts(source(closed=False)), ["a: closed"]),
        (facts(source(proven=False)), ["a: closed"]),
        (facts(problems=["chain: event 2"]), ["journal"]),
        (facts(anchor_problem="anchor: it ends before"), ["manifest"]),
        (facts(server_change="another PostgreSQL"), ["server"]),
        (facts(unplanned=["b"]), ["b: planned"]),
        (facts(standby=Standby("0/10", None)), ["standby"]),
        (facts(standby=Standby("0/F", "0/10")), ["standby"]),
        (facts(standby=Standby(None, "0/10")), ["standby"]),
        (facts(scanned={}), ["a: rows"]),
        (facts(scanned={"a": ScannedSource(10, {}, 1, 0, 0, ("k",))}), ["a: rows"]),
        (facts(scanned={"a": ScannedSource(10, {}, 0, 1, 0, ("k",))}), ["a: rows"]),
        (facts(scanned={"a": ScannedSource(10, {}, 0, 0, 1, ("k",))}), ["a: rows"]),
        (facts(runs=()), ["verified by list", "verified by content"]),
        (facts(runs=(run("list"),)), ["verified by content"]),
        (facts(runs=(run("list", sample=SampledKeys(5, 10)), SAMPLED)), ["verified by list"]),
        (facts(runs=(run("list", until_seq=49), SAMPLED)), ["verified by list"]),
        (facts(runs=(run("list", sources=(2,)), SAMPLED)), ["verified by list"]),
        (facts(runs=(run("list", exit_code=4), run("list"), SAMPLED)), ["verified by list"]),
        (facts(source(), B), ["b: verified by list", "b: verified by content"]),
        (facts(source(outcome_seq=56), B), ["verified by list", "verified by content"]),
        (
            facts(source(), B, runs=(run("list", sources=(2,), until_seq=56), *VERIFIED)),
            ["b: verified by content"],
        ),
        (
            facts(source(), B, runs=(run("list", sources=(2,), until_seq=56, exit_code=4), *OF_B, *VERIFIED)),
            ["b: verified by list"],
        ),
        (facts(runs=(run("list"), DAMAGED)), ["verified by content"]),
        (facts(runs=(run("list"), DAMAGED), findings=(replace(ROTTEN, run=60),)), ["verified by content"]),
        (facts(findings=(ROTTEN, CHANGED)), ["mismatch by source", "mismatch by content"]),
        (facts(findings=(ROTTEN,), demands=Demands(tier=TierName.LIST)), ["mismatch by content"]),
        (facts(findings=(replace(ROTTEN, run=60),)), ["mismatch by content"]),
        (facts(findings=(REFUSED, HIDDEN)), ["unreadable by head", "unreadable by content"]),
        (
            facts(runs=(run("head"),), findings=(HIDDEN, REFUSED), demands=Demands(tier=TierName.HEAD)),
            ["unreadable by head"],
        ),
        (facts(runs=(run("list"), UNREAD)), ["verified by content"]),
    ],
)
def test_each_condition_that_is_not_met_is_named(found, subjects):
    assert failed(found) == subjects


@pytest.mark.parametrize(
    "found",
    [
        facts(runs=(run("list"), run("list", exit_code=4), SAMPLED)),
        facts(runs=(run("source"), run("content"))),
        facts(source(), B, runs=(*OF_B, *VERIFIED)),
        facts(source(proven=False), demands=Demands(accept_unproven=True)),
        facts(standby=Standby("1/0", "0/FFFFFFFF")),
        facts(anchor_problem=None),
        facts(scanned={"a": ScannedSource(12, {"where": 2}, 0, 0, 0)}),
        facts(
            source(parked=1, parked_keys=(ParkedKey("k", "rejected"),)),
            demands=Demands(excused={"a": frozenset({"k"})}),
        ),
        facts(runs=(run("head"),), demands=Demands(tier=TierName.HEAD)),
        facts(runs=(run("list"), run("content"), DAMAGED)),
        facts(findings=(DELETED,)),
        facts(findings=(REFUSED, HIDDEN), demands=Demands(tier=TierName.LIST)),
        facts(runs=(UNREAD, run("list")), demands=Demands(tier=TierName.LIST)),
    ],
)
def test_what_is_repaired_accepted_or_excused_is_a_go(found):
    assert failed(found) == []


def test_a_finding_that_stands_is_counted_and_named_as_keys_may_be_shown():
    told = conditions(
        facts(findings=(ROTTEN, replace(ROTTEN, run=41, row_key="other"))), lambda key: f"<{key}>"
    )
    assert told[-1].text == "4 differing, such as <k> of a; not found right since, nor copied anew"


def test_what_could_not_be_read_is_called_the_same_in_a_journal():
    assert FindingKind.UNREADABLE == UNREADABLE


@pytest.mark.parametrize(
    ("excused", "text"),
    [
        ({"k"}, "1 key without a copy, such as y (f)"),
        ({"k", "y"}, "2 keys, all excused by name"),
    ],
)
def test_each_parked_key_needs_its_own_excuse(excused, text):
    parked = (ParkedKey("k", "f"), ParkedKey("y", "f"))
    several = facts(
        source(parked=2, parked_keys=parked), demands=Demands(excused={"a": frozenset({*excused, "settled"})})
    )
    [found] = [each for each in conditions(several) if each.subject == "a: parked"]
    assert (found.met, found.text) == (len(excused) == 2, text)


def test_more_parked_keys_than_can_be_named_are_no_go_though_all_that_are_named_are_excused():
    found = facts(
        source(parked=2, parked_keys=(ParkedKey("k", "f"),)), demands=Demands(excused={"a": frozenset({"k"})})
    )
    assert failed(found) == ["a: parked"]


def test_every_condition_is_told_though_the_first_is_not_met():
    assert failed(facts(source(unsettled=1, skipped=1, closed=False), problems=["x"], runs=())) == [
        "journal",
        "a: settled",
        "a: skipped",
        "a: closed",
        "verified by list",
        "verified by content",
    ]


def test_a_migration_that_planned_nothing_is_no_go():
    empty = facts()
    assert failed(replace(empty, journal=replace(empty.journal, sources=()))) == ["sources"]


@given(st.integers(0, 2**64 - 1))
def test_a_position_is_read_as_postgresql_writes_it(position):
    assert lsn(f"{position >> 32:X}/{position & 0xFFFFFFFF:X}") == position


@pytest.mark.parametrize("text", ["", "/", "16", "16/", "/16", "g/1", "123456789/0", "0/123456789"])
def test_what_is_no_position_is_refused(text):
    with pytest.raises(ValueError):
        lsn(text)


def test_an_excuse_names_a_key_alone_or_with_its_source_and_all_unknown_ones_are_told():
    parked = (ParkedKey("k", "f"), ParkedKey("b:k", "f"))
    sources = [
        source(parked=2, parked_keys=parked),
        source("b", id=2, parked=1, parked_keys=(ParkedKey("k", "f"),)),
    ]
    assert excuses(["a:k"], sources) == {"a": {"k"}}
    assert excuses(["k"], sources) == {"a": {"k"}, "b": {"k"}}
    assert excuses(["b:k"], sources) == {"a": {"b:k"}, "b": {"k"}}
    with pytest.raises(ConfigError, match=r"x is not parked\n.*y is not parked"):
        excuses(["x", "k", "y"], sources)


@given(st.text(), st.integers(0, 2**40), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_a_line_of_the_digest_is_one_json_array(row_key, size, md5):
    if any("\ud800" <= character <= "\udfff" for character in row_key):
        return
    line = digest_line(row_key, size, md5)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == [row_key, size, md5]


@pytest.mark.parametrize(
    ("tier", "changed", "told"),
    [("source", {}, False), ("content", {}, False), ("source", {"until_seq": 49}, True), ("list", {}, True)],
)
def test_a_go_says_that_changes_of_equal_length_were_not_looked_for_unless_they_were(tier, changed, told):
    found = conditions(facts(runs=(run(tier, **changed), *VERIFIED)))
    [rows] = [each for each in found if each.subject == "a: rows"]
    assert rows.met
    assert ("a change of equal length" in rows.text) is told


def test_a_row_whose_object_could_not_be_read_was_not_compared_either():
    found = conditions(facts(runs=(run("content", data=UNREAD.data), *VERIFIED)))
    [rows] = [each for each in found if each.subject == "a: rows"]
    assert "a change of equal length" in rows.text


def told(found):
    return {each.subject: (each.met, each.text) for each in conditions(found)}


def test_a_condition_counts_the_keys_that_it_speaks_of():
    whole = told(facts(source(stored=5, present=2, skipped=1, vanished=2)))
    assert whole["a: settled"] == (
        True,
        "10 of 10 keys, counted one by one, 2 of them gone when they were to be copied",
    )
    assert whole["a: skipped"] == (False, "1 key had an object that nobody compared")
    assert whole["a: parked"] == (True, "none")
    left = told(facts(source(stored=5, vanished=0, unsettled=3)))
    assert left["a: settled"] == (False, "3 keys of 10 not settled")
    assert left["a: skipped"] == (True, "none")


@pytest.mark.parametrize(
    ("required", "replayed", "verdict"),
    [
        (
            None,
            "1/1",
            (False, "the rows were read on a standby, which can't tell what its primary wrote last"),
        ),
        ("1/2", "1/1", (False, "replayed up to 1/1, the primary had written up to 1/2")),
        ("1/2", None, (False, "replayed up to nowhere, the primary had written up to 1/2")),
        ("1/2", "1/2", (True, "replayed past 1/2, the primary's last write by --primary-lsn")),
        ("0/FFFFFFFF", "1/0", (True, "replayed past 0/FFFFFFFF, the primary's last write by --primary-lsn")),
    ],
)
def test_a_standby_that_has_not_replayed_the_primarys_last_write_is_no_go(required, replayed, verdict):
    assert told(facts(standby=Standby(required=required, replayed=replayed)))["standby"] == verdict
