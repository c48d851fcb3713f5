from __future__ import annotations

import dataclasses

import pytest

from daemon import rendering_units as units
from daemon.rendering_view import view
from daemon.rendering_watch import HEIGHT_MIN, WIDTH_MIN, trouble_rows, watch_rows
from journal.status import FailureStatus
from tests.rendering.courses import COURSES, Course
from tests.rendering.golden_files import assert_golden
from tests.rendering.statuses import ALL, HOSTILE_KEY, NOW_US, closed

EVERY = {**ALL, **COURSES}
LONG_NAMES = [f"a_source_whose_name_is_rather_long_{number}" for number in range(40)]


def rows(found, width=100, height=30):
    return [row.text for row in watch_rows(view(found, now_us=NOW_US), width=width, height=height)]


@pytest.mark.parametrize(("width", "height"), [(140, 40), (80, 24), (40, 12)])
@pytest.mark.parametrize("name", ["running", "going", "throttled", "paused", "caches_with_parked", "fresh"])
def test_the_screen_is_as_it_was_when_somebody_last_looked_at_it(name, width, height):
    text = "\n".join(rows(EVERY[name], width, height))
    assert_golden(f"watch_{name}_{width}x{height}.txt", text)


@pytest.mark.parametrize("height", [1, 4, 5, 6, 8, 11, 15, 24, 60])
@pytest.mark.parametrize("width", [1, 20, 33, 64, 80, 200])
@pytest.mark.parametrize("name", EVERY)
def test_every_row_fits_the_screen_and_none_can_drive_the_terminal(name, width, height):
    found = rows(EVERY[name], width, height)
    assert 2 <= len(found) <= max(HEIGHT_MIN, height)
    for line in found:
        assert units.cells(line) <= max(WIDTH_MIN, width)
        assert line.isprintable()


def test_many_sources_are_folded_and_unfinished_ones_stay():
    course = Course(*LONG_NAMES).session()
    course.settled[LONG_NAMES[-1]] = -400
    found = course.work(60, 10).status()
    done = tuple(closed(f"done_{number}", id=100 + number) for number in range(20))
    both = dataclasses.replace(found, sources=(*done, *found.sources))
    text = "\n".join(rows(both, height=20))
    assert "done_" not in text
    assert "a_source_who" in text
    assert "more sources: `backfillctl status` shows all" in text
    assert "total" in text
    assert len(rows(both, height=80)) <= 80


def test_on_a_large_screen_nothing_is_left_out():
    found = rows(ALL["running"], 140, 60)
    text = "\n".join(found)
    assert "more source" not in text
    for word in (
        "cas",
        "workspace_snapshots",
        "total",
        "in flight 64",
        "parked 3",
        "foreign_object",
        "ab12cd",
    ):
        assert word in text
    assert "checkpoint 2026-01-14T15:30:45.123456Z (held by 3 parked keys)" in text
    assert units.clip(units.shown(HOSTILE_KEY), 40) in text


def test_errors_go_before_the_second_lines_and_these_before_sources():
    full, fewer, least = (rows(ALL["caches_with_parked"], 100, height) for height in (40, 18, 9))
    assert any("foreign_object" in line for line in full)
    assert sum("in flight" in line for line in full) == 9
    assert sum("in flight" in line for line in fewer) == 0
    assert sum("━" in line for line in fewer) == 9
    assert not any("foreign_object" in line for line in least)
    assert any("more sources" in line for line in least)


def test_the_next_step_is_told_where_there_is_room():
    assert "next: `backfillctl plan` counts what there is to do, `backfillctl run` does it" in rows(
        ALL["fresh"]
    )
    assert not any(line.startswith("next:") for line in rows(ALL["caches_with_parked"], 80, 12))


def test_a_narrow_screen_keeps_share_and_eta():
    def line(width):
        return next(one for one in rows(COURSES["single"], width, 24) if one.startswith("cas"))

    assert line(26).split() == ["cas", "24.0", "%", "31m40s"]
    assert line(36).split() == ["cas", "24.0", "%", "40", "obj/s", "31m40s"]


def test_where_a_line_is_short_the_checkpoint_and_the_parked_keys_stay():
    found = rows(ALL["caches_with_parked"], 80, 40)
    assert "  parked 1 · checkpoint 2026-01-14T15:30:45.123456Z (held by 1 parked key)" in found


def test_an_error_keeps_its_key_and_loses_the_end_of_its_message():
    failure = FailureStatus("PUT", "server", 1_204, "ab12cd", NOW_US - 60_000_000, "500 " + "x" * 300)
    base = COURSES["single"]
    found = dataclasses.replace(base, sources=(dataclasses.replace(base.sources[0], failures=(failure,)),))
    (line,) = [line for line in rows(found, 80, 24) if "PUT" in line]
    assert line.startswith("cas: 1,204 x PUT server, 1m00s ago: key ab12cd · 500 xxx")
    assert line.endswith("x…")
    assert units.cells(line) == 80


def test_a_full_bar_means_all_and_an_unfinished_one_is_never_full():
    course = Course(planned=10_000).session()
    course.settled["cas"] = 9_999
    (line,) = [line for line in rows(course.status(), 100) if line.startswith("cas")]
    assert "╌" in line
    course.settled["cas"] = 10_000
    (line,) = [line for line in rows(course.status(), 100) if line.startswith("cas")]
    assert "╌" not in line


@pytest.mark.parametrize("width", [1, 20, 80])
def test_trouble_is_told_with_its_hint_and_fits(width):
    found = trouble_rows(
        "read journal /x: there is no such file\x1b[2J", "`backfillctl run` makes it", width=width, height=9
    )
    assert all(units.cells(row.text) <= max(WIDTH_MIN, width) and row.text.isprintable() for row in found)
    assert len(found) <= 9
    text = " ".join(row.text for row in found)
    assert "there is" in text
    assert "hint:" in text
    assert "q leaves" in text
