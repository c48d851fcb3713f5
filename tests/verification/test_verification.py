from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.comparing import FindingKind
from daemon.errors import BackfillError, ExitCode
from daemon.layouts import Layout, object_key, unusable_reason
from daemon.objects import PROBE_KEY_NAME
from daemon.retrying import Failure, FailureClass
from daemon.verification import FINDINGS_PER_EVENT_MAX
from journal.entries import Settled
from journal.events import Kind
from journal.lifecycle import Outcome
from journal.reader import Reader
from tests.verification.worlds import NOW_US, ListOnly, bucket_of, md5_of, verify, write_journal

FLAT = Layout(prefix="a/")
LAYOUTS = {"a": FLAT, "b": Layout(prefix="b/", kind="tiered")}
COMPARED = {"stored", "recovered", "present"}
STATES = ["stored", "recovered", "present", "skipped", "vanished", "parked", "in_flight", "waiting"]

row_keys = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda key: all(unusable_reason(object_key(layout, key)) is None for layout in LAYOUTS.values())
)


def events_of(journal, kind):
    with Reader.open(journal.path) as reader:
        return list(reader.events(kinds=[kind]))


def recorded_findings(journal):
    return {
        (finding[0], finding[2])
        for event in events_of(journal, Kind.FINDING_RECORDED)
        for finding in event.data["findings"]
    }


def logged(journal):
    with Reader.open(journal.path) as reader:
        return list(reader.events())


@settings(max_examples=30, deadline=None)
@given(
    keys=st.dictionaries(
        row_keys, st.tuples(st.sampled_from(STATES), st.sampled_from(["ok", "gone", "size", "md5"]))
    ),
    others=st.dictionaries(row_keys, st.sampled_from(["stored", "parked"])),
    strays=st.sets(row_keys, max_size=5),
    page=st.integers(1, 7),
    seed=st.integers(0, 99),
    extra_fails=st.booleans(),
)
def test_every_seeded_missing_differing_and_extra_object_is_found_and_nothing_is_changed(
    tmp_path_factory, keys, others, strays, page, seed, extra_fails
):
    path = tmp_path_factory.mktemp("world") / "journal.db"
    states = {"a": {key: state for key, (state, _) in keys.items()}, "b": others}
    # Objects under keys that were not compared exist or not, as it may be; vanished rows have none.
    bucket = bucket_of(FLAT, [key for key, (state, _) in keys.items() if state != "vanished"])
    bucket |= bucket_of(LAYOUTS["b"], others)
    expected = set()
    for key, (state, fate) in keys.items():
        name = object_key(FLAT, key)
        if state not in COMPARED or fate == "ok":
            continue
        if fate == "gone":
            del bucket[name]
            expected.add(("missing", name))
        else:
            size, md5 = bucket[name]
            bucket[name] = (size + 1, md5) if fate == "size" else (size, md5_of("another"))
            expected.add(("differing", name))
    extra = {f"a/{stray}" for stray in strays if keys.get(stray, ("vanished",))[0] == "vanished"}
    bucket |= dict.fromkeys(extra, (1, md5_of("stray")))
    bucket[f"a/{PROBE_KEY_NAME}"] = (70, md5_of("probe"))
    if extra_fails:
        expected |= {("extra", name) for name in extra}
    lister = ListOnly({"blobs": dict(bucket)}, page=page, seed=seed)
    with write_journal(path, states) as journal:
        before, counts = logged(journal), journal.counts()
        result = verify(journal, lister, LAYOUTS, extra_fails=extra_fails)
        after = logged(journal)
        assert recorded_findings(journal) == expected
        assert journal.counts() == counts
    assert lister.objects == {"blobs": bucket}
    assert after[: len(before)] == before
    assert {event.kind for event in after[len(before) :]} <= {
        Kind.VERIFICATION_STARTED,
        Kind.FINDING_RECORDED,
        Kind.VERIFICATION_FINISHED,
    }
    compared = [key for key, (state, _) in keys.items() if state in COMPARED]
    compared += [key for key, state in others.items() if state in COMPARED]
    assert result.checked == len(compared)
    assert result.number(FindingKind.MISSING) == sum(kind == "missing" for kind, _ in expected)
    assert result.number(FindingKind.DIFFERING) == sum(kind == "differing" for kind, _ in expected)
    assert result.number(FindingKind.EXTRA) == len(extra)
    assert result.by_digest == result.checked - result.number(FindingKind.MISSING) - result.number(
        FindingKind.DIFFERING
    )
    assert (result.exit_code is ExitCode.MISMATCH) == bool(expected)
    assert not list(path.parent.glob("*.verify*"))


