"""`run --dry-run`: what a resume would do, read from the journal alone."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import click

from daemon.config import free_settings
from daemon.opening import refuse_another_migration
from daemon.rendering_resumption import (
    SCHEMA_VERSION,
    Configured,
    resumption_json,
    resumption_text,
    settings_changes,
    unplanned_text,
)
from journal.errors import JournalMissing
from journal.events import encode
from journal.reader import Reader

if TYPE_CHECKING:
    from daemon.config import Config
    from journal.status import MigrationStatus


def preview(config: Config, *, as_json: bool) -> None:
    """Print what `run` would do with this configuration, and contact and change nothing, whatever runs now.

    Raises:
        IdentityMismatch: `run` would refuse: the journal is another migration's.
        JournalError: the journal can't be read, or its projections are being derived anew.
    """
    path = config.migration.journal
    try:
        reader = Reader.open(path, undisturbing=True)
    except JournalMissing:
        names = [source.name for source in config.sources]
        if as_json:
            click.echo(
                json.dumps(
                    {"schema_version": SCHEMA_VERSION, "journal": None, "sources_added": names}, indent=2
                )
            )
        else:
            click.echo(unplanned_text(path, names))
        return
    with reader:
        found = reader.resumption()
    refuse_another_migration(config, found.status)
    configured = _configured(config, found.status)
    if as_json:
        click.echo(json.dumps(resumption_json(found, configured), indent=2))
    else:
        click.echo(resumption_text(found, configured, width=shutil.get_terminal_size().columns))


def _configured(config: Config, status: MigrationStatus) -> Configured:
    known = {source.name for source in status.sources}
    changes: list[str] = []
    if status.settings is not None:
        before = {key: value for key, value in status.settings.data.items() if key != "cause"}
        # Compared as JSON: a tuple in the configuration equals the list on record.
        changes = settings_changes(before, json.loads(encode(free_settings(config))))
    limits = {
        name: value for name, value in config.limits.model_dump(mode="json").items() if value is not None
    }
    return Configured(
        journal=config.migration.journal,
        changes=changes,
        added=[source.name for source in config.sources if source.name not in known],
        limits=[f"limits.{name} = {value}" for name, value in limits.items()],
    )
