"""Options that commands share, and what they resolve to: a configuration, or the journal alone."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.errors import ConfigError
from daemon.local_sockets import candidates
from daemon.settings_file import expanded, journal_variable, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.config import Config

_NO_CONFIG = "no configuration named"
_NO_CONFIG_HINT = "give -c FILE, or set BACKFILL_CONFIG; `backfillctl init` writes a sample"

config_option = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(readable=False, path_type=Path),
    envvar="BACKFILL_CONFIG",
    show_envvar=True,
    metavar="FILE",
    help="The migration's configuration.",
)
journal_option = click.option(
    "--journal",
    "journal_path",
    type=click.Path(readable=False, path_type=Path),
    envvar="BACKFILL_JOURNAL",
    show_envvar=True,
    metavar="FILE",
    help="The migration's journal, instead of a configuration that names it.",
)


def now_us() -> int:
    """Return the wall clock in microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Load the configuration of a command that needs all of it.

    Raises:
        ConfigError: none is named, or it is wrong.
    """
    if path is None:
        raise ConfigError([_NO_CONFIG], _NO_CONFIG_HINT)
    from daemon.config import load

    return load(path, os.environ, overrides or {}, now_us=now_us())


def find_journal(config_path: Path | None, journal_path: Path | None) -> Path:
    """Return the journal that --journal, BACKFILL_JOURNAL, BACKFILL_MIGRATION_JOURNAL or the configuration names.

    Only `migration.journal` is read from the configuration, so that status stays readable, and fast, while
    the rest of the file is wrong.

    Raises:
        ConfigError: none is named.
    """
    if journal_path is not None:
        return journal_path
    variable = journal_variable(os.environ)
    if variable is not None:
        return expanded(os.environ[variable], variable)
    if config_path is None:
        raise ConfigError(
            ["no journal named"], "give --journal FILE or -c FILE, or set BACKFILL_JOURNAL or BACKFILL_CONFIG"
        )
    migration = read_document(config_path).get("migration")
    journal = migration.get("journal") if isinstance(migration, dict) else None
    if not isinstance(journal, str) or not journal:
        raise ConfigError(
            [f"migration.journal: missing in {config_path}; expected the path of the journal"],
            "or give --journal FILE",
        )
    return config_path.absolute().parent / expanded(journal, "migration.journal")


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A migration as a client finds it.

    Attributes:
        journal: its journal.
        sockets: where its daemon may listen, the likeliest first.
        naming: the options that named it, to be typed again.
    """

    journal: Path
    sockets: tuple[Path, ...]
    naming: str


def find_migration(config_path: Path | None, journal_path: Path | None) -> Whereabouts:
    """Return the journal, as `find_journal`, and where its daemon may listen.

    Of the configuration, only `migration.journal` and `control.socket` are read.

    Raises:
        ConfigError: none is named, or control.socket is no path.
    """
    journal = find_journal(config_path, journal_path).absolute()
    variable = os.environ.get("BACKFILL_CONTROL_SOCKET")
    configured = expanded(variable, "BACKFILL_CONTROL_SOCKET").absolute() if variable else None
    if configured is None and config_path is not None and journal_path is None:
        section = read_document(config_path).get("control", {})
        socket = section.get("socket") if isinstance(section, dict) else section
        if socket is not None and (not isinstance(socket, str) or not socket):
            raise ConfigError([f"control.socket: found {socket!r}; expected the path of a socket"])
        configured = config_path.absolute().parent / expanded(socket, "control.socket") if socket else None
    sockets = candidates(configured, journal, config_path, os.environ)
    naming = (
        f"--journal {journal}" if config_path is None or journal_path is not None else f"-c {config_path}"
    )
    return Whereabouts(journal, tuple(sockets), naming)


def row_key(argument: str) -> str:
    """Return a row key from the command line as the text that its bytes are in UTF-8, whatever the locale.

    Raises:
        ConfigError: it is not UTF-8, which no row key can be.
    """
    try:
        return os.fsencode(argument).decode()
    except UnicodeDecodeError as exc:
        raise ConfigError(
            [f"the row key {argument!r} is not UTF-8"], "write it as status and events show it"
        ) from exc


def moment_option(option: str, text: str) -> int:
    """Return the moment that an option names, in microseconds since 1970-01-01 UTC.

    Raises:
        ConfigError: it is neither a time with its zone nor a duration, which counts back from now.
    """
    from daemon.settings_values import duration_seconds, timestamp_us

    for read in (timestamp_us, lambda value: max(0, now_us() - round(duration_seconds(value) * 1_000_000))):
        try:
            return read(text)
        except ValueError:
            continue
    raise ConfigError(
        [f'{option}: found "{text}"; expected a time with its zone, or a duration such as "2h"']
    )