def plain_world(path, number, *, etags=None):
    keys = [f"k{index:04d}" for index in range(number)]
    return write_journal(path, {"a": dict.fromkeys(keys, "stored")}, etags=etags), bucket_of(FLAT, keys)


def test_an_etag_on_record_that_is_no_md5_is_compared_and_counted_as_size_only(tmp_path):
    etags = {"k0000": "opaque", "k0001": "opaque"}
    journal, bucket = plain_world(tmp_path / "journal.db", 4, etags=etags)
    bucket["a/k0000"] = (bucket["a/k0000"][0], "opaque")
    bucket["a/k0001"] = (bucket["a/k0001"][0], "replaced")
    with journal:
        result = verify(journal, ListOnly({"blobs": bucket}), {"a": FLAT})
    assert (result.by_digest, result.by_size, result.number(FindingKind.DIFFERING)) == (2, 1, 1)
    assert result.examples[0].detail == "ETag replaced, expected opaque"


def test_what_was_not_compared_is_counted_and_no_extra(tmp_path):
    states = {"p": "parked", "w": "waiting", "f": "in_flight", "s": "skipped", "v": "vanished"}
    journal = write_journal(tmp_path / "journal.db", {"a": states})
    with journal:
        result = verify(journal, ListOnly({"blobs": bucket_of(FLAT, "pwfsv")}), {"a": FLAT}, extra_fails=True)
    assert (result.checked, result.unsettled, result.skipped, result.number(FindingKind.EXTRA)) == (
        0,
        3,
        1,
        1,
    )
    assert [finding.object_key for finding in result.examples] == ["a/v"]


