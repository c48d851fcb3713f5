"""The life of one row, told in order; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon import rendering_units as units
from daemon.layouts import object_key, recorded_layout
from daemon.rendering_events import attempt_words, happened, who_died
from journal.entries import Revocation
from journal.events import VERSION, Kind
from journal.lifecycle import KeyState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from journal.events import StoredEvent
    from journal.histories import KeyHistory

SCHEMA_VERSION = 1
"""Version of `explain_json`: fields may be added under the same one."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What was found of the text that an operator typed.

    Attributes:
        text: as typed.
        by_row_key: the rows with this key: once per source and time it was planned, oldest first.
        by_object_key: the rows whose object has this key, without those in `by_row_key`.
    """

    text: str
    by_row_key: Sequence[KeyHistory]
    by_object_key: Sequence[KeyHistory] = ()

    @property
    def histories(self) -> list[KeyHistory]:
        """All of them."""
        return [*self.by_row_key, *self.by_object_key]


def explain_text(explained: Explained) -> str:
    """Return the life of each row found, and of which name it was found where that is not the row key.

    Keys and messages are escaped; a line takes what it needs, the terminal wraps it.
    """
    parts = ["\n".join(_told(history)) for history in explained.by_row_key]
    if explained.by_object_key:
        shown = units.shown(explained.text)
        if parts:
            parts.insert(0, f"{shown} is a row key, and the object key of another row; as a row key:")
        parts.append(f"{shown} as an object key:")
        parts += ["\n".join(_told(history)) for history in explained.by_object_key]
    return "\n\n".join(parts)


def object_of(history: KeyHistory) -> tuple[str | None, str | None]:
    """Return bucket and key of the object that the row becomes, by what is on record of its source."""
    layout = recorded_layout(history.identity)
    try:
        key = None if layout is None else object_key(layout, history.row_key)
    except ValueError:
        key = None
    return history.identity.get("bucket"), key


def _told(history: KeyHistory) -> list[str]:
    lines = [f"key {units.shown(history.row_key)} of source {units.shown(history.source)}: {_state(history)}"]
    bucket, key = object_of(history)
    if bucket is not None and key is not None:
        there = "is" if history.state in {KeyState.STORED, KeyState.PRESENT} else "would be"
        lines.append(f"  its object {there} s3://{units.shown(bucket)}/{units.shown(key)}")
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
    told = [(event.seq, event.ts_us, _event(event)) for event in history.events]
    told += [
        (found.seq, found.time_us, f"verified by {units.shown(found.tier)}: found right among all keys")
        for found in history.verifications
        if not found.sampled
    ]
    lines += [f"  {units.moment_ms(ts_us)}  {words}" for _, ts_us, words in sorted(told)]
    if history.unverified:
        lines.append("  no verification has found its object right since")
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
    told = [
        f"{kind.replace('_', ' ')}{f': {detail}' if detail else ''}"
        for kind, _, _, detail in data["findings"]
    ]
    return f"verification by {data['tier']}: {'; '.join(told)}"


def _revoked(data: dict[str, Any]) -> str:
    return f"outcome taken back by {data['who']} for {_CAUSES[data['cause']]}: {data['message']}"


def _deleted(data: dict[str, Any]) -> str:
    return "object found gone already" if data.get("already_gone") else "object deleted from the bucket"


_CAUSES = {Revocation.REPAIR: "a repair", Revocation.UNDO: "an undo"}

_DETAILS = {"md5": "MD5", "etag": "ETag", "version_id": "version"}
_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    Kind.CHUNK_SEALED: lambda _: "planned",
    Kind.KEYS_CLAIMED: lambda _: "claimed",
    Kind.KEYS_RECLAIMED: lambda _: "claimed again",
    Kind.ATTEMPT_FAILED: attempt_words,
    Kind.KEY_PARKED: lambda data: f"parked: {data['failure']}: {data['message']}",
    Kind.KEYS_RECOVERED: lambda data: f"recovered: {who_died(data)} died with it in flight",
    Kind.KEYS_RELEASED: lambda _: "given back undone, as its session stopped",
    Kind.KEYS_REQUEUED: lambda data: f"requeued by {data['who']}",
    Kind.OUTCOMES_RECORDED: _settled,
    Kind.OUTCOMES_REVOKED: _revoked,
    Kind.FINDING_RECORDED: _findings,
    Kind.VERIFICATION_PROGRESSED: lambda data: f"verified by {data['tier']}: found right in a random sample",
    Kind.OBJECTS_DELETED: _deleted,
    Kind.ROWS_RESTORED: lambda data: f"restored into {data['into']} by {data['who']}",
}


def explain_json(explained: Explained) -> dict[str, Any]:
    """Return the same for programs.

    Keys: `schema_version`; `key`, the text that was asked for; `plans`, one per source and time it was planned:
    `row_key`, `found_by` ("row_key" or "object_key": what the text is), `bucket` and `object_key` (null where the
    journal does not tell), `source`, `ordinal`, `supersedes`, `superseded_by` (ordinals or null), `pass`,
    `pass_kind`, `created_at_us` (microseconds since 1970-01-01 UTC, or null), `planned_bytes`, `state`,
    `recoveries`, `outcome` (or null), `outcome_seq`, `bytes`, `md5`, `etag` (null where it equals `md5`),
    `version_id`; `verifications` that found its object right: `seq` and `time_us` of the event that says so,
    `tier`, `run` (seq of its start), `sampled` (or all keys), `outcome_seq`; `unverified` (its object must be
    there, and none has since); and `events`: `seq`, `time_us`, `kind`, `version`, `data`, where the data of an
    event about many keys is narrowed to this one.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "key": explained.text,
        "plans": [_plan_json(history, "row_key") for history in explained.by_row_key]
        + [_plan_json(history, "object_key") for history in explained.by_object_key],
    }


def _plan_json(history: KeyHistory, found_by: str) -> dict[str, Any]:
    bucket, key = object_of(history)
    return {
        "row_key": history.row_key,
        "found_by": found_by,
        "bucket": bucket,
        "object_key": key,
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
        "outcome_seq": history.outcome_seq,
        "bytes": history.size,
        "md5": history.md5,
        "etag": history.etag,
        "version_id": history.version_id,
        "verifications": [
            {
                "seq": found.seq,
                "time_us": found.time_us,
                "tier": found.tier,
                "run": found.run,
                "sampled": found.sampled,
                "outcome_seq": found.outcome_seq,
            }
            for found in history.verifications
        ],
        "unverified": history.unverified,
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
