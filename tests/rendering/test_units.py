from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import rendering_units as units
from daemon.rows import INFINITY_US, MINUS_INFINITY_US


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (3_250_585, "3.09 MiB"),
        (1024**2 - 1, "1023 KiB"),
        (43_056_431_923, "40.0 GiB"),
        (2**60, "1.00 EiB"),
        (5 * 2**70, "5120 EiB"),
    ],
)
def test_sizes_are_iec_and_never_rounded_up(number, text):
    assert units.size(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (99_999, "99,999"),
        (100_000, "100k"),
        (999_999, "999k"),
        (1_239_999, "1.23M"),
        (10**10, "10.0G"),
    ],
)
def test_short_counts_are_exact_while_small_and_never_rounded_up(number, text):
    assert units.short_count(number) == text


@given(st.integers(0, 10**14))
def test_a_short_count_fits_its_column(number):
    assert len(units.short_count(number)) <= 7


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "-"),
        (0, 10, "0.0 %"),
        (412, 1000, "41.2 %"),
        (9_999_999, 10_000_000, "99.9 %"),
        (7, 7, "100.0 %"),
    ],
)
def test_percent_reaches_100_only_when_all_is_done(part, whole, text):
    assert units.percent(part, whole) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (59.99, "59s"),
        (60, "1m00s"),
        (725, "12m05s"),
        (11_520, "3h12m"),
        (183_600, "2d03h"),
        (99 * 86_400 + 86_399, "99d23h"),
        (10_368_000, "120d"),
    ],
)
def test_durations_show_their_two_largest_units(seconds, text):
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("time_us", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_768_404_645_123_456, "2026-01-14T15:30:45.123456Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (INFINITY_US, "infinity"),
        (MINUS_INFINITY_US, "-infinity"),
        (10**18, "1000000000000000000 us since 1970"),
    ],
)
def test_moments_keep_every_microsecond_and_name_what_rfc_3339_cannot_write(time_us, text):
    assert units.moment(time_us) == text


def test_shorter_moments_drop_digits_but_not_the_zone():
    assert units.moment_ms(1_768_404_645_123_999) == "2026-01-14T15:30:45.123Z"
    assert units.moment_seconds(1_768_404_645_999_999) == "2026-01-14T15:30:45Z"
    assert units.moment_ms(INFINITY_US) == "infinity"


def test_an_age_never_goes_negative_when_the_clock_went_back():
    assert units.ago(0, 3_000_000) == "3s ago"
    assert units.ago(3_000_000, 0) == "3s in the future (clock moved?)"


def test_rates_say_when_nothing_was_measured():
    assert units.rate(None, "obj") == "- obj/s"
    assert units.rate(0.0, "obj") == "0.0 obj/s"
    assert units.rate(9.96, "obj") == "10 obj/s"
    assert units.rate(1812.4, "obj") == "1,812 obj/s"
    assert units.byte_rate(None) == "- B/s"
    assert units.byte_rate(3.1 * 1024**2) == "3.09 MiB/s"


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("plain/key-1", "plain/key-1"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("C:\\n", "C:\\\\n"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x9b2J", "\\x9b2J"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("żółć/日本/é😀", "żółć/日本/é😀"),
        ("\u2028", "\\u2028"),
        ("\udc80", "\\udc80"),
    ],
)
def test_foreign_text_cannot_drive_the_terminal(text, visible):
    assert units.shown(text) == visible


@given(st.text(), st.text())
def test_different_texts_never_look_the_same(one, other):
    assert (units.shown(one) == units.shown(other)) == (one == other)
    assert all(
        unicodedata.category(character) not in {"Cc", "Cf", "Zl", "Zp"} for character in units.shown(one)
    )


@given(st.text().map(units.shown), st.integers(0, 40))
def test_clipped_and_padded_text_keeps_to_its_columns(text, width):
    clipped = units.clip(text, width)
    assert units.cells(clipped) <= width
    assert units.cells(units.pad(clipped, width)) == width
    if units.cells(text) <= width:
        assert clipped == text


def test_a_clipped_key_keeps_both_its_ends():
    assert units.clip("abcdefghij0123456789", 9) == "abcd…6789"
    assert units.clip("日本語日本語", 7) == "日…本語"


@given(st.text(alphabet="ab 日-", max_size=60), st.integers(6, 30))
def test_wrapped_text_keeps_to_its_width_and_loses_nothing_but_spaces(text, width):
    lines = units.wrap(text, width, first="> ", rest="    ")
    assert all(units.cells(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == ">" + "".join(text.split())


def test_wrapped_lines_stand_behind_their_indent():
    assert units.wrap("one two three", 9, first="- ", rest="  ") == ["- one two", "  three"]


@given(st.text().map(units.shown), st.integers(8, 30))
def test_folded_text_keeps_to_its_width_and_loses_no_character(text, width):
    first, *others = units.fold(text, width, first="> ", rest="    ")
    assert all(units.cells(line) <= width for line in [first, *others])
    assert first[2:] + "".join(line[4:] for line in others) == text
