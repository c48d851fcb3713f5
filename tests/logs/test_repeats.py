"""A storm of equal lines is cut to a few and a number; nothing is lost without being counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.repeats import LINES_MAX, WINDOW_SECONDS, LeftOut, Repeats

GAPS = st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 2 * WINDOW_SECONDS)))


def test_the_first_lines_pass_and_the_rest_is_counted_when_the_window_ends():
    repeats = Repeats()
    admitted = [repeats.admits("a", 0.01 * number) for number in range(LINES_MAX + 812)]
    assert admitted == [True] * LINES_MAX + [False] * 812
    assert repeats.over(WINDOW_SECONDS - 1) == []
    assert repeats.over(WINDOW_SECONDS) == [LeftOut("a", 812, WINDOW_SECONDS)]
    assert repeats.admits("a", WINDOW_SECONDS)


def test_kinds_are_counted_apart():
    repeats = Repeats()
    assert not all(repeats.admits("a", 0) for _ in range(LINES_MAX + 1))
    assert repeats.admits("b", 0)


def test_at_the_end_every_window_is_told():
    repeats = Repeats()
    for _ in range(LINES_MAX + 1):
        repeats.admits("a", 0)
    assert repeats.over(1, all_of_them=True) == [LeftOut("a", 1, 1)]
    assert repeats.over(2, all_of_them=True) == []


@given(GAPS)
def test_every_line_is_either_written_or_counted(gaps):
    repeats, now, written, counted = Repeats(), 0.0, 0, 0
    for kind, gap in gaps:
        now += gap
        counted += sum(one.number for one in repeats.over(now))
        written += repeats.admits(kind, now)
    counted += sum(one.number for one in repeats.over(now, all_of_them=True))
    assert written + counted == len(gaps)
