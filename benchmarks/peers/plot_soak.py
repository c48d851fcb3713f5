"""Draw soak.json as one PNG: plot_soak.py SOAK PNG; settled keys, memory, file descriptors and WAL over time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

DAEMON = "#1b6ca8"
UPLOADERS = "#d08a3c"
MARK = "#b3403a"
GROUND = {"calm": "#eef4ee", "faults": "#fbf3e2", "deaths": "#f7e6e4", "the rest": "#eeeeee"}
DOTS_PER_INCH = 90
BREAK = float("nan")
"""Between two processes no line is drawn."""


def minutes(samples):
    return [sample["at"] / 60 for sample in samples]


def by_process(samples, of, what, divisor=1.0):
    """Return the values of one process after the other, with a gap where another begins or none runs."""
    values, before = [], 0
    for sample in samples:
        is_another = sample["pid"] != before
        before = sample["pid"]
        found = sample[of][what] / divisor
        values.append(BREAK if is_another or not found else found)
    return values


def ground(axes, samples):
    """Colour the phases, and name them at the top."""
    begin = 0
    for number, sample in enumerate(samples):
        is_last = number + 1 == len(samples)
        if is_last or samples[number + 1]["phase"] != sample["phase"]:
            left, right = samples[begin]["at"] / 60, samples[number if is_last else number + 1]["at"] / 60
            axes.axvspan(left, right, color=GROUND[sample["phase"]], zorder=0, linewidth=0)
            yield (left + right) / 2, right - left, sample["phase"]
            begin = number + 1


def settled(axes, samples):
    axes.plot(
        minutes(samples), [sample["progress"]["settled"] / 1e3 or BREAK for sample in samples], color=DAEMON
    )
    axes.set_ylabel("settled keys,\nthousands")


def usage(axes, samples, what, label, divisor=1.0):
    axes.plot(minutes(samples), by_process(samples, "uploaders", what, divisor), color=UPLOADERS,
              label="its upload processes together", linewidth=1)  # fmt: skip
    axes.plot(
        minutes(samples),
        by_process(samples, "daemon", what, divisor),
        color=DAEMON,
        label="daemon",
        linewidth=1,
    )
    axes.set_ylabel(label)


def wal(axes, samples):
    axes.plot(minutes(samples), [sample["wal"] / 1e6 for sample in samples], color=DAEMON, linewidth=1)
    axes.set_ylabel("journal's\nWAL, MB")


WIDTH_MIN = 1 / 300
"""Of a mark, as a share of the whole time: what is over at once is to be seen as well."""


def marks(axes, found):
    """Draw each fault as a bar from its beginning to its end, a row for each kind."""
    kinds = sorted(
        {fault["kind"] for fault in found["faults"]}, key=lambda kind: (not kind.startswith("SIG"), kind)
    )
    least = found["samples"][-1]["at"] * WIDTH_MIN
    for fault in found["faults"]:
        axes.barh(kinds.index(fault["kind"]), max(fault["end"] - fault["begin"], least) / 60, left=fault["begin"] / 60,
                  height=0.7, color=MARK, linewidth=0, zorder=2)  # fmt: skip
    axes.set_yticks(range(len(kinds)), kinds, fontsize=7.5)
    for row in range(len(kinds)):
        axes.axhline(row, color="white", linewidth=1, zorder=1)
    axes.set_ylim(len(kinds) - 0.4, -0.6)


def main():
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    samples = found["samples"]
    figure, panels = plt.subplots(
        6, 1, figsize=(11, 10), sharex=True, gridspec_kw={"height_ratios": [2, 2, 1.6, 1.2, 1.2, 2.6]}
    )
    settled(panels[0], samples)
    usage(panels[1], samples, "rss", "resident\nmemory, MB", 1e6)
    usage(panels[2], samples, "fds", "open file\ndescriptors")
    usage(panels[3], samples, "threads", "threads")
    wal(panels[4], samples)
    marks(panels[5], found)
    for axes in panels:
        spots = list(ground(axes, samples))
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[:5]:
        axes.set_ylim(0, axes.get_ylim()[1] * 1.08)
        axes.yaxis.set_label_coords(-0.06, 0.5)
        axes.grid(axis="y", color="white", linewidth=1)
        axes.set_axisbelow(True)
    for middle, _, phase in spots:
        panels[0].annotate(phase, (middle, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
                           textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    panels[1].legend(fontsize=8, loc="lower center")
    panels[5].set_xlabel("minutes")
    kills = sum(fault["kind"] == "SIGKILL" for fault in found["faults"])
    figure.suptitle(
        f"{found['minutes']:g} minutes of {found['rows']:,} rows, {len(found['faults'])} faults, {kills} of them SIGKILL of "
        f"the daemon (seed {found['seed']}): "
        + (
            "nothing lost, nothing leaked"
            if not found["problems"]
            else f"{len(found['problems'])} problem(s)"
        ),
        fontsize=9.5,
    )
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=DOTS_PER_INCH, metadata={"Software": None})


main()
