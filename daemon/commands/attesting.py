"""The command that says whether the source may be dropped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.commands.copying import concluded_by, log_format_option, log_overrides, redact_keys_option
from daemon.commands.options import config_option
from daemon.errors import ConfigError

if TYPE_CHECKING:
    from daemon.config import Config
    from daemon.ending import Ending
    from daemon.errors import ExitCode

EXCUSES_BYTES_MAX = 16 * 1024 * 1024
"""Largest file of excused keys that is read."""


@click.command()
@config_option
@click.option(
    "--excuse",
    "excused",
    metavar="KEY",
    multiple=True,
    help="This parked key may be without a copy; repeatable.",
)
@click.option(
    "--excuse-from",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="As --excuse, one key on each line of FILE.",
)
@click.option(
    "--require-tier",
    "tier",
    type=click.Choice(["list", "head", "source", "content"]),
    help="This tier must have looked at every key; by default: list, and content for a sample.",
)
@click.option("--accept-unproven", is_flag=True, help="Closings without a proof are enough.")
@click.option(
    "--primary-lsn",
    metavar="LSN",
    help="On a standby: pg_current_wal_lsn() of its primary after the last write.",
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The journal must go on from this manifest.json of an earlier report.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@log_format_option
@redact_keys_option
@click.pass_context
def attest(
    ctx: click.Context,
    /,
    *,
    config_path: Path | None,
    excused: tuple[str, ...],
    excuse_from: Path | None,
    tier: str | None,
    primary_lsn: str | None,
    manifest: Path | None,
    log_format: str | None,
    redact_keys: bool,
    **flags: bool,
) -> None:
    """Say whether the source may be dropped: GO (exit code 0) or NO-GO (4), with every reason.

    Counts the journal anew, looks through each table once in one snapshot, and records the verdict. On GO it prints
    the SQL that would drop or empty the tables; it never runs it.
    """
    from daemon.verdict import lsn

    if primary_lsn is not None:
        try:
            lsn(primary_lsn)
        except ValueError as error:
            raise ConfigError(
                [f"--primary-lsn: {error}"], "ask the primary: select pg_current_wal_lsn()"
            ) from error
    keys = (*excused, *(() if excuse_from is None else _keys_of(excuse_from)))

    def work(config: Config, ending: Ending) -> ExitCode:
        import trio

        from daemon.attesting import AttestOptions
        from daemon.attesting import attest as attested
        from daemon.comparing import TierName

        wanted = None if tier is None else TierName(tier)
        options = AttestOptions(keys, tier=wanted, primary_lsn=primary_lsn, manifest=manifest, **flags)
        return trio.run(attested, config, options, ending)

    ctx.exit(concluded_by(config_path, log_overrides(log_format, redact_keys=redact_keys), work))


def _keys_of(path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            text = file.read(EXCUSES_BYTES_MAX + 1)
        if len(text) > EXCUSES_BYTES_MAX:
            raise ConfigError([f"--excuse-from {path}: larger than {EXCUSES_BYTES_MAX // 1024**2} MiB"])
        return tuple(line for line in text.decode().split("\n") if line)
    except OSError as error:
        raise ConfigError([f"--excuse-from {path}: {(error.strerror or str(error)).lower()}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"--excuse-from {path}: not UTF-8"]) from error


COMMANDS = (attest,)
"""What this module adds to the command line."""
