"""Draw results.json as one PNG: plot.py RESULTS PNG; panels without figures are left out."""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

OURS = "#1b6ca8"
OTHERS = "#9aa5b1"
DOTS_PER_INCH = 90


def rates(scenario):
    """Return median, lowest and highest objects/s by arm, of the arms that ran."""
    found = {}
    for arm, samples in scenario["arms"].items():
        if samples:
            each = [sample["objects"] / sample["seconds"] for sample in samples]
            found[arm] = (statistics.median(each), min(each), max(each))
    return found


def colour(arm):
    return OURS if arm.startswith("ours") else OTHERS


def short(arm):
    return arm.partition(" (")[0].replace("asyncpg + ", "")


def bars(axes, scenario):
    found = dict(sorted(rates(scenario).items(), key=lambda item: item[1][0]))
    middles = [median for median, _, _ in found.values()]
    spans = [[m - low for m, low, _ in found.values()], [high - m for m, _, high in found.values()]]
    axes.barh(
        [short(arm) for arm in found], middles, xerr=spans, color=[colour(arm) for arm in found], capsize=3
    )
    axes.set_xlabel("objects/s, median with lowest and highest")
    axes.set_title(scenario["title"], fontsize=9)


def sizes(axes, scenarios):
    arms = ("ours", "asyncpg + obstore", "s5cmd alone")
    shades = dict(zip(arms, (OURS, OTHERS, "#d0a85c"), strict=True))
    for number, arm in enumerate(arms):
        places, heights = [], []
        for place, scenario in enumerate(scenarios):
            found = rates(scenario)
            if arm in found:
                places.append(place + (number - 1) * 0.27)
                heights.append(found[arm][0] * scenario["mean_bytes"] / 1e6)
        axes.bar(places, heights, 0.25, label=short(arm), color=shades[arm])
    axes.set_xticks(range(len(scenarios)), [scenario["name"] for scenario in scenarios])
    axes.set_ylabel("MB/s, median")
    axes.set_title("null sink, 64 connections, by size of values", fontsize=9)
    axes.legend(fontsize=8)


def processes(axes, scenario):
    found = {
        int(match[1] or 1): figures
        for arm, figures in rates(scenario).items()
        if (match := re.fullmatch(r"ours(?:, (\d+) processes)?", arm))
    }
    middles = [median for median, _, _ in found.values()]
    spans = [[m - low for m, low, _ in found.values()], [high - m for m, _, high in found.values()]]
    axes.errorbar(list(found), middles, yerr=spans, marker="o", color=OURS, capsize=3, label="ours")
    other = rates(scenario).get("asyncpg + obstore")
    if other:
        axes.axhline(other[0], color=OTHERS, label="asyncpg + obstore, one process")
    axes.set_xticks(list(found))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("processes")
    axes.set_ylabel("objects/s")
    axes.set_title(scenario["title"], fontsize=9)
    axes.legend(fontsize=8)


def planning(axes, found):
    axes.loglog(
        [plan["rows"] for plan in found["ours"]],
        [plan["indexed"] for plan in found["ours"]],
        marker="o",
        color=OURS,
        label="ours: read, staged, sorted, sealed, indexed",
    )
    axes.loglog(
        [paged["rows"] for paged in found["ancestor"]],
        [paged["seconds"] for paged in found["ancestor"]],
        marker="o",
        color=OTHERS,
        label="the ancestor's pagination"
        + (
            " (beyond 300,000 rows: extrapolated)"
            if any(paged["is_extrapolated"] for paged in found["ancestor"])
            else ""
        ),
    )
    axes.set_xlabel("rows")
    axes.set_ylabel("seconds")
    axes.set_title("planning", fontsize=9)
    axes.legend(fontsize=8)


def memory(axes, results):
    peaks = results["memory"]["by_value"]
    sizes = [peak["value_bytes"] for peak in peaks]
    axes.semilogx(sizes, [peak["peak_mb"] for peak in peaks], base=2, marker="o", color=OURS, label="ours")
    limits = [peak["limit_mb"] for peak in peaks]
    axes.semilogx(sizes, limits, base=2, color=OTHERS, linestyle="--", label="its limit")
    axes.set_ylim(bottom=0)
    names = [f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB" for size in sizes]
    axes.set_xticks(sizes, names, rotation=30, ha="right")
    axes.set_xlabel("size of every value")
    axes.set_ylabel("peak MB")
    axes.set_title("memory of `run` by size of values", fontsize=9)
    axes.legend(fontsize=8)


def main():
    results = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    scenarios = {scenario["name"]: scenario for scenario in results["scenarios"]}
    panels = [(bars, scenarios[name]) for name in ("4k", "weed") if name in scenarios]
    sized = [scenarios[name] for name in ("64k", "1m", "mix") if name in scenarios]
    panels += [(sizes, sized)] if sized else []
    panels += [(processes, scenarios["processes"])] if "processes" in scenarios else []
    panels += [(planning, results["planning"])] if results.get("planning") else []
    panels += [(memory, results)] if results.get("memory") else []
    if not panels:
        return
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure, grid = plt.subplots(lines, columns, figsize=(6.2 * columns, 3.4 * lines), squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (draw, found) in zip(grid.flat, panels, strict=False):
        draw(axes, found)
    figure.suptitle(
        f"backfillctl on {results['machine']['cores']} cores, {results['machine']['at'][:10]}", fontsize=10
    )
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=DOTS_PER_INCH, metadata={"Software": None})


main()
