"""Commands that act on the journal alone: requeue, and check, rebuild, export and backup of the file."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.commands.options import config_option, find_journal, journal_option, now_us, row_key
from daemon.errors import ConfigError, ExitCode
from daemon.operators import operator

if TYPE_CHECKING:
    from journal.log import Journal

OWNER_WAIT_SECONDS = 1.0
"""How long a command waits for a daemon that is just ending; one that runs is named at once after that."""
PROBLEMS_SHOWN_MAX = 20
"""What `journal check` prints: one screen."""
NARROWING_SHOWN_MAX = 5
"""Options that a message repeats: one line, also of a requeue of a thousand keys."""


@click.command()
@config_option
@journal_option
@click.option("--source", "source_name", metavar="NAME", help="Parked keys of this source.")
@click.option(
    "--key", "keys", metavar="KEY", multiple=True, help="This parked key, as explain shows it; repeatable."
)
@click.option("--failure", metavar="CLASS", help="Keys parked for this class of failure, as status shows it.")
@click.option("--all", "every", is_flag=True, help="Every parked key.")
def requeue(
    config_path: Path | None,
    journal_path: Path | None,
    source_name: str | None,
    keys: tuple[str, ...],
    failure: str | None,
    *,
    every: bool,
) -> None:
    """Give parked keys another chance: the next `run` drives them again."""
    narrowed = bool(source_name or keys or failure)
    if narrowed == every:
        raise ConfigError(
            ["requeue: which keys is not clear; expected --all, or some of --source, --key and --failure"],
            "`backfillctl status` lists what is parked, and why",
        )
    path = find_journal(config_path, journal_path)
    _refuse_unknown_class(failure)
    from journal.log import Journal

    with Journal.open(path, now_us=now_us(), wait_seconds=OWNER_WAIT_SECONDS) as journal:
        number = journal.requeue(
            source=_source_id(journal, source_name),
            row_keys=[row_key(key) for key in keys] or None,
            failure=failure,
            who=operator(),
            now_us=now_us(),
        )
    if number:
        click.echo(
            f"{number} {'key' if number == 1 else 'keys'} requeued; the next `backfillctl run` drives {'it' if number == 1 else 'them'} again"
        )
    elif every:
        click.echo("nothing requeued: no key is parked")
    else:
        raise ConfigError(
            [f"requeue: no parked key matches {_narrowing(source_name, keys, failure)}; nothing requeued"],
            "`backfillctl status` lists what is parked and why, `backfillctl explain KEY` tells a key's state",
        )


def _narrowing(source_name: str | None, keys: tuple[str, ...], failure: str | None) -> str:
    options = [("--source", source_name), *(("--key", key) for key in keys), ("--failure", failure)]
    given = [f'{option} "{value}"' for option, value in options if value is not None]
    shown = ", ".join(given[:NARROWING_SHOWN_MAX])
    return (
        f"{shown} and {len(given) - NARROWING_SHOWN_MAX} more" if len(given) > NARROWING_SHOWN_MAX else shown
    )


def _refuse_unknown_class(failure: str | None) -> None:
    from daemon.retrying import FailureClass

    known = [kind.value for kind in FailureClass]
    if failure is not None and failure not in known:
        raise ConfigError([f'--failure: found "{failure}"; expected one of {", ".join(known)}'])


def _source_id(journal: Journal, name: str | None) -> int | None:
    if name is None:
        return None
    if name not in journal.sources:
        known = ", ".join(journal.sources) or "none"
        raise ConfigError([f'--source: found "{name}"; expected a source of this journal: {known}'])
    return journal.sources[name].id


@click.group("journal")
def journal_group() -> None:
    """Look after the journal's file."""


@journal_group.command("check")
@config_option
@journal_option
@click.pass_context
def journal_check(ctx: click.Context, config_path: Path | None, journal_path: Path | None) -> None:
    """Verify every event, every plan chunk, and that the projections follow from them."""
    path = find_journal(config_path, journal_path)
    from journal import checking, maintenance
    from journal.errors import RESTORE_BACKUP

    problems = maintenance.check(path)
    for problem in problems[:PROBLEMS_SHOWN_MAX]:
        click.echo(f"error: {problem}", err=True)
    if len(problems) > PROBLEMS_SHOWN_MAX:
        click.echo(f"error: and {len(problems) - PROBLEMS_SHOWN_MAX} more", err=True)
    if problems:
        hint = (
            f"keep a copy of {path}; `backfillctl journal rebuild` derives projections anew"
            if checking.mended_by_rebuild(problems)
            else f"keep {path} for inquiry; no rebuild mends this: {RESTORE_BACKUP}"
        )
        click.echo(f"hint: {hint}", err=True)
        ctx.exit(ExitCode.JOURNAL)
    click.echo(f"{path}: sound")


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


COMMANDS = (requeue, journal_group)
