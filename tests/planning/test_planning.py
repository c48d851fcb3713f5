from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from daemon.config import SourceConfig
from daemon.errors import ConfigError, SourceUnfitError
from daemon.estimating import Tally
from daemon.planning import (
    RANGE_BLOCKS_MAX,
    RANGE_ROWS_TARGET,
    Change,
    Verdict,
    change_of,
    checked_cutoff,
    closing,
    next_range_blocks,
    range_end,
    refuse_undecided_nulls,
)
from daemon.rows import Exclusions
from journal.entries import Known
from journal.lifecycle import KeyState

CUTOFF = 1_700_000_000_000_000
SECOND = 1_000_000
GRACE = 300.0


@dataclass(frozen=True)
class Facts:
    now_us: int = CUTOFF + SECOND
    in_recovery: bool = False
    replay_us: int | None = None
    visible: bool = True
    pids: tuple[int, ...] = ()
    prepared: tuple[str, ...] = ()


def decide(facts: Facts):
    return closing(facts, cutoff_us=CUTOFF, late_grace=GRACE)


def test_a_range_grows_while_rows_and_time_allow() -> None:
    assert next_range_blocks(64, seen=10, seconds=0.01) == 128


def test_a_range_never_grows_past_its_bound() -> None:
    assert next_range_blocks(RANGE_BLOCKS_MAX, seen=0, seconds=0.0) == RANGE_BLOCKS_MAX


def test_many_rows_shrink_the_next_range_in_proportion() -> None:
    assert next_range_blocks(100, seen=2 * RANGE_ROWS_TARGET, seconds=0.1) == 50


def test_a_slow_range_shrinks_the_next_one_by_at_most_four() -> None:
    assert next_range_blocks(100, seen=1, seconds=60.0) == 25
    assert next_range_blocks(1, seen=1, seconds=60.0) == 1


@pytest.mark.parametrize(("first", "end"), [(0, 10), (89, 99), (90, None), (100, None)])
def test_the_range_that_reaches_the_relations_end_has_no_bound(first: int, end: int | None) -> None:
    assert range_end(first, blocks=10, relation_blocks=100) == end


@pytest.mark.parametrize(
    ("state", "size", "expected"),
    [
        (KeyState.VANISHED, 5, Change.REAPPEARED),
        (KeyState.STORED, 6, Change.CHANGED),
        (KeyState.PRESENT, 6, Change.CHANGED),
        (KeyState.STORED, 5, Change.NOTHING),
        (KeyState.PLANNED, 6, Change.NOTHING),
        (KeyState.IN_FLIGHT, 6, Change.NOTHING),
        (KeyState.PARKED, 6, Change.NOTHING),
        (KeyState.SKIPPED, 6, Change.NOTHING),
    ],
)
def test_a_known_key_is_planned_again_only_if_it_reappeared_or_changed(
    state: KeyState, size: int, expected: Change
) -> None:
    assert change_of(size, Known(3, state, 5, None)) is expected


def test_an_unknown_key_is_new() -> None:
    assert change_of(5, None) is Change.NEW


def test_closing_waits_until_the_servers_clock_has_passed_the_cutoff() -> None:
    decision = decide(Facts(now_us=CUTOFF - 2 * SECOND))
    assert (decision.verdict, decision.seconds) == (Verdict.WAIT, 2.0)
    assert decide(Facts(now_us=CUTOFF)).verdict is Verdict.WAIT


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        (Facts(pids=(41, 42)), "pid 41, 42"),
        (Facts(prepared=("gid",), now_us=CUTOFF + 10**12), "gid"),
        (Facts(prepared=("gid",), visible=False, now_us=CUTOFF + 10**12), "gid"),
        (Facts(pids=(41,), visible=False, now_us=CUTOFF + 10**12), "pid 41"),
    ],
)
def test_closing_waits_for_every_transaction_that_can_be_seen(facts: Facts, named: str) -> None:
    decision = decide(facts)
    assert decision.verdict is Verdict.WAIT
    assert named in decision.reason


def test_prepared_transactions_that_appear_later_do_not_hold_the_closing() -> None:
    first = decide(Facts(prepared=("old", "older")))
    assert first.suspects == {"old", "older"}
    second = closing(
        Facts(prepared=("old", "new")), cutoff_us=CUTOFF, late_grace=GRACE, suspects=first.suspects
    )
    assert (second.verdict, second.suspects) == (Verdict.WAIT, {"old"})
    last = closing(Facts(prepared=("new",)), cutoff_us=CUTOFF, late_grace=GRACE, suspects=second.suspects)
    assert last.verdict is Verdict.PROVEN


def test_prepared_transactions_are_not_suspected_apart_while_one_from_before_may_yet_be_prepared() -> None:
    assert decide(Facts(pids=(1,), prepared=("gid",))).suspects is None
    assert decide(Facts(visible=False, prepared=("gid",))).suspects is None


def test_a_cutoff_later_than_the_servers_clock_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected no later than the server's clock"):
        checked_cutoff(CUTOFF + 1, now_us=CUTOFF)


