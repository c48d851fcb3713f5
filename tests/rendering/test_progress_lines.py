from __future__ import annotations

import pytest

from daemon import rendering_units as units
from daemon.rendering_bars import bar_lines, fitting
from daemon.rendering_progress import (
    TOTAL,
    Meters,
    Progress,
    SourceProgress,
    final_line,
    progress_line,
)
from journal.checkpoint import Checkpoint, Position
from journal.entries import SourceCounts

MIB = 1024**2
CUTOFF_US = 1_768_404_645_123_456
SAFE = Checkpoint(Position(CUTOFF_US - 1, "k"), cutoff_us=CUTOFF_US)


def source(
    name="cas", *, settled=0, planned=10_000, checkpoint=SAFE, is_planned=True, scanned=None, **counts
):
    return SourceProgress(
        name,
        SourceCounts(
            planned_rows=planned,
            planned_bytes=planned * MIB,
            stored=settled,
            stored_bytes=settled * MIB,
            settled_bytes=settled * MIB,
            **counts,
        ),
        checkpoint,
        is_planned,
        scanned,
    )


def readings_after(seconds, *sources, state="running", before=0):
    meters = Meters()
    meters.read(0.0, Progress(state, tuple(source(each.name, settled=before) for each in sources)))
    progress = Progress(state, tuple(sources))
    return progress, meters.read(seconds, progress)


def test_a_running_source_is_one_line_with_everything_an_operator_asks_for():
    _, [reading] = readings_after(60.0, source(settled=4120, in_flight=64, unclaimed=5816))
    assert progress_line(reading) == (
        "cas 41.2 % · 69 obj/s · 68.6 MiB/s · ETA 1m25s · parked 0 · in flight 64"
        " · checkpoint 2026-01-14T15:30:45.123456Z"
    )


def test_a_checkpoint_held_by_parked_keys_says_so():
    held = Checkpoint(SAFE.position, cutoff_us=CUTOFF_US, held_by_parked=3)
    _, [reading] = readings_after(60.0, source(settled=4120, parked=3, checkpoint=held))
    assert progress_line(reading).endswith(
        "parked 3 · in flight 0 · checkpoint 2026-01-14T15:30:45.123456Z (held by 3 parked keys)"
    )


def test_oldest_first_prints_the_mirror_and_not_a_cutoff():
    mirror = Checkpoint(SAFE.position, floor_us=CUTOFF_US)
    _, [reading] = readings_after(60.0, source(settled=4120, checkpoint=mirror))
    assert progress_line(reading).endswith("checkpoint after 2026-01-14T15:30:45.123456Z")


def test_a_source_being_planned_shows_what_was_read_and_no_eta():
    _, [reading] = readings_after(
        100.0,
        source(planned=0, checkpoint=Checkpoint(), is_planned=False, scanned=1_234_567),
        state="planning",
    )
    assert progress_line(reading, state="planning") == (
        "cas planning · scanned 1,234,567 rows · 0.0 obj/s · 0 B/s · ETA - · parked 0"
        " · in flight 0 · checkpoint none"
    )


def test_an_empty_source_is_nothing_to_do_rather_than_zero_percent():
    _, [reading] = readings_after(1.0, source(planned=0, checkpoint=Checkpoint()))
    assert progress_line(reading).startswith("cas nothing to do · ")


def test_the_total_sums_all_sources_and_has_no_checkpoint():
    _, readings = readings_after(
        60.0, source("a", settled=100, in_flight=1), source("b", settled=300, in_flight=2)
    )
    assert [reading.name for reading in readings] == ["a", "b", TOTAL]
    assert progress_line(readings[-1]).startswith("total 2.0 % · 6.7 obj/s · 6.66 MiB/s · ETA ")
    assert progress_line(readings[-1]).endswith("parked 0 · in flight 3")


def test_one_source_has_no_total():
    _, readings = readings_after(1.0, source())
    assert [reading.name for reading in readings] == ["cas"]


def test_the_final_line_states_outcome_every_count_bytes_duration_and_exit_code():
    counts = [
        source("a", settled=10, planned=20, recovered=1, present=2, skipped=3, vanished=4).counts,
        source("b", parked=5, in_flight=6, pending=7, unclaimed=8).counts,
    ]
    assert final_line("drained", counts, uploaded=6 * MIB, seconds=3725.0, exit_code=143) == (
        "drained: 11 stored, 2 present, 3 skipped, 4 vanished, 5 parked, 6 in flight, 15 waiting;"
        " 6.00 MiB uploaded in 1h02m; exit code 143"
    )


def test_the_final_line_without_a_journal_says_so():
    assert final_line("did not start", None, uploaded=0, seconds=0.4, exit_code=2) == (
        "did not start: no keys on record; 0 B uploaded in 0s; exit code 2"
    )


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("height", [1, 3, 10, 24])
def test_bars_never_exceed_the_terminal(width, height):
    sources = [
        source(name, settled=number * 300, in_flight=64, parked=number)
        for number, name in enumerate(
            ["cas", "日本語" * 12, "evil\x1b[2J\nname", *(f"source_{i}" for i in range(12))]
        )
    ]
    progress, readings = readings_after(90.0, *sources)
    lines = bar_lines(progress, readings, width=width, height=height)
    assert len(lines) <= max(height, 3)
    assert all(units.cells(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)


def test_bars_at_80_columns_show_pace_parked_and_the_whole_checkpoint():
    held = Checkpoint(SAFE.position, cutoff_us=CUTOFF_US, held_by_parked=3)
    progress, readings = readings_after(
        60.0,
        source("workspace_snapshot", settled=4120, in_flight=64, parked=3, checkpoint=held),
        state="running",
    )
    assert bar_lines(progress, readings, width=80, height=24) == [
        "workspace_snapshot  ━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌  41.2 %  69 obj/s  68.6 MiB/s  ETA 1m25s",
        "  in flight 64 · checkpoint 2026-01-14T15:30:45.123456Z (held by 3 parked keys)",
    ]


def test_a_low_terminal_keeps_the_total_and_what_is_unfinished():
    sources = [source("done", settled=10_000), source("busy", settled=5), source("late", settled=0)]
    progress, readings = readings_after(60.0, *sources)
    assert [reading.name for reading in fitting(readings, 2)] == ["busy", TOTAL]
    lines = bar_lines(progress, readings, width=80, height=6)
    assert lines[-1] == "2 more sources: `backfillctl status` shows all"


def test_a_full_bar_means_all_settled():
    _, nearly = readings_after(60.0, source(settled=9_999))
    progress, done = readings_after(60.0, source(settled=10_000))
    assert "╌" in bar_lines(progress, nearly, width=80, height=24)[0]
    assert "╌" not in bar_lines(progress, done, width=80, height=24)[0]
