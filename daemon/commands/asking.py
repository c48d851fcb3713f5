"""Reach a migration's daemon, or what it left: over its socket where one answers, else in its journal."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.control_client import ask
from daemon.control_protocol import Action, Done, Refused, Request
from daemon.errors import BackfillError, ConfigError, RefusedError
from journal.errors import JournalError
from journal.lock import owner_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.commands.options import Whereabouts
    from daemon.control_client import Unanswered
    from journal.status import MigrationStatus

NO_DAEMON_HINT = "`backfillctl run` starts one; `backfillctl status` reads the journal without one"


def asked(where: Whereabouts, request: Request) -> Done | Unanswered:
    """Return what the migration's daemon did, or that none was reached.

    Raises:
        BackfillError: it refused.
    """
    reply = ask(where.sockets, request)
    if isinstance(reply, Refused):
        raise _refusal(reply)
    if isinstance(reply, Done):
        return reply
    recorded = _recorded_socket(where)
    if recorded is None or recorded in where.sockets:
        return reply
    again = ask([recorded], request)
    if isinstance(again, Refused):
        raise _refusal(again)
    return again


def live_status(where: Whereabouts) -> tuple[MigrationStatus, dict[str, Any]]:
    """Return the status as the daemon reads it, and what only its process knows.

    Raises:
        BackfillError: no daemon answers.
    """
    reply = asked(where, Request(Action.STATUS, str(where.journal)))
    if isinstance(reply, Done):
        from daemon.status_codec import status_of

        return status_of(reply.data.get("status")), dict(reply.data.get("live", {}))
    raise no_daemon(where, reply.denied, "status --live", "what it knows")


def status_of_migration(where: Whereabouts, *, now_us: int) -> MigrationStatus:
    """Return the status: from the journal, or where this user can't read that, from the daemon.

    Raises:
        BackfillError, JournalError: neither; the hint says what to type.
    """
    from journal.reader import Reader

    try:
        with Reader.open(where.journal) as reader:
            return reader.status(now_us=now_us)
    except JournalError as error:
        if type(error) is not JournalError:
            # It is missing, damaged, of another version: no daemon could tell more.
            raise
        try:
            return live_status(where)[0]
        except BackfillError:
            advise_owner(error, where, "status")
            raise error from None


def no_daemon(where: Whereabouts, denied: Sequence[Path], command: str, left: str) -> BackfillError:
    """Return the error of a command that only a daemon can carry out, where none answers."""
    if denied:
        return RefusedError(
            f"{command}: this user may not connect to {denied[0]}", as_owner(where, command, denied[0])
        )
    try:
        owner = owner_of(where.journal)
    except JournalError as error:
        advise_owner(error, where, command)
        raise
    if owner is None:
        return ConfigError(
            [f"{command}: no daemon works on journal {where.journal}; it alone has {left}"], NO_DAEMON_HINT
        )
    return ConfigError(
        [f"{command}: {owner} holds journal {where.journal}, and answers on no control socket"],
        f"tried {', '.join(map(str, where.sockets))}; wait until it has ended, or stop it (SIGTERM)",
    )


def as_owner(where: Whereabouts, command: str, socket: Path) -> str:
    """Return what to type instead, as the user who may connect to `socket`."""
    return f"`sudo -u {_name(_owner_uid(socket))} backfillctl {command} {where.naming}`, or join the group of {socket}"


def advise_owner(error: JournalError, where: Whereabouts, command: str) -> None:
    """Make the hint say what to type, where the journal is another user's."""
    uid = _owner_uid(where.journal)
    if uid != os.geteuid():
        error.hint = (
            f"`sudo -u {_name(uid)} backfillctl {command} {where.naming}`; while a daemon runs, its control group"
            " may ask it too"
        )


def _refusal(reply: Refused) -> BackfillError:
    refusal = ConfigError(list(reply.problems), reply.hint)
    refusal.exit_code = reply.exit_code
    return refusal


def _recorded_socket(where: Whereabouts) -> Path | None:
    """Return where the journal says that its newest session listens, if it can be read and somebody holds it."""
    from journal.reader import Reader

    try:
        with Reader.open(where.journal) as reader:
            status = reader.status(now_us=0)
    except JournalError:
        return None
    socket = status.session.facts.get("control_socket") if status.owner and status.session else None
    return Path(socket) if isinstance(socket, str) else None


def _owner_uid(path: Path) -> int:
    """Return who owns `path`, or the last directory on the way to it that this user can see."""
    for part in (path, *path.parents):
        try:
            return part.stat().st_uid
        except OSError:
            continue
    return 0


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        # Quoted, since to a shell the rest of the line would be a comment.
        return f"'#{uid}'"
