"""Read a config file from disk, refusing one that somebody other than its owner could have written."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_BYTES_MAX = 1 << 20
"""A larger file is no configuration."""
JOURNAL_VARIABLES = ("BACKFILL_JOURNAL", "BACKFILL_MIGRATION_JOURNAL")
"""What names the journal in place of `migration.journal`, the stronger first."""


def journal_variable(env: Mapping[str, str]) -> str | None:
    """Return the variable that names the journal for every command; None if the file has to."""
    return next((name for name in JOURNAL_VARIABLES if env.get(name)), None)


def read_document(path: Path) -> dict[str, Any]:
    """Return the parsed TOML of `path`.

    Raises:
        ConfigError: missing, unreadable, writable by others, too large, or not TOML.
    """
    hint = "`backfillctl init` writes a sample; name the file with -c FILE or BACKFILL_CONFIG"
    try:
        with path.open("rb") as file:
            _refuse_writable_by_others(path, os.fstat(file.fileno()))
            content = file.read(CONFIG_BYTES_MAX + 1)
    except PermissionError as exc:
        raise ConfigError(
            [f"read config {path}: permission denied"],
            "only its owner and its group may read it: use sudo, or join the group; the service needs `chmod g+r`",
        ) from exc
    except OSError as exc:
        raise ConfigError([f"read config {path}: {(exc.strerror or str(exc)).lower()}"], hint) from exc
    if len(content) > CONFIG_BYTES_MAX:
        raise ConfigError([f"read config {path}: larger than {CONFIG_BYTES_MAX} bytes"], hint)
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as exc:
        raise ConfigError([f"read config {path}: not UTF-8 at byte {exc.start}"], "save it as UTF-8") from exc
    except (ValueError, RecursionError) as exc:
        # tomllib leaves to the interpreter what is nested too deeply, and numbers of more digits than int() takes.
        found = (
            str(exc)[:200].lower()
            if isinstance(exc, tomllib.TOMLDecodeError)
            else "too deep, or a number too long"
        )
        raise ConfigError(
            [f"read config {path}: not valid TOML: {found}"],
            "texts need quotes; section names stand in brackets, [s3], and sources in double ones, [[source]]",
        ) from exc


def expanded(text: str, place: str) -> Path:
    """Return the path that a text names, `~` replaced.

    Raises:
        ConfigError: it holds a NUL, or names the home of a user that this machine doesn't know.
    """
    try:
        if "\0" not in text:
            return Path(text).expanduser()
    except RuntimeError:
        pass
    raise ConfigError(
        [f"{place}: found {text!r}; expected a path"], "a user after ~ must exist on this machine"
    )


def _refuse_writable_by_others(path: Path, facts: os.stat_result) -> None:
    """Refuse a file whose `where` somebody else could write.

    A group's write bit passes only where the group is its owner's private one (umask 002 on many systems).
    """
    others = bool(facts.st_mode & stat.S_IWOTH)
    group = bool(facts.st_mode & stat.S_IWGRP) and not _is_private_group(facts.st_uid, facts.st_gid)
    if stat.S_ISREG(facts.st_mode) and (others or group):
        problem = (
            f"read config {path}: mode {stat.S_IMODE(facts.st_mode):04o} lets others write it; expected its "
            "owner alone, because `where` is SQL that runs as written"
        )
        raise ConfigError([problem], f"chmod go-w {path}")


def _is_private_group(uid: int, gid: int) -> bool:
    try:
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return owner.pw_gid == gid and owner.pw_name == group.gr_name and set(group.gr_mem) <= {owner.pw_name}
