"""Rotation, ratios, verdicts and tables of the benchmarks; nothing here is timed."""

import pytest

from benchmarks import readme as readme_marks
from benchmarks import table, targets
from benchmarks.__main__ import GROUPS, arguments
from benchmarks.arms import Sample
from benchmarks.memory import MIB, Memory, Peak, peak_mb_max
from benchmarks.planning_rate import Planned, Planning
from benchmarks.quietness import others_cores
from benchmarks.scenarios import SCENARIOS, Arm, Kind, quick
from benchmarks.servers import MIX_MAX, mixed_sizes
from benchmarks.summing_up import Spread, latency_bound, ratio, spread
from benchmarks.throughput import Measured, rotated

FOUR_K = next(scenario for scenario in SCENARIOS if scenario.name == "4k")


def samples(*rates, objects=1000):
    return [Sample(objects, objects / rate, 1.0, 0.25, 80.0) for rate in rates]


def verdict_of(verdicts, beginning):
    (found,) = [verdict for verdict in verdicts if verdict.target.startswith(beginning)]
    return found


def test_each_arm_is_first_once_in_as_many_rounds_as_there_are_arms():
    orders = [rotated("abc", turn) for turn in range(4)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_a_ratio_is_taken_round_by_round():
    assert ratio([10, 40, 90], [10, 20, 30]) == Spread(2, 1, 3)


def test_a_round_that_one_side_lacks_is_left_out():
    assert ratio([10, 40], [5]) == Spread(2, 2, 2)
    assert ratio([], [5]) is None


def test_a_spread_of_one_figure_is_that_figure():
    assert spread([7]) == Spread(7, 7, 7)


def test_the_latency_bound_is_one_request_at_a_time_on_each_connection():
    assert latency_bound(64, 30.0) == pytest.approx(2133.3, abs=0.1)


def test_a_ratio_is_judged_by_the_median_of_the_rounds():
    found = {Kind.OURS.value: samples(1000, 1400, 1300), Kind.S5CMD.value: samples(1000, 1000, 1000)}
    measured = Measured(FOUR_K, {arm.name: found.get(arm.name, []) for arm in FOUR_K.arms})
    verdicts = targets.of_throughput({"4k": measured})
    judged = verdict_of(verdicts, "4 KiB, against s5cmd")
    assert (judged.found, judged.word) == ("1.30x", "met")
    assert verdict_of(verdicts, "4 KiB, against asyncpg").word == "not measured"


def test_planning_is_judged_at_the_most_rows_and_for_its_line():
    plans = [
        Planned(1_000_000, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0, 90.0),
        Planned(10_000_000, 20.0, 30.0, 60.0, 80.0, 90.0, 80.0, 140.0),
    ]
    verdicts = targets.of_planning(Planning(plans, [], 90.0, 10_000_000))
    assert [verdict.word for verdict in verdicts] == ["met", "MISSED", "MISSED"]
    assert verdicts[2].found == "0.62x"


def test_memory_is_judged_by_the_largest_of_all_numbers_of_rows_and_by_each_size():
    memory = Memory(
        [Peak(1000, 9, 80.0, 150.0)],
        [Peak(4, size * MIB, peak, peak_mb_max(size * MIB)) for size, peak in ((256, 600.0), (512, 1500.0))],
    )
    planning = Planning([Planned(10, 1, 1, 1, 1, 1, 1, 160.0)], [], 90.0, 10)
    rows, usual, large = targets.of_memory(memory, planning)
    assert (rows.found, rows.word) == ("160 MB", "MISSED")
    assert (usual.expected, usual.word) == ("<= 657 MB", "met")
    assert (large.expected, large.word) == ("<= 1194 MB", "MISSED")


def test_nothing_measured_is_said_so_and_not_missed():
    verdicts = [
        *targets.of_throughput({}),
        *targets.of_planning(None),
        *targets.of_memory(None, None),
        *targets.of_journal(None),
    ]
    assert {verdict.word for verdict in verdicts} == {"not measured"}
    assert "not measured" in table.of_targets(verdicts)


def test_the_table_of_a_scenario_compares_with_its_first_arm_and_names_what_failed():
    scenario = FOUR_K
    measured = Measured(scenario, {arm.name: samples(500, 600, 700) for arm in scenario.arms})
    measured.samples[Kind.OURS.value] = samples(1000, 1200, 1400)
    measured.failures[Kind.RCLONE.value] = "exit code 1"
    lines = table.of_scenario(measured).splitlines()
    assert "| ours | 1,200 (1,000 to 1,400) | 0.250 | 80 |  |" in lines
    assert "| s5cmd alone | 600 (500 to 700) | 0.250 | 80 | 2.00 (2.00 to 2.00)x |" in lines
    assert "| rclone alone | failed |  |  |  |" in lines


def test_arms_are_told_apart_by_their_names():
    for scenario in SCENARIOS:
        assert len({arm.name for arm in scenario.arms}) == len(scenario.arms)
        assert scenario.arms[0] in {Arm(Kind.OURS), Arm(Kind.OURS, scenario.arms[0].rows)}


def test_a_smoke_run_has_the_same_arms_and_fewer_rows():
    for scenario in SCENARIOS:
        small = quick(scenario)
        assert [arm.name for arm in small.arms] == [arm.name for arm in scenario.arms]
        assert all((arm.rows or small.table.rows) <= small.table.rows for arm in small.arms)


def test_mixed_sizes_are_always_the_same_and_reach_from_small_to_the_largest():
    sizes = mixed_sizes(8000)
    assert sizes == mixed_sizes(8000)
    assert sorted(sizes)[4000] == pytest.approx(4096, rel=0.1)
    assert min(sizes) >= 1
    assert 4 * MIB < max(sizes) <= MIX_MAX


def test_fewer_than_three_rounds_are_refused_but_for_a_smoke_run(capsys):
    assert arguments([]).only == list(GROUPS)
    assert arguments(["--quick"]).rounds == 1
    with pytest.raises(SystemExit):
        arguments(["--rounds", "2"])
    assert "at least 3" in capsys.readouterr().err


def test_results_take_the_place_of_those_before_and_leave_the_rest():
    readme = f"before\n{readme_marks.BEGIN}old\n{readme_marks.END}after\n"
    assert readme_marks.pasted(readme, "new\n") == readme.replace("old", "new")
    with pytest.raises(ValueError, match="no such pair"):
        readme_marks.pasted("before\n", "new\n")


def test_others_are_what_the_machine_did_beyond_client_and_servers():
    assert others_cores(machine=6.0, client=2.0, servers=1.0, wall=2.0) == 1.5
    assert others_cores(machine=2.9, client=2.0, servers=1.0, wall=2.0) == 0.0


def test_a_disturbed_scenario_says_so_and_a_quiet_one_does_not():
    def scenario(*shares):
        found = [Sample(1, 1.0, 1.0, 1.0, 80.0, {"others_cores": share}) for share in shares]
        return Measured(FOUR_K, {Kind.OURS.value: found})

    assert (
        table.disturbance(scenario(0.1, 0.1, 0.5)) == " (not quiet: others kept 0.1 cores busy, at most 0.5)"
    )
    assert table.disturbance(scenario(0.1, 0.1)) == ""
