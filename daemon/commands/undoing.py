"""Commands that go back: undo takes objects out of the bucket, restore writes rows from them."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import click

from daemon.commands.copying import concluded_by, log_format_option, log_overrides, redact_keys_option
from daemon.commands.options import config_option, moment_option, row_key
from daemon.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.config import Config
    from daemon.ending import Ending
    from daemon.errors import ExitCode


@click.command()
@config_option
@click.option(
    "--source", "sources", metavar="NAME", multiple=True, help="Objects of this source; repeatable."
)
@click.option(
    "--older-than",
    metavar="TIME",
    help='Objects stored before a time with its zone, or more than "2h" ago, as the journal has it.',
)
@click.option("--key", "keys", metavar="KEY", multiple=True, help="The object of this row key; repeatable.")
@click.option("--all", "every", is_flag=True, help="Every object that this migration stored.")
@click.option("--yes", "confirmed", is_flag=True, help="Delete; without it nothing is written anywhere.")
@log_format_option
@redact_keys_option
@click.pass_context
def undo(
    ctx: click.Context,
    /,
    *,
    config_path: Path | None,
    sources: tuple[str, ...],
    older_than: str | None,
    keys: tuple[str, ...],
    every: bool,
    confirmed: bool,
    log_format: str | None,
    redact_keys: bool,
) -> None:
    """Delete from the bucket what this migration stored, and nothing else; without --yes say what that would be.

    Deleted is only an object whose journal proves that it was stored, and that is still the same: size, ETag,
    version, migration id. The rows are untouched; their keys are parked as undone.
    """
    narrowed = bool(sources or older_than or keys)
    if narrowed == every:
        raise ConfigError(
            ["undo: which objects is not clear; expected --all, or some of --source, --older-than and --key"],
            "without --yes it only says what it would delete",
        )
    before_us = None if older_than is None else moment_option("--older-than", older_than)
    row_keys = tuple(row_key(key) for key in keys)

    def work(config: Config, ending: Ending) -> ExitCode:
        import trio

        from daemon.undo import UndoOptions
        from daemon.undo import undo as undone

        options = UndoOptions(sources, row_keys, before_us, confirmed=confirmed)
        return trio.run(functools.partial(undone, config, options, ending))

    ctx.exit(concluded_by(config_path, log_overrides(log_format, redact_keys=redact_keys), work))


@click.command()
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@config_option
@click.option("--all", "every", is_flag=True, help="Every row that has an object.")
@click.option(
    "--source", "source_name", metavar="NAME", help="Rows of this source; needed where there are several."
)
@click.option("--into", metavar="TABLE", required=True, help="Schema and table that rows are written to.")
@click.option(
    "--dsn",
    metavar="DSN",
    help="A database and role that may write, without a password; else BACKFILL_RESTORE_DSN,"
    " else postgres.dsn.",
)
@click.option("--own-table", is_flag=True, help="TABLE may be the source's own: add what it lacks.")
@click.option("--yes", "confirmed", is_flag=True, help="Write; without it rows are only counted.")
@log_format_option
@redact_keys_option
@click.pass_context
def restore(
    ctx: click.Context,
    /,
    *,
    keys: tuple[str, ...],
    config_path: Path | None,
    every: bool,
    source_name: str | None,
    into: str,
    dsn: str | None,
    own_table: bool,
    confirmed: bool,
    log_format: str | None,
    redact_keys: bool,
) -> None:
    """Write rows back from their objects into TABLE, which is there and fits; without --yes say how many.

    Each object is checked against the journal before it becomes a row, and each row by the server after. A row that
    is there is never changed.
    """
    from daemon.settings_values import postgres_uri, table_name

    problems = []
    if bool(keys) == every:
        problems.append("restore: which rows is not clear; expected KEYs, or --all")
    table = ("", "")
    try:
        table = table_name(into)
    except ValueError as allowed:
        problems.append(f'--into: found "{into}"; expected {allowed}')
    if dsn is not None and _tells_a_password(dsn):
        problems.append("--dsn: found a password, which every user of this host could read; expected none")
    dsn = dsn or os.environ.get("BACKFILL_RESTORE_DSN") or None
    try:
        dsn = None if dsn is None else postgres_uri(dsn)
    except ValueError as allowed:
        problems.append(f"--dsn or BACKFILL_RESTORE_DSN: expected {allowed}")
    if problems:
        raise ConfigError(
            problems, "passwords belong into ~/.pgpass or PGPASSWORD; `restore -h` explains the rest"
        )
    row_keys = tuple(row_key(key) for key in keys)

    def work(config: Config, ending: Ending) -> ExitCode:
        import trio

        from daemon.restore import RestoreOptions
        from daemon.restore import restore as restored

        options = RestoreOptions(table, source_name, row_keys, dsn, own_table=own_table, confirmed=confirmed)
        return trio.run(functools.partial(restored, config, options, ending))

    ctx.exit(concluded_by(config_path, log_overrides(log_format, redact_keys=redact_keys), work))


def _tells_a_password(dsn: str) -> bool:
    from urllib.parse import parse_qsl, urlsplit

    try:
        parts = urlsplit(dsn)
        parameters = dict(parse_qsl(parts.query))
    except ValueError:
        # Whatever it is, it is no URI, and refused for that.
        return False
    return ":" in parts.netloc.rpartition("@")[0] or "password" in parameters


COMMANDS = (undo, restore)
