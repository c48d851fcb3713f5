"""Commands that go back: undo takes objects out of the bucket, restore writes rows from them."""

from __future__ import annotations

import functools
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


COMMANDS = (undo,)