def test_the_cutoff_is_the_servers_clock_unless_configured() -> None:
    assert checked_cutoff(None, now_us=CUTOFF) == CUTOFF
    assert checked_cutoff(CUTOFF - 1, now_us=CUTOFF) == CUTOFF - 1


def test_closing_is_proven_once_no_transaction_from_before_the_cutoff_is_left() -> None:
    assert decide(Facts()).verdict is Verdict.PROVEN


def test_hidden_sessions_make_it_wait_for_late_grace_then_close_unproven() -> None:
    hidden = Facts(visible=False)
    assert decide(hidden).verdict is Verdict.WAIT
    assert decide(replace(hidden, now_us=CUTOFF + 300 * SECOND)).verdict is Verdict.WAIT
    late = decide(replace(hidden, now_us=CUTOFF + 301 * SECOND))
    assert late.verdict is Verdict.UNPROVEN
    assert "pg_read_all_stats" in late.reason


def test_a_standby_waits_for_replay_past_cutoff_and_late_grace_and_is_never_proven() -> None:
    standby = Facts(in_recovery=True, now_us=CUTOFF + 10**12)
    assert decide(standby).verdict is Verdict.WAIT
    assert decide(replace(standby, replay_us=CUTOFF + 300 * SECOND)).verdict is Verdict.WAIT
    assert decide(replace(standby, replay_us=CUTOFF + 301 * SECOND)).verdict is Verdict.UNPROVEN


def test_a_long_list_of_transactions_is_cut_in_the_reason() -> None:
    assert "and 2 more" in decide(Facts(pids=tuple(range(7)))).reason


def spec(**settings: object) -> SourceConfig:
    given = {"name": "s", "schema_name": "public", "table_name": "t", "bucket": "bucket", "key": ("id",)}
    return SourceConfig(**{**given, "value": "data", "created_at": "created_at", **settings})


def test_undecided_nulls_are_refused_with_count_key_and_both_choices() -> None:
    with pytest.raises(SourceUnfitError) as refused:
        refuse_undecided_nulls(spec(), Exclusions(null_created_at=3, null_value=4))
    for word in (
        "3 rows",
        "null_created_at",
        '"include"',
        "4 rows",
        "data",
        "null_value",
        '"exclude"',
        '"empty"',
    ):
        assert word in refused.value.problem
    assert "[[source]] or [layer_cache]" in refused.value.hint


@pytest.mark.parametrize(
    ("settings", "excluded"),
    [
        ({}, Exclusions(newer_than_cutoff=1, where=2)),
        ({"null_value": "exclude"}, Exclusions(null_value=4)),
        ({"null_created_at": "exclude"}, Exclusions(null_created_at=4)),
        ({"created_at": None}, Exclusions(null_created_at=4)),
    ],
)
def test_decided_or_absent_nulls_are_no_obstacle(settings: dict[str, object], excluded: Exclusions) -> None:
    refuse_undecided_nulls(spec(**settings), excluded)


def test_an_estimate_counts_requests_dollars_and_size_classes() -> None:
    tally = Tally(unusable=1)
    tally.add_sizes([0, 1, 2, 3, 4, 2**30] + [1024] * 1995)
    estimate = tally.estimate()
    assert (estimate.rows, estimate.put_requests, estimate.list_requests) == (2001, 2000, 2)
    assert [(c.low, c.high, c.rows) for c in estimate.histogram] == [
        (0, 0, 1),
        (1, 1, 1),
        (2, 3, 2),
        (4, 7, 1),
        (1024, 2047, 1995),
        (2**30, 2**31 - 1, 1),
    ]
    assert estimate.put_dollars == pytest.approx(0.01)
    assert estimate.head_dollars == pytest.approx(0.0008)
    assert estimate.list_dollars == pytest.approx(0.00001)
    assert estimate.storage_dollars_per_month == pytest.approx(0.023, rel=0.01)
    assert estimate.largest == 2**30


def test_tallies_of_relations_add_up() -> None:
    one, other = Tally(seen=3, unusable=1, unusable_example="x"), Tally(seen=4)
    one.add_sizes([5])
    other.add_sizes([6, 100])
    total = Tally()
    total.add(one)
    total.add(other)
    assert (total.seen, total.estimate().size, total.unusable_example, total.largest) == (7, 111, "x", 100)


def test_what_scans_left_out_adds_up_reason_by_reason():
    found = Exclusions(newer_than_cutoff=1, where=2, null_created_at=3, null_value=4)
    found.add(Exclusions(newer_than_cutoff=10, where=20, null_created_at=30, null_value=40))
    assert found.as_dict() == {"newer_than_cutoff": 11, "where": 22, "null_created_at": 33, "null_value": 44}


def test_five_names_are_told_and_more_are_counted():
    for pids, told in (((1, 2, 3, 4, 5), "1, 2, 3, 4, 5"), (tuple(range(7)), "0, 1, 2, 3, 4 and 2 more")):
        assert decide(Facts(pids=pids)).reason.endswith(f"pid {told}")
