"""A timetable of bandwidths, "08:00,20M 19:00,off": which limit is in force, and until when; pure.

The form is that of rclone's --bwlimit: slots of HH:MM and a bandwidth, each in force until the next begins, over
midnight and over the end of the week. A slot may begin with a day ("Sat-10:00,1M"); without one it holds for every
day, apart from a day that has its own slot at the same minute. Times are wall-clock times of a zone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from daemon.settings_values import bytes_per_second

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date, tzinfo

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
SLOTS_MAX = 7 * 24
"""Slots in one timetable: one an hour for a week."""
_SLOT = re.compile(r"(?:(?P<day>[A-Za-z]{3})-)?(?P<hour>\d\d):(?P<minute>\d\d),(?P<limit>.+)", re.ASCII)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Slot:
    """From which minute of which day on a limit holds.

    Attributes:
        day: 0 is Monday.
        minute: since midnight by the wall clock.
        limit: bytes per second; None is no limit.
    """

    day: int
    minute: int
    limit: int | None


@dataclass(frozen=True, slots=True)
class InForce:
    """The limit that holds at some instant.

    Attributes:
        limit: bytes per second; None is no limit.
        until_us: when the next slot begins, microseconds since 1970 UTC.
    """

    limit: int | None
    until_us: int


@dataclass(frozen=True, slots=True)
class Timetable:
    """A week of slots, at least one, in order.

    Attributes:
        text: as configured.
        slots: the days written out, no two at one minute.
    """

    text: str
    slots: tuple[Slot, ...]

    def __str__(self) -> str:
        return self.text

    def at(self, now_us: int, zone: tzinfo) -> InForce:
        """Return what holds at `now_us`, microseconds since 1970 UTC, by the clocks of `zone`.

        A slot begins when the wall clock first shows its minute, or jumps over it; an hour that the clock shows
        twice begins none again.
        """
        now = datetime.fromtimestamp(now_us // 1_000_000, UTC) + timedelta(microseconds=now_us % 1_000_000)
        limit: int | None = None
        for begins, slot in self._beginnings(now.astimezone(zone).date(), zone):
            if begins > now:
                return InForce(limit, round(begins.timestamp()) * 1_000_000)
            limit = slot.limit
        raise AssertionError(f"no slot of {self.text!r} begins within a week after {now}")

    def _beginnings(self, today: date, zone: tzinfo) -> Iterator[tuple[datetime, Slot]]:
        """Yield every beginning from a week before `today` to more than a week after it, in order."""
        for offset in range(-8, 10):
            day = today + timedelta(days=offset)
            for slot in self.slots:
                if slot.day == day.weekday():
                    yield _first_shown(datetime.combine(day, time(*divmod(slot.minute, 60))), zone), slot


def parsed(value: object) -> Timetable:
    """Return the timetable that a text says.

    Raises:
        ValueError: what is allowed, and which slot is none.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError('slots such as "08:00,20M 19:00,off" or "Mon-08:00,512K Sat-00:00,off"')
    words = value.split()
    if len(words) > SLOTS_MAX:
        raise ValueError(f"at most {SLOTS_MAX} slots")
    everyday: dict[tuple[int, int], Slot] = {}
    own: dict[tuple[int, int], Slot] = {}
    for number, word in enumerate(words, start=1):
        days, minute, limit = _slot(word, f"slot {number}, {word!r}")
        slots = everyday if len(days) > 1 else own
        for day in days:
            if (day, minute) in slots:
                raise ValueError(f"one bandwidth a minute; slot {number}, {word!r}, begins with another one")
            slots[day, minute] = Slot(day, minute, limit)
    week = everyday | own
    return Timetable(" ".join(words), tuple(week[place] for place in sorted(week)))


def _slot(word: str, place: str) -> tuple[range, int, int | None]:
    match = _SLOT.fullmatch(word)
    if match is None:
        raise ValueError(f"HH:MM,BANDWIDTH or DAY-HH:MM,BANDWIDTH in {place}")
    day = (match["day"] or "").capitalize()
    if day and day not in DAYS:
        raise ValueError(f"one of {', '.join(DAYS)} as the day in {place}")
    hour, minute = int(match["hour"]), int(match["minute"])
    if hour > 23 or minute > 59:
        raise ValueError(f"a time from 00:00 to 23:59 in {place}")
    try:
        limit = bytes_per_second(match["limit"])
    except ValueError as error:
        raise ValueError(f"{error} in {place}") from None
    days = range(DAYS.index(day), DAYS.index(day) + 1) if day else range(7)
    return days, 60 * hour + minute, limit


def _first_shown(wall: datetime, zone: tzinfo) -> datetime:
    """Return the first instant at which the clocks of `zone` show `wall` or more, to the second."""
    late = wall.replace(tzinfo=zone).astimezone(UTC)
    if late.astimezone(zone).replace(tzinfo=None) == wall:
        return late
    # The clock jumps over it: by the offset before the jump it comes after it, by the one after it before.
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    while late - early > _SECOND:
        middle = early + (late - early) // (2 * _SECOND) * _SECOND
        if middle.astimezone(zone).replace(tzinfo=None) < wall:
            early = middle
        else:
            late = middle
    return late


def zone_named(name: str) -> tzinfo:
    """Return the zone that a checked name stands for."""
    # Known without a tz database, which a small container may lack.
    return UTC if name == "UTC" else ZoneInfo(name)


def zone_name(value: object) -> str:
    """Return the name of a zone that this machine knows.

    Raises:
        ValueError: what is allowed.
    """
    allowed = 'a zone of this machine\'s tz database, such as "Europe/Berlin" or "UTC"'
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", value):
        raise ValueError(allowed)
    try:
        zone_named(value)
    except (ZoneInfoNotFoundError, OSError, ValueError) as error:
        raise ValueError(allowed) from error
    return value
