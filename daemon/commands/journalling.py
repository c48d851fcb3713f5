"""Commands that look after the journal's file: check, rebuild, export, backup."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click

from daemon.commands.options import config_option, find_journal, journal_option
from daemon.errors import ConfigError, ExitCode

PROBLEMS_SHOWN_MAX = 20
"""What `journal check` prints: one screen."""


@click.group("journal")
def journal_group() -> None:
    """Look after the journal's file."""


@journal_group.command("check")
@config_option
@journal_option
@click.option(
    "--manifest",
    "manifest_path",
    type=click.Path(readable=False, path_type=Path),
    metavar="FILE",
    help="The manifest.json of an earlier report: its newest event must still be in the log.",
)
@click.pass_context
def journal_check(
    ctx: click.Context, config_path: Path | None, journal_path: Path | None, manifest_path: Path | None
) -> None:
    """Verify every event, every plan chunk, and that the projections follow from them.

    A log whose tail was cut, or an older copy, is sound in itself: only the manifest of a report tells.
    """
    path = find_journal(config_path, journal_path)
    from journal import anchors, checking, maintenance
    from journal.errors import RESTORE_BACKUP

    problems = maintenance.check(path, manifest_path)
    for problem in problems[:PROBLEMS_SHOWN_MAX]:
        click.echo(f"error: {problem}", err=True)
    if len(problems) > PROBLEMS_SHOWN_MAX:
        click.echo(f"error: and {len(problems) - PROBLEMS_SHOWN_MAX} more", err=True)
    if problems:
        if checking.mended_by_rebuild(problems):
            hint = f"keep a copy of {path}; `backfillctl journal rebuild` derives projections anew"
        elif all(problem.startswith(anchors.ANCHOR_PROBLEM) for problem in problems):
            hint = (
                f"keep {path} for inquiry, run nothing on it, and look for the journal, or a backup of it, that"
                " holds the manifest's event; sound in itself, it proves nothing of what came after its own end"
            )
        else:
            hint = f"keep {path} for inquiry; no rebuild mends this: {RESTORE_BACKUP}"
        click.echo(f"hint: {hint}", err=True)
        ctx.exit(ExitCode.JOURNAL)
    click.echo(f"{path}: sound{'' if manifest_path is None else ', and it goes on from the manifest'}")


@journal_group.command("rebuild")
@config_option
@journal_option
def journal_rebuild(config_path: Path | None, journal_path: Path | None) -> None:
    """Derive the projections anew from the log; no daemon may run."""
    path = find_journal(config_path, journal_path)
    from journal import maintenance

    number = maintenance.rebuild(path)
    click.echo(f"{path}: projections derived anew from {number} events")


@journal_group.command("export")
@config_option
@journal_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write to FILE, which must not exist, instead of standard output.",
)
def journal_export(config_path: Path | None, journal_path: Path | None, output: Path | None) -> None:
    """Write the whole log as JSON lines."""
    path = find_journal(config_path, journal_path)
    from journal import maintenance
    from journal.errors import JournalError

    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        maintenance.export(path, sys.stdout)
        return
    try:
        with output.open("x", encoding="utf-8") as out:
            maintenance.export(path, out)
    except FileExistsError as exc:
        raise ConfigError([f"export to {output}: it exists"], "name another file with -o FILE") from exc
    except OSError as exc:
        raise ConfigError(
            [f"export to {output}: {(exc.strerror or str(exc)).lower()}"],
            "name a file that you may write with -o FILE",
        ) from exc
    except JournalError:
        output.unlink()
        raise


@journal_group.command("backup")
@click.argument("destination", type=click.Path(path_type=Path))
@config_option
@journal_option
def journal_backup(destination: Path, config_path: Path | None, journal_path: Path | None) -> None:
    """Copy the journal to DESTINATION consistently, also while a daemon writes; never copy the file itself."""
    path = find_journal(config_path, journal_path)
    from journal import maintenance

    try:
        taken = destination.exists()
    except OSError as exc:
        raise ConfigError(
            [f"backup to {destination}: {(exc.strerror or str(exc)).lower()}"], "name another destination"
        ) from exc
    if taken:
        raise ConfigError([f"backup to {destination}: it exists"], "name another destination")
    maintenance.backup(path, destination)
    click.echo(f"{path} copied to {destination}")


COMMANDS = (journal_group,)
