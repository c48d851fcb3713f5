"""What an operator may change while a migration runs; pure. Nothing here is part of a migration's identity."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeAlias

from daemon.errors import ConfigError
from daemon.settings_values import bytes_per_second, rows_per_second

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.config import Config

CONCURRENCY_MAX = 1024
"""As `upload.concurrency`."""
FROM_CONFIG = "config"
"""The value that takes back what an operator has set."""

_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))

Override: TypeAlias = "int | float | None"
"""What an operator has set for one tunable; None: no limit."""


@dataclass(frozen=True, slots=True)
class Tunables:
    """The tunables in force.

    Attributes:
        concurrency: uploads at once over all sources.
        rows_per_second, bytes_per_second: most that is fetched from PostgreSQL; None: no limit.
    """

    concurrency: int
    rows_per_second: float | None = None
    bytes_per_second: float | None = None


NAMES: tuple[str, ...] = tuple(field.name for field in fields(Tunables))
"""Every tunable, as the journal and the configuration name it; the command line has hyphens."""


def parse(words: Sequence[str]) -> dict[str, Override | str]:
    """Return the changes that words such as "concurrency=16" and "bytes-per-second=20MiB" ask for.

    A value is FROM_CONFIG, or for a rate what `[throttle]` takes; "off" becomes None.

    Raises:
        ConfigError: with every word that is wrong; then nothing is to be changed.
    """
    changes: dict[str, Override | str] = {}
    problems: list[str] = []
    for word in words:
        name, separator, text = word.partition("=")
        key = name.strip().replace("-", "_")
        if not separator or key not in NAMES:
            known = ", ".join(f"{one.replace('_', '-')}=…" for one in NAMES)
            problems.append(f'set: found "{word}"; expected some of {known}')
        elif key in changes:
            problems.append(f"set: {name.strip()} is given twice")
        else:
            try:
                changes[key] = _value(key, text.strip())
            except ValueError as error:
                problems.append(f'set {name.strip()}: found "{text.strip()}"; expected {error}')
    if not words:
        problems.append("set: nothing to set; expected for example concurrency=16")
    if problems:
        raise ConfigError(problems, "`backfillctl set --help` lists what can be set")
    return changes


def merged(overrides: Mapping[str, Override], changes: Mapping[str, Override | str]) -> dict[str, Override]:
    """Return all that is set once `changes` are made to what was set before."""
    found = dict(overrides)
    for key, value in changes.items():
        if isinstance(value, str):
            found.pop(key, None)
        else:
            found[key] = value
    return found


def configured_tunables(config: Config) -> Tunables:
    """Return the tunables as the configuration has them."""
    throttle = config.throttle
    return Tunables(config.upload.concurrency, throttle.rows_per_second, throttle.bytes_per_second)


def in_force(configured: Tunables, overrides: Mapping[str, Override]) -> Tunables:
    """Return what applies: what an operator has set, else what the configuration says."""
    concurrency = overrides.get("concurrency")
    rows = overrides.get("rows_per_second", configured.rows_per_second)
    size = overrides.get("bytes_per_second", configured.bytes_per_second)
    return Tunables(configured.concurrency if concurrency is None else int(concurrency), rows, size)


def as_set(overrides: Mapping[str, Override]) -> tuple[str, ...]:
    """Return what an operator has set in the words that set it, such as "concurrency=16", "bytes-per-second=20MiB"."""
    return tuple(
        f"{name.replace('_', '-')}={_word(name, overrides[name])}" for name in NAMES if name in overrides
    )


def _word(name: str, value: Override) -> str:
    if value is None:
        return "off"
    if name != "bytes_per_second":
        return f"{value:.15g}"
    exact = ((unit, factor) for unit, factor in _UNITS if value % factor == 0)
    unit, factor = next(exact, ("", 1))
    return f"{int(value) // factor}{unit}"


def _value(key: str, text: str) -> Override | str:
    if text == FROM_CONFIG:
        return FROM_CONFIG
    if key == "concurrency":
        if text.isascii() and text.isdigit() and 1 <= int(text) <= CONCURRENCY_MAX:
            return int(text)
        raise ValueError(f'a whole number from 1 to {CONCURRENCY_MAX}, or "{FROM_CONFIG}"')
    rate = rows_per_second if key == "rows_per_second" else bytes_per_second
    try:
        return rate(text)
    except ValueError as error:
        raise ValueError(f'{error}, or "{FROM_CONFIG}"') from error
