"""Commands that steer a migration: through its daemon where one runs, else in its journal, under the lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from daemon.commands.asking import advise_owner, as_owner, asked, no_daemon
from daemon.commands.options import config_option, find_migration, journal_option, now_us, row_key
from daemon.control_protocol import Action, Done, Request
from daemon.errors import ConfigError, RefusedError
from daemon.operators import operator
from journal.errors import JournalError, JournalLocked

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.commands.options import Whereabouts
    from daemon.control_client import Unanswered

OWNER_WAIT_SECONDS = 1.0
"""How long a command waits for a daemon that is just ending; one that runs is named at once after that."""


@click.command()
@config_option
@journal_option
def pause(config_path: Path | None, journal_path: Path | None) -> None:
    """Begin nothing new until `resume`, in this session and all to come; what is in flight is ended."""
    where = find_migration(config_path, journal_path)
    _steer(where, Request(Action.PAUSE, str(where.journal)))


@click.command()
@config_option
@journal_option
def resume(config_path: Path | None, journal_path: Path | None) -> None:
    """End a pause."""
    where = find_migration(config_path, journal_path)
    _steer(where, Request(Action.RESUME, str(where.journal)))


@click.command("set")
@config_option
@journal_option
@click.argument("words", metavar="NAME=VALUE...", nargs=-1)
def set_(config_path: Path | None, journal_path: Path | None, words: tuple[str, ...]) -> None:
    """Change how hard a migration pushes, at once and until set to "config" again.

    \b
    concurrency=16         uploads at once, over all sources, at most
    rows-per-second=500    most that is read from PostgreSQL, or off
    bytes-per-second=20MiB likewise
    NAME=config            as the configuration has it
    """  # noqa: D301 -- click's mark for lines to be left as they are
    from daemon.tunables import parse

    parse(words)
    where = find_migration(config_path, journal_path)
    _steer(where, Request(Action.SET, str(where.journal), words=words))


@click.command()
@config_option
@journal_option
def drain(config_path: Path | None, journal_path: Path | None) -> None:
    """Let the daemon end what is in hand and exit, as SIGTERM does; it exits with 8."""
    where = find_migration(config_path, journal_path)
    reply = asked(where, Request(Action.DRAIN, str(where.journal)))
    if not isinstance(reply, Done):
        raise no_daemon(where, reply.denied, "drain", "work in hand")
    click.echo(reply.said)


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
    """Give parked keys another chance: the running daemon drives them again, or the next `run`."""
    narrowed = bool(source_name or keys or failure)
    if narrowed == every:
        raise ConfigError(
            ["requeue: which keys is not clear; expected --all, or some of --source, --key and --failure"],
            "`backfillctl status` lists what is parked, and why",
        )
    where = find_migration(config_path, journal_path)
    _steer(
        where,
        Request(
            Action.REQUEUE,
            str(where.journal),
            source=source_name,
            keys=tuple(row_key(key) for key in keys),
            failure=failure,
        ),
    )


def _steer(where: Whereabouts, request: Request) -> None:
    """Let the daemon do it, or where none runs, do it under the journal's lock; say what was done."""
    reply = asked(where, request)
    click.echo(reply.said if isinstance(reply, Done) else _recorded(where, request, reply))


def _recorded(where: Whereabouts, request: Request, unanswered: Unanswered) -> str:
    from daemon.actions import record
    from journal.log import Journal

    try:
        with Journal.open(where.journal, now_us=now_us(), wait_seconds=OWNER_WAIT_SECONDS) as journal:
            return record(journal, request, who=operator(), now_us=now_us(), running=False)
    except JournalLocked as locked:
        if unanswered.denied:
            raise RefusedError(
                f"{locked.problem}; this user may not connect to {unanswered.denied[0]}",
                as_owner(where, request.action.value, unanswered.denied[0]),
            ) from locked
        locked.hint = (
            f"it answers on no control socket (tried {', '.join(map(str, where.sockets))}):"
            " wait until it has ended, or stop it (SIGTERM drains it)"
        )
        raise
    except JournalError as error:
        if type(error) is JournalError:
            advise_owner(error, where, request.action.value)
        raise


COMMANDS = (pause, resume, set_, drain, requeue)
