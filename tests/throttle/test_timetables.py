from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.timetables import DAYS, InForce, parsed, zone_name, zone_named

BERLIN = ZoneInfo("Europe/Berlin")
MIB = 2**20


def us(text: str) -> int:
    """Return microseconds of an RFC 3339 text."""
    return round(datetime.fromisoformat(text).timestamp()) * 1_000_000


def test_a_limit_holds_from_its_minute_until_the_next_slot():
    timetable = parsed("08:00,20M 19:00,off")
    assert timetable.at(us("2026-03-02T08:00:00Z"), UTC) == InForce(20 * MIB, us("2026-03-02T19:00:00Z"))
    assert timetable.at(us("2026-03-02T18:59:59Z"), UTC).limit == 20 * MIB
    assert timetable.at(us("2026-03-02T19:00:00Z"), UTC) == InForce(None, us("2026-03-03T08:00:00Z"))


def test_the_last_slot_of_the_day_holds_over_midnight_and_over_the_end_of_the_week():
    timetable = parsed("Mon-08:00,512k Fri-19:00,1M")
    assert timetable.at(us("2026-03-02T07:59:00Z"), UTC) == InForce(MIB, us("2026-03-02T08:00:00Z"))
    assert timetable.at(us("2026-03-06T18:59:00Z"), UTC).limit == 512 * 1024


def test_a_days_own_slot_replaces_the_everyday_one_of_the_same_minute_only():
    timetable = parsed("08:00,1M 19:00,off sat-08:00,2M")
    assert timetable.at(us("2026-03-06T09:00:00Z"), UTC).limit == MIB
    assert timetable.at(us("2026-03-07T09:00:00Z"), UTC).limit == 2 * MIB
    assert timetable.at(us("2026-03-07T20:00:00Z"), UTC).limit is None
    assert timetable.at(us("2026-03-08T09:00:00Z"), UTC).limit == MIB


def test_times_are_those_of_the_zones_clocks_in_summer_and_in_winter():
    timetable = parsed("08:00,1M 19:00,off")
    assert timetable.at(us("2026-01-15T07:00:00Z"), BERLIN).limit == MIB
    assert timetable.at(us("2026-01-15T06:59:59Z"), BERLIN).limit is None
    assert timetable.at(us("2026-07-15T06:00:00Z"), BERLIN).limit == MIB


def test_a_slot_that_the_clock_jumps_over_begins_with_the_jump():
    timetable = parsed("00:00,1M 02:30,2M 05:00,off")
    jump = us("2026-03-29T01:00:00Z")
    assert timetable.at(jump - 1, BERLIN) == InForce(MIB, jump)
    assert timetable.at(jump, BERLIN) == InForce(2 * MIB, us("2026-03-29T03:00:00Z"))


def test_an_hour_shown_twice_begins_no_slot_twice():
    timetable = parsed("00:00,1M 02:30,2M 05:00,off")
    first = us("2026-10-25T00:30:00Z")
    assert timetable.at(first - 1, BERLIN) == InForce(MIB, first)
    assert timetable.at(first, BERLIN) == InForce(2 * MIB, us("2026-10-25T04:00:00Z"))
    assert timetable.at(us("2026-10-25T01:10:00Z"), BERLIN).limit == 2 * MIB  # 02:10 for the second time


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "slots such as"),
        ("   ", "slots such as"),
        (8, "slots such as"),
        ("20M", "HH:MM,BANDWIDTH or DAY-HH:MM,BANDWIDTH in slot 1, '20M'"),
        ("08:00,20M, 19:00,off", "in slot 1, '08:00,20M,'"),
        ("08:00,20M 8:00,off", "HH:MM,BANDWIDTH or DAY-HH:MM,BANDWIDTH in slot 2, '8:00,off'"),
        ("24:00,20M", "a time from 00:00 to 23:59 in slot 1"),
        ("12:60,20M", "a time from 00:00 to 23:59 in slot 1"),
        ("Mit-12:00,20M", "one of Mon, Tue, Wed, Thu, Fri, Sat, Sun as the day in slot 1"),
        ("08:00,20X", "bytes per second from"),
        ("08:00,0", "bytes per second from"),
        ("08:00,20M 08:00,off", "one bandwidth a minute; slot 2, '08:00,off'"),
        ("Sat-08:00,20M Sat-08:00,off", "one bandwidth a minute; slot 2"),
        (" ".join(["08:00,1M"] * 169), "at most 168 slots"),
    ],
)
def test_what_is_no_timetable_is_refused_by_the_slot_that_is_wrong(text, expected):
    with pytest.raises(ValueError) as caught:
        parsed(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["Nowhere/None", "", "../etc/passwd", "/etc/localtime", "Europe", 3])
def test_an_unknown_zone_is_refused(name):
    with pytest.raises(ValueError, match="tz database"):
        zone_name(name)


def test_utc_needs_no_tz_database():
    assert zone_named(zone_name("UTC")) is UTC


slots = st.lists(
    st.tuples(
        st.sampled_from([None, *DAYS]),
        st.integers(0, 23),
        st.integers(0, 59),
        st.sampled_from(["off", "1M", "3M"]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda slot: slot[:3],
)
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"])


def written(drawn) -> str:
    return " ".join(
        f"{f'{day}-' if day else ''}{hour:02}:{minute:02},{limit}" for day, hour, minute, limit in drawn
    )


@given(slots, zones, st.integers(0, 2 * 366 * 24 * 60))
def test_the_limit_holds_until_the_next_slot_begins_and_changes_at_none_but_beginnings(drawn, name, minute):
    timetable, zone = parsed(written(drawn)), zone_named(name)
    now_us = us("2026-01-01T00:00:00Z") + minute * 60_000_000
    held = timetable.at(now_us, zone)
    assert now_us < held.until_us <= now_us + 8 * 86_400_000_000
    assert timetable.at(held.until_us - 1, zone) == held
    instant = datetime.fromtimestamp(held.until_us // 1_000_000, UTC)
    wall, before = instant.astimezone(zone), (instant - timedelta(hours=2)).astimezone(zone)
    begun = {(slot.day, slot.minute): slot.limit for slot in timetable.slots}
    place = (wall.weekday(), 60 * wall.hour + wall.minute)
    assert place in begun or before.utcoffset() != wall.utcoffset()
    if place in begun:
        assert timetable.at(held.until_us, zone).limit == begun[place]


@given(slots)
def test_away_from_a_change_of_offset_the_latest_slot_of_the_week_so_far_is_in_force(drawn):
    timetable = parsed(written(drawn))
    monday = us("2026-03-02T00:00:00Z")
    for minute in range(0, 7 * 1440, 97):
        begun = [slot for slot in timetable.slots if 1440 * slot.day + slot.minute <= minute]
        assert timetable.at(monday + minute * 60_000_000, UTC).limit == (begun or timetable.slots)[-1].limit