@pytest.mark.parametrize(("settled", "differing"), [(False, 0), (True, 1)])
def test_an_object_that_a_changed_row_is_about_to_replace_is_unsettled_and_not_differing(
    tmp_path, settled, differing
):
    journal, bucket = plain_world(tmp_path / "journal.db", 2)
    bucket["a/k0000"] = (99, md5_of("new bytes, put by a session that died"))
    with journal:
        journal.begin_pass(1, kind="snapshot", now_us=NOW_US)
        journal.seal_chunk(1, [("k0000", None, 99, 1)], now_us=NOW_US)
        journal.seal_segment(1, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
        if settled:
            journal.claim(1, limit=1, window=1, now_us=NOW_US)
            journal.record([Settled(3, Outcome.STORED, 99, md5_of("other bytes"))], now_us=NOW_US)
        result = verify(journal, ListOnly({"blobs": bucket}), {"a": FLAT})
    assert (result.number(FindingKind.DIFFERING), result.unsettled) == (differing, 1 - differing)
    assert result.checked == 1 + differing


def test_extra_objects_of_every_source_are_found(tmp_path):
    journal = write_journal(tmp_path / "journal.db", {"a": {"k": "stored"}, "b": {"kkkkkk": "stored"}})
    bucket = (
        bucket_of(FLAT, ["k"]) | bucket_of(LAYOUTS["b"], ["kkkkkk"]) | {"b/kkkkkk": (1, ""), "a/x": (1, "")}
    )
    with journal:
        result = verify(journal, ListOnly({"blobs": bucket}), LAYOUTS)
    assert [(each.source, each.object_key) for each in result.examples] == [("a", "a/x"), ("b", "b/kkkkkk")]


def test_a_bucket_that_is_wrong_altogether_costs_few_events_and_few_examples(tmp_path):
    number = 2 * FINDINGS_PER_EVENT_MAX + 1
    journal, _ = plain_world(tmp_path / "journal.db", number)
    with journal:
        result = verify(journal, ListOnly({"blobs": {}}), {"a": FLAT})
        assert len(events_of(journal, Kind.FINDING_RECORDED)) == 3
        assert len(recorded_findings(journal)) == number
    assert result.number(FindingKind.MISSING) == number
    assert len(result.examples) == 20


def test_the_end_is_on_record_with_its_numbers(tmp_path):
    journal, bucket = plain_world(tmp_path / "journal.db", 3)
    del bucket["a/k0001"]
    with journal:
        verify(journal, ListOnly({"blobs": bucket}), {"a": FLAT})
        [started] = events_of(journal, Kind.VERIFICATION_STARTED)
        [finished] = events_of(journal, Kind.VERIFICATION_FINISHED)
        [finding] = events_of(journal, Kind.FINDING_RECORDED)
    scope = {"until_seq": started.seq - 1, "sample": None, "sources": [1], "extra_fails": False}
    assert started.data == {
        "tier": "list",
        "tiers": ["list"],
        "asked": None,
        "who": "",
        "follows": None,
        **scope,
    }
    assert finished.data == {
        "run": started.seq,
        "tier": "list",
        **scope,
        "checked": 3,
        "right": {"md5": 2},
        "by_md5": 2,
        "by_size": 0,
        "missing": 1,
        "differing": 0,
        "extra": 0,
        "unsettled": 0,
        "skipped": 0,
        "counts": {"missing": 1},
        "bound": None,
        "exit_code": 4,
    }
    assert finding.source == 1
    assert finding.data["findings"] == [[FindingKind.MISSING, 2, "a/k0001", ""]]


class Failing(ListOnly):
    """Answers with failures first."""

    def __init__(self, objects, failures):
        super().__init__(objects)
        self.failures = failures
        self.refreshed = 0

    async def list_page(self, bucket, prefix, *, token):
        if self.failures:
            raise self.failures.pop(0)
        return await super().list_page(bucket, prefix, token=token)

    async def refresh_credentials(self):
        self.refreshed += 1


def failure(kind, *, answered=True):
    return Failure(kind, "LIST", f"it says {kind}", answered=answered)


def test_a_page_that_fails_is_asked_for_again_with_fresh_credentials_where_they_expired(tmp_path):
    journal, bucket = plain_world(tmp_path / "journal.db", 5)
    lister = Failing(
        {"blobs": bucket}, [failure(FailureClass.EXPIRED_CREDENTIALS), failure(FailureClass.SERVER)]
    )
    with journal:
        assert verify(journal, lister, {"a": FLAT}).by_digest == 5
    assert lister.refreshed == 1


def test_silence_is_counted_from_the_last_answer_and_not_from_the_first_failure(tmp_path):
    journal, bucket = plain_world(tmp_path / "journal.db", 5)

    class Slow(Failing):
        async def list_page(self, bucket, prefix, *, token):
            if self.failures:
                trio.lowlevel.current_clock().jump(35.0)
            return await super().list_page(bucket, prefix, token=token)

    silent = [failure(FailureClass.TIMEOUT, answered=False) for _ in range(4)]
    lister = Slow({"blobs": bucket}, [*silent[:2], failure(FailureClass.SERVER), *silent[2:]])
    with journal:
        assert verify(journal, lister, {"a": FLAT}).by_digest == 5


@pytest.mark.parametrize(
    ("kind", "answered", "times", "error", "code"),
    [
        (FailureClass.FORBIDDEN, True, 2, BackfillError, ExitCode.REFUSED),
        (FailureClass.NO_SUCH_BUCKET, True, 1, BackfillError, ExitCode.REFUSED),
        (FailureClass.SERVER, True, 3, BackfillError, ExitCode.FAILED),
        (FailureClass.TIMEOUT, False, 10_000, BackfillError, ExitCode.UNREACHABLE),
        (FailureClass.WRONG_REGION, True, 1, BackfillError, ExitCode.USAGE),
    ],
)
def test_a_listing_that_fails_for_good_ends_with_its_exit_code_and_no_verdict(
    tmp_path, kind, answered, times, error, code
):
    journal, bucket = plain_world(tmp_path / "journal.db", 5)
    lister = Failing({"blobs": bucket}, [failure(kind, answered=answered) for _ in range(times)])
    with journal:
        with pytest.raises(error) as caught:
            verify(journal, lister, {"a": FLAT})
        assert events_of(journal, Kind.VERIFICATION_FINISHED) == []
    assert caught.value.exit_code is code
    assert "list bucket blobs for source a" in caught.value.problem


def test_a_cancelled_verification_leaves_what_it_had_listed_and_nothing_else(tmp_path):
    journal, bucket = plain_world(tmp_path / "journal.db", 5)

    class Interrupted(ListOnly):
        async def list_page(self, bucket, prefix, *, token):
            if token is not None:
                raise KeyboardInterrupt
            return await super().list_page(bucket, prefix, token=token)

    with journal, pytest.raises(KeyboardInterrupt):
        verify(journal, Interrupted({"blobs": bucket}), {"a": FLAT})
    assert [path.name for path in tmp_path.glob("*.verify*")] == ["journal.db.verify"]


def test_pages_are_followed_by_token_to_the_last(tmp_path):
    journal, bucket = plain_world(tmp_path / "journal.db", 10)
    lister = ListOnly({"blobs": bucket}, page=3)
    with journal:
        assert verify(journal, lister, {"a": FLAT}).by_digest == 10
    assert lister.requests == 4


def test_an_empty_migration_is_verified_as_nothing(tmp_path):
    with write_journal(tmp_path / "journal.db", {"a": {}}) as journal:
        result = verify(journal, ListOnly({"blobs": {}}), {"a": FLAT})
    assert result.checked == 0
    assert result.exit_code is ExitCode.DONE
