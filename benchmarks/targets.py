"""The targets: per target what is expected, what this run found, met or missed; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.memory import KIB, MIB, PEAK_MB_MAX
from benchmarks.scenarios import LATENCY_MS, Arm, Kind
from benchmarks.summing_up import latency_bound, ratio, spread

if TYPE_CHECKING:
    from benchmarks.journal_at_scale import AtScale
    from benchmarks.memory import Memory
    from benchmarks.planning_rate import Planned, Planning
    from benchmarks.throughput import Measured

S5CMD_RATIO_MIN = 1.3
OBSTORE_RATIO_MIN = 1.0
ANCESTOR_RATIO_MIN = 18.0
LARGE_RATIO_MIN = 0.9
LATENCY_SHARE_MIN = 0.92
STAGED_RATE_MIN = 250_000
INDEXED_RATE_MIN = 150_000
LINEAR_MIN = 0.7
"""Planning counts as linear if the rate at the most rows is at least this share of the rate at a tenth of them."""
TLS_RATIO_MAX = 1.5
PROCESSES_RATIO_MIN = 1.4
RESUME_MS_MAX = 50.0
STATUS_MS_MAX = 400.0
JOURNAL_BYTES_MAX = 130.0

OURS = Arm(Kind.OURS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target; `found` and `is_met` are None where this run has no measurement."""

    target: str
    expected: str
    found: str | None
    is_met: bool | None

    @property
    def word(self) -> str:
        """Met, missed or not measured."""
        return "not measured" if self.is_met is None else "met" if self.is_met else "MISSED"


def _at_least(target: str, found: float | None, limit: float, form: str, unit: str) -> Verdict:
    expected = f">= {limit:{form}}{unit}"
    if found is None:
        return Verdict(target, expected, None, None)
    return Verdict(target, expected, f"{found:{form}}{unit}", found >= limit)


def _at_most(target: str, found: float | None, limit: float, form: str, unit: str) -> Verdict:
    expected = f"<= {limit:{form}}{unit}"
    if found is None:
        return Verdict(target, expected, None, None)
    return Verdict(target, expected, f"{found:{form}}{unit}", found <= limit)


def _rates(measured: dict[str, Measured], scenario: str, arm: Arm) -> list[float]:
    found = measured.get(scenario)
    return [sample.rate for sample in found.samples[arm.name]] if found else []


def _median_ratio(measured: dict[str, Measured], scenario: str, other: Arm, ours: Arm = OURS) -> float | None:
    found = ratio(_rates(measured, scenario, ours), _rates(measured, scenario, other))
    return found.median if found else None


def of_throughput(measured: dict[str, Measured]) -> list[Verdict]:
    """Judge the scenarios; ratios are medians of the rounds' ratios."""
    encrypted = Arm(Kind.OURS, is_encrypted=True)
    delayed = _rates(measured, "latency-64", OURS)
    share = spread(delayed).median / latency_bound(64, LATENCY_MS) * 100 if delayed else None
    plain_over_tls = _median_ratio(measured, "tls", encrypted)
    return [
        _at_least("4 KiB, against s5cmd alone", _median_ratio(measured, "4k", Arm(Kind.S5CMD)), S5CMD_RATIO_MIN, ".2f", "x"),
        _at_least("4 KiB, against asyncpg + obstore", _median_ratio(measured, "4k", Arm(Kind.OBSTORE)), OBSTORE_RATIO_MIN, ".2f", "x"),
        _at_least("4 KiB, against the ancestor's pattern", _median_ratio(measured, "4k", Arm(Kind.HEAD_PUT)), ANCESTOR_RATIO_MIN, ".1f", "x"),
        _at_least("1 MiB, against asyncpg + obstore", _median_ratio(measured, "1m", Arm(Kind.OBSTORE)), LARGE_RATIO_MIN, ".2f", "x"),
        _at_least("share of the latency bound, 64 connections, 30 ms", share, LATENCY_SHARE_MIN * 100, ".1f", " %"),
        _at_most("4 KiB, plain over TLS", plain_over_tls, TLS_RATIO_MAX, ".2f", "x"),
        _at_least(
            "30 ms, 256 connections, two processes over one",
            _median_ratio(measured, "processes", OURS, Arm(Kind.OURS, processes=2)),
            PROCESSES_RATIO_MIN,
            ".2f",
            "x",
        ),
    ]  # fmt: skip


def of_planning(planning: Planning | None) -> list[Verdict]:
    """Judge planning at the most rows, and whether it got there in a straight line."""
    plans: list[Planned] = planning.ours if planning else []
    last = plans[-1] if plans else None
    linear = None
    if len(plans) > 1:
        before, after = plans[-2:]
        linear = (after.rows / after.indexed) / (before.rows / before.indexed)
    where = f", {last.rows:,} rows" if last else ""
    return [
        _at_least(f"planning, read and staged{where}", last and last.rows / last.staged, STAGED_RATE_MIN, ",.0f", " keys/s"),
        _at_least(f"planning, sealed and indexed{where}", last and last.rows / last.indexed, INDEXED_RATE_MIN, ",.0f", " keys/s"),
        _at_least(f"planning is linear: rate{where}, over that of the size before", linear, LINEAR_MIN, ".2f", "x"),
    ]  # fmt: skip


def of_memory(memory: Memory | None, planning: Planning | None) -> list[Verdict]:
    """Judge peaks: by rows against one limit, by size of values against the limit of each size."""
    verdicts = []
    peaks = [(f"run of {peak.rows:,} rows", peak.peak_mb) for peak in memory.by_rows] if memory else []
    if planning:
        peaks += [(f"plan of {plan.rows:,} rows", plan.peak_mb) for plan in planning.ours]
        peaks.append((f"run beside a plan of {planning.run_plan_rows:,} rows", planning.run_peak_mb))
    worst = max(peaks, key=lambda peak: peak[1], default=None)
    name = (
        f"peak memory at any number of rows (largest: {worst[0]})"
        if worst
        else "peak memory at any number of rows"
    )
    verdicts.append(_at_most(name, worst and worst[1], PEAK_MB_MAX, ".0f", " MB"))
    for peak in memory.by_value if memory else []:
        size = (
            f"{peak.value_bytes // KIB} KiB" if peak.value_bytes < MIB else f"{peak.value_bytes // MIB} MiB"
        )
        verdicts.append(_at_most(f"peak memory, values of {size}", peak.peak_mb, peak.limit_mb, ".0f", " MB"))
    return verdicts


def of_journal(at_scale: AtScale | None) -> list[Verdict]:
    """Judge the journal at its largest."""
    where = f", {at_scale.keys:,} keys" if at_scale else ""
    return [
        _at_most(f"journal, bytes per key{where}", at_scale and at_scale.bytes_per_key, JOURNAL_BYTES_MAX, ".0f", " B"),
        _at_most(f"open and resume{where}", at_scale and at_scale.resume_ms, RESUME_MS_MAX, ".1f", " ms"),
        _at_most(f"status, from process start to end{where}", at_scale and at_scale.status_command_ms, STATUS_MS_MAX, ".0f", " ms"),
    ]  # fmt: skip
