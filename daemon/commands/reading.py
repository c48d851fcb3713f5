"""Commands that read the journal and nothing else: status, explain, events; whatever the daemon does."""

from __future__ import annotations

import errno
import json
import os
import shutil
from typing import TYPE_CHECKING

import click

from daemon.commands.options import (
    config_option,
    find_journal,
    find_migration,
    journal_option,
    moment_option,
    now_us,
    row_key,
)
from daemon.commands.past import past_status
from daemon.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.rendering import Explained
    from journal.reader import Reader

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command()
@config_option
@journal_option
@click.option(
    "--as-of",
    metavar="TIME",
    help='Tell how it was at a time with its zone, or "2h" ago, from the log alone.',
)
@click.option("--live", is_flag=True, help="Ask the running daemon, and show what only it knows.")
@click.option(
    "--watch", "watched", is_flag=True, help="Show it again and again, on a terminal full screen; q leaves."
)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks of --watch.",
)
@_json
def status(
    *,
    config_path: Path | None,
    journal_path: Path | None,
    as_of: str | None,
    live: bool,
    watched: bool,
    interval: float,
    as_json: bool,
) -> None:
    """Tell how far the migration is, and why it is not further."""
    where = find_migration(config_path, journal_path)
    from daemon.commands.asking import live_status, status_of_migration
    from daemon.rendering import live_text, status_json, status_text
    from journal.reader import Reader

    given = [("--live", live), ("--watch", watched), ("--as-of", as_of is not None)]
    ways = [option for option, is_given in given if is_given]
    if len(ways) > 1:
        raise ConfigError([f"status: found {' and '.join(ways)}; expected one of them"])
    if watched:
        from daemon.commands.watching import watch

        watch(lambda now: status_of_migration(where, now_us=now), interval_seconds=interval, as_json=as_json)
        return
    now = now_us()
    moment = now if as_of is None else moment_option("--as-of", as_of)
    if as_of is None:
        found, facts = live_status(where) if live else (status_of_migration(where, now_us=now), None)
    else:
        facts = None
        with Reader.open(where.journal) as reader:
            found = past_status(reader, moment, now_us=now)
    if as_json:
        document = status_json(found, now_us=moment, past=as_of is not None)
        click.echo(json.dumps(document if facts is None else {**document, "live": facts}, indent=2))
        return
    width = shutil.get_terminal_size().columns
    click.echo(status_text(found, now_us=moment, width=width, past=as_of is not None))
    if facts is not None:
        click.echo(live_text(facts))


@click.command()
@click.argument("key")
@config_option
@journal_option
@_json
def explain(key: str, config_path: Path | None, journal_path: Path | None, *, as_json: bool) -> None:
    """Tell the life of one row: planned, each attempt, the outcome, and what has verified it since.

    KEY is its row key, its object key (also s3://BUCKET/KEY), or the hash of either in a redacted log.
    """
    path = find_journal(config_path, journal_path)
    text = row_key(key)
    from daemon.hash_lookup import redactor_of
    from daemon.rendering import explain_json, explain_text
    from journal.reader import Reader

    now = now_us()
    with Reader.open(path) as reader:
        explained = _explained(reader, text, now=now)
        hashed = {
            found: redactor_of(reader, now_us=now).hashed(found)
            for found in sorted({history.row_key for history in explained.histories})
        }
    if as_json:
        document = explain_json(explained)
        document["hash"] = next(iter(hashed.values()))
        for plan in document["plans"]:
            plan["hash"] = hashed[plan["row_key"]]
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(explain_text(explained))
        click.echo(f"redacted: {', '.join(hashed.values())}")


def _explained(reader: Reader, text: str, *, now: int) -> Explained:
    """Return the rows that `text` names as a row key, as an object key, or as the hash of one.

    Raises:
        ConfigError: there is none; the message says what it could have been.
    """
    from daemon.hash_lookup import row_keys_of
    from daemon.object_lookup import object_name, rows_of_object, unnamed
    from daemon.redacting import PREFIX
    from daemon.rendering import Explained
    from journal.queries import sources

    by_row_key = reader.explain(text)
    known = list(reader.read(sources).values())
    name = object_name(text)
    rows = rows_of_object(name, known)
    # A row whose object bears its own key is among the first ones already.
    named = {(source.id, found) for source, found in rows if found != text}
    by_object_key = [
        history
        for found in sorted({found for _, found in named})
        for history in reader.explain(found)
        if (history.source_id, found) in named
    ]
    if by_row_key or by_object_key:
        return Explained(text, by_row_key, by_object_key)
    if text.startswith(PREFIX):
        # One hash stands for one row key, but for a chance that nobody will live to see.
        found_keys = row_keys_of(reader, text, now_us=now)
        if found_keys:
            return Explained(found_keys[0], reader.explain(found_keys[0]))
    problems = [f'explain "{text}": no source has planned a row with this key']
    if rows:
        problems += [
            f'it would be the object key of row "{found}" of source {source.name}, which was never planned'
            for source, found in rows
            if found != text
        ]
    elif name.bucket is not None or "/" in text:
        problems.append(f"nor is it an object key: {unnamed(name, known)}")
    raise ConfigError(
        problems,
        "keys are written as PostgreSQL writes them as text; columns of a composite key as a JSON array;"
        " object keys whole, with their prefix",
    )


@click.command()
@config_option
@journal_option
@click.option("--source", "source_name", metavar="NAME", help="Only events of this source.")
@click.option("--kind", "kinds", metavar="KIND", multiple=True, help="Only events of this kind; repeatable.")
@click.option("--since", metavar="TIME", help='Only events since a time with its zone, or the last "2h".')
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N events.")
@click.option(
    "--follow",
    "-f",
    "followed",
    is_flag=True,
    help="Then print what is recorded from now on; Ctrl-C ends it.",
)
@_json
@click.pass_context
def events(
    ctx: click.Context,
    /,
    *,
    config_path: Path | None,
    journal_path: Path | None,
    source_name: str | None,
    kinds: tuple[str, ...],
    since: str | None,
    limit: int | None,
    followed: bool,
    as_json: bool,
) -> None:
    """Print the journal's events, oldest first, one a line."""
    path = find_journal(config_path, journal_path)
    since_us = None if since is None else moment_option("--since", since)
    from daemon.commands.following import Filter, Printer, follow, wait_for_reader

    _refuse_unknown_kinds(kinds)
    printer = Printer(path, Filter(kinds, source_name, since_us, limit), as_json=as_json)
    if not followed:
        printer.look()
        return
    try:
        follow(printer, wait_for_reader)
    except KeyboardInterrupt:
        # How it is meant to end: nothing is left to be told.
        ctx.exit(ExitCode.INTERRUPTED)
    if not printer.done:
        # As if it had been written to: whether an event came meanwhile is chance.
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _refuse_unknown_kinds(kinds: tuple[str, ...]) -> None:
    from journal.events import Kind

    known = [kind.value for kind in Kind]
    unknown = [kind for kind in kinds if kind not in known]
    if unknown:
        raise ConfigError([f'--kind: found "{kind}"; expected one of {", ".join(known)}' for kind in unknown])


COMMANDS = (status, explain, events)
