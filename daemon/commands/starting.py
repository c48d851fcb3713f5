"""Commands to begin with: init writes a configuration, demo shows the whole on servers of its own."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import click

from daemon.errors import ConfigError


@click.command()
@click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="BACKFILL_CONFIG",
    show_envvar=True,
    default=Path("backfill.toml"),
    show_default=True,
    metavar="FILE",
    help="The file to write.",
)
def init(config_path: Path) -> None:
    """Write a configuration to begin with, every key explained; never over an existing file."""
    from daemon.settings_sample import SAMPLE

    try:
        descriptor = os.open(config_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(SAMPLE)
    except FileExistsError as exc:
        raise ConfigError([f"write {config_path}: it exists"], "name another file with -c FILE") from exc
    except OSError as exc:
        raise ConfigError(
            [f"write {config_path}: {(exc.strerror or str(exc)).lower()}"], "name another file with -c FILE"
        ) from exc
    click.echo(f"{config_path} written; edit it, then: backfillctl check -c {config_path}")


@click.command()
@click.option("--keep", is_flag=True, help="Leave the servers running and say how to look around.")
@click.pass_context
def demo(ctx: click.Context, *, keep: bool) -> None:
    """Show a migration with a kill in the middle, on a PostgreSQL and an S3 server of its own."""
    if os.name != "posix":
        raise ConfigError(
            [f"no embedded servers for {platform.platform()}"],
            "run the demo on Linux or on macOS on Apple silicon",
        )
    from daemon.demo import demo as demonstration

    ctx.exit(demonstration.run(keep=keep))


COMMANDS = (init, demo)
