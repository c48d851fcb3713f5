"""The results as Markdown: what is printed is what README shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.summing_up import Spread, ratio, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.journal_at_scale import AtScale
    from benchmarks.memory import Memory
    from benchmarks.planning_rate import Planning
    from benchmarks.targets import Verdict
    from benchmarks.throughput import Measured


QUIET_CORES = 0.2
"""Others that keep more busy than this are told."""


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first column is text, the others are figures."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def between(found: Spread, form: str) -> str:
    """Return "median (lowest to highest)"."""
    return f"{found.median:{form}} ({found.lowest:{form}} to {found.highest:{form}})"


def of_scenario(measured: Measured) -> str:
    """Return one scenario's table; the last column is the first arm's rate over this one's, round by round."""
    first = measured.scenario.arms[0].name
    size = measured.scenario.table.size
    head = [
        "arm",
        "objects/s",
        *(["MB/s"] if size is None or size > 4096 else []),
        "CPU ms/object",
        "peak MB",
        "ours is",
    ]
    rows = []
    for arm in measured.scenario.arms:
        samples = measured.samples[arm.name]
        if arm.name in measured.failures or not samples:
            rows.append([arm.name, "failed", *("" for _ in head[2:])])
            continue
        rate = spread(sample.rate for sample in samples)
        over = ratio([sample.rate for sample in measured.samples[first]], [sample.rate for sample in samples])
        is_reference = arm.name == first or over is None
        rows.append(
            [
                arm.name,
                between(rate, ",.0f"),
                *([f"{rate.median * measured.mean_bytes / 1e6:,.0f}"] if len(head) == 6 else []),
                f"{spread(sample.cpu_ms for sample in samples).median:.3f}",
                f"{max(sample.peak_mb for sample in samples):.0f}",
                "" if is_reference or over is None else between(over, ".2f") + "x",
            ]
        )
    return f"**{measured.scenario.title}**{disturbance(measured)}\n\n{markdown(head, rows)}"


def disturbance(measured: Measured) -> str:
    """Return how much others disturbed the scenario, if it is worth a word."""
    shares = [
        sample.further["others_cores"]
        for samples in measured.samples.values()
        for sample in samples
        if "others_cores" in sample.further
    ]
    return _told(shares)


def _told(shares: Sequence[float]) -> str:
    if not shares or max(shares) < QUIET_CORES:
        return ""
    found = spread(shares)
    return f" (not quiet: others kept {found.median:.1f} cores busy, at most {found.highest:.1f})"


def of_planning(planning: Planning) -> str:
    """Return planning's table and the ancestor's pagination."""
    ours = [
        [
            f"ours, {plan.rows:,} rows",
            f"{plan.rows / plan.staged:,.0f}",
            f"{plan.rows / plan.indexed:,.0f}",
            f"{plan.indexed:.1f}",
            f"{plan.peak_mb:.0f}",
        ]
        for plan in planning.ours
    ]
    ancestor = [
        [
            f"ancestor's pagination, {paged.rows:,} rows"
            + (f" (extrapolated from {paged.pages_read} pages)" if paged.is_extrapolated else ""),
            f"{paged.rows / paged.seconds:,.0f}",
            "",
            f"{paged.seconds:,.1f}",
            "",
        ]
        for paged in planning.ancestor
    ]
    head = ["planning", "keys/s read and staged", "keys/s sealed and indexed", "seconds in all", "peak MB"]
    disturbed = _told([plan.others_cores for plan in planning.ours])
    return f"**Planning**{disturbed}\n\n{markdown(head, [*ours, *ancestor])}"


def of_memory(memory: Memory) -> str:
    """Return the peaks of `run`."""
    rows = [
        [f"{peak.rows:,} rows of {peak.value_bytes:,} bytes", f"{peak.peak_mb:.0f}"]
        for peak in (*memory.by_rows, *memory.by_value)
    ]
    return (
        f"**Peak memory of `run`**, `max_in_flight` at its default\n\n{markdown(['rows', 'peak MB'], rows)}"
    )


def of_journal(found: AtScale) -> str:
    """Return what the journal costs."""
    rows = [
        ["CPU per key: plan + claim + outcome", f"{found.plan_us:.1f} + {found.claim_us:.1f} + {found.outcome_us:.1f} us"],
        ["size per key", f"{found.bytes_per_key:.0f} B"],
        ["open, recover 1000 keys in flight, claim", f"{found.resume_ms:.1f} ms"],
        ["status query", f"{found.status_query_ms:.1f} ms"],
        ["`status`, from process start to end", f"{found.status_command_ms:.0f} ms"],
        ["peak memory of what wrote it", f"{found.peak_mb:.0f} MB"],
    ]  # fmt: skip
    return f"**Journal at {found.keys:,} keys**\n\n{markdown(['', ''], rows)}"


def of_targets(verdicts: Sequence[Verdict]) -> str:
    """Return every target with what was found."""
    rows = [[verdict.target, verdict.expected, verdict.found or "", verdict.word] for verdict in verdicts]
    return f"**Targets**\n\n{markdown(['target', 'expected', 'found', ''], rows)}"
