"""Numbers, times and foreign text as an operator reads them; pure, the standard library alone."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta

from daemon.rows import INFINITY_US, MINUS_INFINITY_US

_IEC = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_THOUSANDS = ("k", "M", "G", "T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COUNT_EXACT_MAX = 99_999
"""Largest count that `short_count` shows digit by digit: six characters, which is what a column has."""
ELLIPSIS = "…"


def count(number: int) -> str:
    """Return an exact count with thousands separated: 1,234,567."""
    return f"{number:,}"


def short_count(number: int) -> str:
    """Return a count in at most seven characters: exact up to COUNT_EXACT_MAX, else rounded down (1.23M).

    Rounded down, so that an unfinished count never reads as the finished one.
    """
    if number <= COUNT_EXACT_MAX:
        return count(number)
    return _scaled(number, 1000, _THOUSANDS, "")


def size(number: int) -> str:
    """Return bytes in IEC units, rounded down to three digits: 0 B, 1023 B, 1.00 KiB, 40.1 GiB."""
    return f"{number} B" if number < 1024 else _scaled(number, 1024, _IEC, " ")


def _scaled(number: int, base: int, units: tuple[str, ...], gap: str) -> str:
    power = 1
    while power < len(units) and number >= base ** (power + 1):
        power += 1
    whole, rest = divmod(number, base**power)
    digits = 2 if whole < 10 else 1 if whole < 100 else 0
    fraction = f".{rest * 10**digits // base**power:0{digits}d}" if digits else ""
    return f"{whole}{fraction}{gap}{units[power - 1]}"


def percent(part: int, whole: int) -> str:
    """Return "41.2 %", rounded down, so that 100.0 % means all; "-" of nothing."""
    if whole == 0:
        return "-"
    tenths = part * 1000 // whole
    return f"{tenths // 10}.{tenths % 10} %"


def duration(seconds: float) -> str:
    """Return a span in its two largest units: 45s, 12m05s, 3h12m, 2d03h, 120d; rounded down, never negative."""
    whole = max(0, int(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days >= 100:
        return f"{days}d"
    if days:
        return f"{days}d{hour:02d}h"
    if hours:
        return f"{hours}h{minute:02d}m"
    return f"{minutes}m{second:02d}s" if minutes else f"{second}s"


def moment(time_us: int) -> str:
    """Return microseconds since 1970-01-01 UTC as RFC 3339 with all six digits, so that it can be pasted back.

    PostgreSQL's infinities, and times outside the years 1 to 9999, which RFC 3339 can't write, are named.
    """
    if time_us == INFINITY_US:
        return "infinity"
    if time_us == MINUS_INFINITY_US:
        return "-infinity"
    try:
        when = _EPOCH + timedelta(microseconds=time_us)
    except OverflowError:
        return f"{time_us} us since 1970"
    return f"{when.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def moment_ms(time_us: int) -> str:
    """Return a time as log lines carry it: RFC 3339, UTC, milliseconds."""
    text = moment(time_us)
    return f"{text[:-4]}Z" if text.endswith("Z") else text


def moment_seconds(time_us: int) -> str:
    """Return a time for the eye: RFC 3339, UTC, seconds."""
    text = moment(time_us)
    return f"{text[:-8]}Z" if text.endswith("Z") else text


def ago(then_us: int, now_us: int) -> str:
    """Return how long ago `then_us` was; a clock that went back says so instead of showing a negative age."""
    if then_us > now_us:
        return f"{duration((then_us - now_us) / 1e6)} in the future (clock moved?)"
    return f"{duration((now_us - then_us) / 1e6)} ago"


def rate(per_second: float | None, noun: str) -> str:
    """Return "812 obj/s" for `noun` "obj"; one decimal below 10, "-" where nothing was measured."""
    if per_second is None:
        return f"- {noun}/s"
    return f"{per_second:.1f} {noun}/s" if per_second < 9.95 else f"{count(round(per_second))} {noun}/s"


def byte_rate(per_second: float | None) -> str:
    """Return "3.1 MiB/s", or "- B/s" where nothing was measured."""
    return "- B/s" if per_second is None else f"{size(int(per_second))}/s"


def plural(number: int, one: str, many: str = "") -> str:
    """Return "1 key", "3 keys"."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def shown(text: str) -> str:
    r"""Return foreign text safe for a terminal and unambiguous: what is not printable appears escaped.

    Keys and server messages come from outside: an ESC could drive the terminal, a newline forge a line, a
    right-to-left override swap what is read. Letters of every script stay; a backslash is doubled, so that
    two different texts never look the same.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return one_line(text.replace("\\", "\\\\"))


def one_line(text: str) -> str:
    """Return a message in one safe line: as `shown`, but a backslash stays as it is.

    For text whose foreign parts are escaped already, and as the last guard of a log line.
    """
    if text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def cells(text: str) -> int:
    """Return how many terminal columns printable `text` takes: wide letters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def clip(text: str, width: int) -> str:
    """Return `text` in at most `width` columns, with its middle left out: both ends of a key tell keys apart."""
    if cells(text) <= width:
        return text
    if width <= 1:
        return ELLIPSIS[:width]
    head = _take(text, width // 2)
    tail = _take(text[::-1], width - 1 - cells(head))[::-1]
    return f"{head}{ELLIPSIS}{tail}"


def _take(text: str, width: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += _cells(character)
        if taken > width:
            return text[:index]
    return text


def pad(text: str, width: int, *, left: bool = True) -> str:
    """Return `text` filled up to `width` columns, at its left (numbers) or its right (words)."""
    gap = " " * max(0, width - cells(text))
    return gap + text if left else text + gap


def fold(text: str, width: int, *, first: str = "", rest: str = "") -> list[str]:
    """Return `text` cut where a line of `width` columns ends, behind `first`, then `rest`: every character stays.

    For lines with a key in them: its spaces are part of it.
    """
    lines: list[str] = []
    line, left = first, text
    while cells(line) + cells(left) > width:
        piece = _take(left, max(2, width - cells(line)))
        lines.append(line + piece)
        line, left = rest, left[len(piece) :]
    return [*lines, line + left]


def wrap(text: str, width: int, *, first: str = "", rest: str = "") -> list[str]:
    """Return `text` broken at spaces into lines of at most `width` columns, behind `first`, then `rest`.

    A word longer than a line is broken where the line ends.
    """
    lines: list[str] = []
    line, empty = first, True
    for word in text.split():
        if not empty and cells(line) + 1 + cells(word) <= width:
            line = f"{line} {word}"
            continue
        if not empty:
            lines.append(line)
            line = rest
        *whole, line = fold(word, width, first=line, rest=rest)
        lines += whole
        empty = False
    lines.append(line)
    return lines
