"""A soak's faults are drawn from its seed alone, each where it belongs."""

from __future__ import annotations

from itertools import pairwise

from benchmarks.endurance.schedule import AT_ONCE, Kind, Phase, faults, spans

HOURS = 60.0


def test_the_same_seed_draws_the_same_faults_and_another_one_others():
    time = spans(HOURS)
    assert faults(time, 3) == faults(time, 3) != faults(time, 4)


def test_every_kind_of_fault_is_drawn():
    assert {fault.kind for fault in faults(spans(HOURS), 3)} == set(Kind)


def test_nothing_is_done_in_a_calm_stretch_and_no_fault_outlasts_its_phase():
    time = spans(HOURS)
    for fault in faults(time, 3):
        (span,) = [one for one in time if one.begin <= fault.begin < one.end]
        assert span.phase is not Phase.CALM
        assert fault.end <= span.end


def test_what_a_daemon_must_outlive_comes_one_by_one_and_never_kills_it():
    outlived = [span for span in spans(HOURS) if span.phase is Phase.FAULTS]
    drawn = faults(outlived, 3)
    assert not {Kind.KILL, Kind.TERMINATE} & {fault.kind for fault in drawn}
    assert all(before.end <= after.begin for before, after in pairwise(drawn))


def test_two_faults_of_one_kind_never_overlap():
    last = dict.fromkeys(Kind, 0.0)
    for fault in faults(spans(HOURS), 3):
        assert fault.begin > last[fault.kind]
        last[fault.kind] = fault.end
        assert (fault.begin == fault.end) == (fault.kind in AT_ONCE)
