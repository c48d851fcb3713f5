"""Read which parked keys an operator excuses by name; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from journal.attestation import CountedSource


def excuses(names: Sequence[str], sources: Sequence[CountedSource]) -> dict[str, frozenset[str]]:
    """Return the excused row keys by source; each name is KEY or SOURCE:KEY, as status shows parked keys.

    Raises:
        ConfigError: names that are no parked key, all at once.
    """
    parked = {source.name: {key.row_key for key in source.parked_keys} for source in sources}
    found: dict[str, set[str]] = {}
    unknown = []
    for name in names:
        meant = [(source, name) for source, keys in parked.items() if name in keys]
        prefix, _, row_key = name.partition(":")
        if row_key in parked.get(prefix, ()):
            meant.append((prefix, row_key))
        if not meant:
            unknown.append(f"--excuse: {units.shown(name)} is not parked")
        for source, key in meant:
            found.setdefault(source, set()).add(key)
    if unknown:
        raise ConfigError(unknown, "`backfillctl status` names what is parked")
    return {source: frozenset(keys) for source, keys in found.items()}
