"""The life of one row, told in order; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon import rendering_units as units
from daemon.rendering_events import attempt_words, happened
from journal.events import VERSION, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from journal.events import StoredEvent
    from journal.histories import KeyHistory

SCHEMA_VERSION = 1
"""Version of `explain_json`: fields may be added under the same one."""


def explain_text(key: str, histories: Sequence[KeyHistory]) -> str:
    """Return the life of the rows with this key: once per source and time it was planned, oldest first.

    Keys and messages are escaped; a line takes what it needs, the terminal wraps it.
    """
    return "\n\n".join("\n".join(_told(key, history)) for history in histories)


def _told(key: str, history: KeyHistory) -> list[str]:
    lines = [f"key {units.shown(key)} of source {units.shown(history.source)}: {_state(history)}"]
    created = (
        "no created_at" if history.created_at is None else f"created_at {units.moment(history.created_at)}"
    )
    found = f"planned as ordinal {history.ordinal} by pass {history.pass_number} ({history.pass_kind})"
    lines.append(f"  {found}, {created}, {units.plural(history.planned_size, 'byte')}")
    if history.supersedes is not None:
        lines.append(
            f"  planned again: its row was gone or another when ordinal {history.supersedes} had been settled"
        )
    if history.superseded_by is not None:
        lines.append(f"  planned again later as ordinal {history.superseded_by}")
    if history.recoveries:
        lines.append(
            f"  {units.plural(history.recoveries, 'process', 'processes')} died while it was in flight"
        )
    lines += [f"  {units.moment_ms(event.ts_us)}  {_event(event)}" for event in history.events]
    return lines


def _state(history: KeyHistory) -> str:
    if history.outcome is None or history.outcome.value == history.state.value:
        return history.state.value.replace("_", " ")
    return f"{history.state.value} ({history.outcome.value})"


def _event(event: StoredEvent) -> str:
    say = _SENTENCES.get(event.kind)
    if say is None or event.version != VERSION:
        return f"{units.shown(event.kind)}: {happened(event)}"
    return units.shown(say(event.data))


def _settled(data: dict[str, Any]) -> str:
    words = [data["outcome"]]
    if data["outcome"] == "recovered":
        words = ["stored: an upload whose answer was lost had arrived"]
    if data["outcome"] != "vanished":
        words.append(units.plural(data["size"], "byte"))
    words += [f"{label} {data[field]}" for field, label in _DETAILS.items() if data.get(field)]
    return ", ".join(words)


def _findings(data: dict[str, Any]) -> str:
    told = [f"{kind}{f': {detail}' if detail else ''}" for kind, _, _, detail in data["findings"]]
    return f"verification (tier {data['tier']}): {'; '.join(told)}"


_DETAILS = {"md5": "MD5", "etag": "ETag", "version_id": "version"}
_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    Kind.CHUNK_SEALED: lambda _: "planned",
    Kind.KEYS_CLAIMED: lambda _: "claimed",
    Kind.KEYS_RECLAIMED: lambda _: "claimed again",
    Kind.ATTEMPT_FAILED: attempt_words,
    Kind.KEY_PARKED: lambda data: f"parked: {data['failure']}: {data['message']}",
    Kind.KEYS_RECOVERED: lambda data: f"recovered: session {data['session']} died with it in flight",
    Kind.KEYS_RELEASED: lambda _: "given back undone, as its session stopped",
    Kind.KEYS_REQUEUED: lambda data: f"requeued by {data['who']}",
    Kind.OUTCOMES_RECORDED: _settled,
    Kind.FINDING_RECORDED: _findings,
}


def explain_json(key: str, histories: Sequence[KeyHistory]) -> dict[str, Any]:
    """Return the same for programs.

    Keys: `schema_version`; `key`; `plans`, one per source and time it was planned: `source`, `ordinal`,
    `supersedes`, `superseded_by` (ordinals or null), `pass`, `pass_kind`, `created_at_us` (microseconds since
    1970-01-01 UTC, or null), `planned_bytes`, `state`, `recoveries`, `outcome` (or null), `bytes`, `md5`, `etag`
    (null where it equals `md5`), `version_id`, and `events`: `seq`, `time_us`, `kind`, `version`, `data`, where
    the data of an event about many keys is narrowed to this one.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "key": key,
        "plans": [
            {
                "source": history.source,
                "ordinal": history.ordinal,
                "supersedes": history.supersedes,
                "superseded_by": history.superseded_by,
                "pass": history.pass_number,
                "pass_kind": history.pass_kind,
                "created_at_us": history.created_at,
                "planned_bytes": history.planned_size,
                "state": history.state.value,
                "recoveries": history.recoveries,
                "outcome": None if history.outcome is None else history.outcome.value,
                "bytes": history.size,
                "md5": history.md5,
                "etag": history.etag,
                "version_id": history.version_id,
                "events": [
                    {
                        "seq": event.seq,
                        "time_us": event.ts_us,
                        "kind": event.kind,
                        "version": event.version,
                        "data": event.data,
                    }
                    for event in history.events
                ],
            }
            for history in histories
        ],
    }
