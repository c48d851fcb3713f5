"""Check one key of the configuration against its bounds; pure, the checks that the models are made of."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from daemon import settings_values as values

if TYPE_CHECKING:
    from collections.abc import Callable

RESERVED_METADATA = frozenset({"backfill-md5", "backfill-migration", "created-at"})
"""Names under x-amz-meta- that every PUT sets by itself."""
_HEADER_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def whole(lowest: int, highest: int) -> Callable[[object], int]:
    """Return a check for whole numbers from `lowest` to `highest`."""

    def check(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
            return value
        raise ValueError(f"a whole number from {lowest} to {highest}")

    return check


def whole_or(word: str, lowest: int, highest: int) -> Callable[[object], int | str]:
    """Return a check for whole numbers from `lowest` to `highest`, or `word`."""

    def check(value: object) -> int | str:
        if value == word:
            return word
        try:
            return whole(lowest, highest)(value)
        except ValueError as error:
            raise ValueError(f'{error}, or "{word}"') from None

    return check


def seconds(lowest: float, highest: float) -> Callable[[object], float]:
    """Return a check for durations from `lowest` to `highest` seconds."""

    def check(value: object) -> float:
        found = values.duration_seconds(value)
        if lowest <= found <= highest:
            return found
        raise ValueError(f'a duration from "{lowest:g}s" to "{highest:g}s"')

    return check


def number(value: object) -> float:
    """Return a finite number."""
    given: object = value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            given = float(value)
    found = values.finite_number(given)
    if found is None:
        raise ValueError("a number")
    return found


def size(lowest: int, highest: int) -> Callable[[object], int]:
    """Return a check for sizes from `lowest` to `highest` bytes."""

    def check(value: object) -> int:
        found = values.size_bytes(value)
        if lowest <= found <= highest:
            return found
        least = f"{lowest >> 20}MiB" if lowest >= 2**20 else f"{lowest}B"
        raise ValueError(f'a size from "{least}" to "{highest >> 30}GiB"')

    return check


def matching(pattern: str, allowed: str) -> Callable[[object], str]:
    """Return a check for texts that match all of `pattern`."""
    compiled = re.compile(pattern, re.ASCII)

    def check(value: object) -> str:
        if isinstance(value, str) and compiled.fullmatch(value):
            return value
        raise ValueError(allowed)

    return check


def columns(value: object) -> tuple[str, ...]:
    """Return one or several different column names."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        raise ValueError("a column name or a list of column names")  # noqa: TRY004
    names = tuple(values.column(name) for name in listed)
    if len(set(names)) != len(names) or len(names) > 32:
        raise ValueError("different columns, at most 32")
    return names


def key_columns(value: object) -> tuple[str, ...]:
    """Return the columns that form a row key, at least one."""
    names = columns(value)
    if not names:
        raise ValueError("a column name or a list of column names")
    return names


def metadata_columns(value: object) -> tuple[str, ...]:
    """Return columns whose names can stand in a header of their own."""
    allowed = (
        "a list of columns whose names can stand in a header (letters, digits, '-', '_', '.'), different "
        "without regard to case, none of " + ", ".join(sorted(RESERVED_METADATA))
    )
    if not isinstance(value, list | tuple):
        raise ValueError(allowed)  # noqa: TRY004
    names = columns(list(value))
    lowered = {name.lower() for name in names}
    legible = all(set(name) <= _HEADER_NAME for name in lowered)
    if not legible or len(lowered) != len(names) or lowered & RESERVED_METADATA:
        raise ValueError(allowed)
    return names


def tags(value: object) -> dict[str, str]:
    """Return object tags (S3 User Guide, "Categorizing your storage using tags": ten, 128 and 256 characters)."""
    allowed = "a table of at most 10 tags, names up to 128 and values up to 256 characters"
    if not isinstance(value, dict) or len(value) > 10:
        raise ValueError(allowed)
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str) or not name:
            raise ValueError(allowed)
        if len(name) > 128 or len(text) > 256:
            raise ValueError(allowed)
    return dict(value)


def file_path(value: object) -> Path:
    """Return a path that names a file, `~` replaced."""
    if isinstance(value, Path) or (isinstance(value, str) and value and "\x00" not in value):
        with contextlib.suppress(RuntimeError):  # the home of a user that this machine doesn't know
            path = Path(value).expanduser()
            if path.name:
                return path
    raise ValueError('the path of a file, such as "/var/lib/backfill/layer-cache/journal.db"')


def command(value: object) -> tuple[str, ...]:
    """Return a program and its arguments."""
    words = value if isinstance(value, list | tuple) else ()
    if words and words[0] and all(isinstance(word, str) and "\x00" not in word for word in words):
        return tuple(words)
    raise ValueError('a program and its arguments, such as ["/usr/local/bin/tell", "done"]; no shell runs it')


def true_or_false(value: object) -> bool:
    """Return a boolean, and take nothing else for one."""
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def cache_list(value: object) -> list[str]:
    """Return a list of texts; layer_cache says which are caches."""
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return list(value)
    raise ValueError('a list of cache names, such as ["cas", "workspace_snapshot"]')
