"""What a control socket carries: requests and replies, one line of JSON each; pure.

A request is an object with `action`, optionally `journal` (the daemon refuses one that is not its own), and the
fields of that action. A reply has `ok`: true with `said` and `data`, or false with `problems`, `hint` and
`exit_code`; one from the daemon of another journal has `elsewhere`, the journal that it works on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from daemon.errors import BackfillError, ConfigError, ExitCode

REQUEST_BYTES_MAX = 1 << 20
"""Longest request: a requeue of a thousand keys of a thousand bytes."""
REPLY_BYTES_MAX = 1 << 26
"""Longest reply: the status of some thousand sources with their samples."""


class Action(StrEnum):
    """What a daemon can be asked; the strings are those of the command line."""

    PAUSE = "pause"
    RESUME = "resume"
    SET = "set"
    DRAIN = "drain"
    REQUEUE = "requeue"
    STATUS = "status"


_FIELDS: dict[Action, frozenset[str]] = {
    **{action: frozenset() for action in Action},
    Action.SET: frozenset({"words"}),
    Action.REQUEUE: frozenset({"source", "keys", "failure"}),
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        journal: the absolute path of the journal that it is about; None: whichever the daemon works on.
        words: of `set`, such as "concurrency=16".
        source, keys, failure: what a requeue is narrowed to; all parked keys where all are empty.
    """

    action: Action
    journal: str | None = None
    words: tuple[str, ...] = ()
    source: str | None = None
    keys: tuple[str, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The request was carried out; `said` is for people, `data` for programs."""

    said: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was done: as `BackfillError`, with every problem found."""

    problems: tuple[str, ...]
    hint: str = ""
    exit_code: ExitCode = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Nothing was done: the daemon works on another journal than the request is about."""

    journal: str


Reply: TypeAlias = "Done | Refused | Elsewhere"


class MalformedRequestError(ConfigError):
    """A line that is no request."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            [f"control request: {problem}"], "client and daemon are of one version? `backfillctl --version`"
        )


def encode_request(request: Request) -> bytes:
    """Return a request as its line; a narrowing or word that is not there is left out."""
    fields = {name: value for name, value in asdict(request).items() if value not in (None, ())}
    return _line(fields)


def decode_request(line: bytes) -> Request:
    """Return the request that a line holds.

    Raises:
        MalformedRequestError: it holds none.
    """
    document = _object(line)
    if document is None:
        raise MalformedRequestError("found no JSON object; expected one a line")
    action = document.pop("action", None)
    if not isinstance(action, str) or action not in set(Action):
        raise MalformedRequestError(f"found action {_shown(action)}; expected one of {', '.join(Action)}")
    journal = document.pop("journal", None)
    unknown = sorted(set(document) - _FIELDS[Action(action)])
    if unknown:
        raise MalformedRequestError(f"found field {_shown(unknown[0])}; {action} has no such field")
    for name, value in {"journal": journal, **document}.items():
        listed = name in {"words", "keys"}
        if not (_is_texts(value) if listed else value is None or _is_text(value)):
            raise MalformedRequestError(
                f"found {_shown(value)} as {name}; expected {'texts' if listed else 'a text'}"
            )
    return Request(
        Action(action),
        journal,
        words=tuple(document.get("words", ())),
        source=document.get("source"),
        keys=tuple(document.get("keys", ())),
        failure=document.get("failure"),
    )


def encode_reply(reply: Reply) -> bytes:
    """Return a reply as its line."""
    if isinstance(reply, Done):
        return _line({"ok": True, "said": reply.said, "data": reply.data})
    if isinstance(reply, Elsewhere):
        return _line({"ok": False, "elsewhere": reply.journal})
    return _line(
        {
            "ok": False,
            "problems": list(reply.problems),
            "hint": reply.hint,
            "exit_code": int(reply.exit_code),
        }
    )


def decode_reply(line: bytes) -> Reply:
    """Return the reply that a line holds.

    Raises:
        BackfillError: it holds none: whatever listens there is no daemon, or one of another version.
    """
    document = _object(line) or {}
    try:
        if document["ok"] is True:
            return Done(str(document["said"]), dict(document["data"]))
        if "elsewhere" in document:
            return Elsewhere(str(document["elsewhere"]))
        problems = tuple(str(problem) for problem in document["problems"])
        return Refused(problems, str(document["hint"]), ExitCode(document["exit_code"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BackfillError(
            f"ask the daemon: found {_shown(line[:80].decode(errors='replace'))}; expected a reply of a daemon",
            "another program, or a daemon of another version, listens there; look at control.socket",
        ) from error


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _is_text(value: object) -> bool:
    """Say whether it is a text that the journal can hold: no NUL, nothing that UTF-8 has not."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _shown(value: object) -> str:
    return json.dumps(value)[:80]
