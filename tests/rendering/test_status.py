from __future__ import annotations

import pytest

from daemon import rendering_units as units
from daemon.rendering_status import WIDTH_MIN, status_text
from tests.rendering.golden_files import assert_golden
from tests.rendering.statuses import ALL, NOW_US


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ALL)
def test_status_reads_as_it_did_when_somebody_last_read_it(name, width):
    assert_golden(f"status_{name}_{width}.txt", status_text(ALL[name], now_us=NOW_US, width=width))


@pytest.mark.parametrize("width", [*range(WIDTH_MIN, 140, 7), 300])
@pytest.mark.parametrize("name", ALL)
def test_no_line_is_wider_than_the_terminal_and_none_can_drive_it(name, width):
    for line in status_text(ALL[name], now_us=NOW_US, width=width).splitlines():
        assert units.cells(line) <= width
        assert line.isprintable()


@pytest.mark.parametrize("width", range(20, 140, 10))
def test_a_checkpoint_can_be_pasted_at_any_width(width):
    lines = status_text(ALL["running"], now_us=NOW_US, width=width).splitlines()
    assert any("--cutoff-timestamp 2026-01-14T15:30:45.123456Z" in line for line in lines)
