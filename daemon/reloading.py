"""What a configuration read anew may change in mid-run, and what it may not; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon.config import Config, identity
from daemon.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

_UPLOAD_TUNABLES = frozenset({"concurrency"})


def reloaded(before: Config, after: Config, *, cutoff_us: int | None) -> Config:
    """Return `before` with every tunable of `after`: `upload.concurrency`, and all of `[throttle]`.

    Args:
        before: in force.
        after: read anew.
        cutoff_us: the cutoff on record, where neither need name it.

    Raises:
        ConfigError: `after` describes another migration; with every difference.
    """
    problems = _identity_problems(before, after, cutoff_us)
    if problems:
        raise ConfigError(
            problems, "put back what the migration began with; another one needs a journal of its own"
        )
    tunables = {key: getattr(after.upload, key) for key in _UPLOAD_TUNABLES}
    return before.model_copy(
        update={"upload": before.upload.model_copy(update=tunables), "throttle": after.throttle}
    )


def needing_restart(before: Config, after: Config) -> list[str]:
    """Return the keys, as TOML has them, whose change only the next session heeds."""
    changed: list[str] = []
    for name in type(before).model_fields:
        if name not in {"throttle", "sources"}:
            changed += [
                f"{name}.{key}"
                for key in _changed(getattr(before, name), getattr(after, name))
                if not (name == "upload" and key in _UPLOAD_TUNABLES)
            ]
    others = {source.name: source for source in after.sources}
    for source in before.sources:
        if source.name in others:
            changed += [f'source "{source.name}".{key}' for key in _changed(source, others[source.name])]
    return changed


def _changed(before: BaseModel, after: BaseModel) -> list[str]:
    return [key for key in type(before).model_fields if getattr(before, key) != getattr(after, key)]


def _identity_problems(before: Config, after: Config, cutoff_us: int | None) -> list[str]:
    problems = [
        f"migration.{key}: found {getattr(after.migration, key)}; expected {getattr(before.migration, key)}"
        for key in ("name", "journal", "order")
        if getattr(before.migration, key) != getattr(after.migration, key)
    ]
    recorded, found = _fingerprints(before, cutoff_us), _fingerprints(after, cutoff_us)
    problems += [
        f'source "{name}": missing; it is part of this session' for name in recorded if name not in found
    ]
    problems += [
        f'source "{name}": new; it begins with the next session' for name in found if name not in recorded
    ]
    for name in recorded.keys() & found.keys():
        problems += [
            f'source "{name}": {field}: found {found[name][field]}; expected {value}'
            for field, value in recorded[name].items()
            if found[name][field] != value
        ]
    return problems


def _fingerprints(config: Config, cutoff_us: int | None) -> dict[str, dict[str, Any]]:
    # The database's name is the server's to tell; a changed DSN concerns the next session, which compares it.
    return {source.name: dict(identity(config, source, "", cutoff_us=cutoff_us)) for source in config.sources}
