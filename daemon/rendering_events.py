"""Events of the journal, one line or one JSON object each; pure.

Every kind has its sentence here. A kind or a version of data that this program does not know is shown as it is
stored, so a journal of a later program is still readable.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from daemon import rendering_units as units
from daemon.causes import change_words
from daemon.rendering_verified import checked_words, found_words, verified
from journal.events import VERSION, Kind
from journal.lifecycle import OUTCOME_OF_CODE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from journal.events import StoredEvent

LISTED_MAX = 5
"""Ordinals or facts written out in a line before the rest is only counted."""


def event_line(event: StoredEvent, *, names: Mapping[int, str] | None = None) -> str:
    """Return one line: seq, time (RFC 3339, UTC, milliseconds), source, kind, and what happened, escaped.

    Args:
        event: from the journal.
        names: sources by id; a source not in there is shown by its id.
    """
    words = [f"{event.seq:>8}", units.moment_ms(event.ts_us)]
    if event.source is not None:
        words.append(source_name(event.source, names))
    return f"{'  '.join(words)}  {event.kind}: {happened(event)}"


def source_name(source: int, names: Mapping[int, str] | None) -> str:
    """Return a source's name, or "source 3" where only its id is known."""
    return units.shown((names or {}).get(source, f"source {source}"))


def event_json(event: StoredEvent, *, names: Mapping[int, str] | None = None) -> dict[str, Any]:
    """Return an event for programs.

    Keys: `seq`; `time_us` (microseconds since 1970-01-01 UTC) and `time` (RFC 3339); `kind`; `version` of the
    data's shape; `source` (name or null) and `source_id`; `data` as stored.
    """
    return {
        "seq": event.seq,
        "time_us": event.ts_us,
        "time": units.moment(event.ts_us),
        "kind": event.kind,
        "version": event.version,
        "source": None if event.source is None else (names or {}).get(event.source),
        "source_id": event.source,
        "data": event.data,
    }


def happened(event: StoredEvent) -> str:
    """Return what an event says, in words, on one line, without foreign control characters."""
    say = _SENTENCES.get(event.kind)
    if say is not None and event.version == VERSION:
        try:
            return say(event.data)
        except (KeyError, TypeError, IndexError, AttributeError, ValueError):
            # Notes carry what their writer chose; shown raw rather than not at all.
            return _raw(event.data)
    return _raw(event.data)


def _raw(data: Any) -> str:
    return units.one_line(json.dumps(data, ensure_ascii=False, sort_keys=True))


def ordinals(numbers: Sequence[int]) -> str:
    """Return "key 7", or "3 keys (ordinals 1, 2, 3)", cut after LISTED_MAX."""
    if len(numbers) == 1:
        return f"key {numbers[0]}"
    named = ", ".join(str(number) for number in numbers[:LISTED_MAX])
    return (
        f"{units.plural(len(numbers), 'key')} (ordinals {named}{', …' if len(numbers) > LISTED_MAX else ''})"
    )


def facts_words(facts: Mapping[str, Any]) -> str:
    """Return "pid 4711, host db1": scalar facts as they are, others as JSON."""
    return ", ".join(
        f"{units.shown(str(name))} {units.shown(value if isinstance(value, str) else json.dumps(value))}"
        for name, value in facts.items()
        if value is not None
    )


def reasons(counts: Mapping[str, int]) -> str:
    """Return "3 newer than cutoff, 1 where", largest first; "none" of nothing."""
    found = sorted(((number, reason) for reason, number in counts.items() if number), reverse=True)
    return (
        ", ".join(
            f"{units.count(number)} {units.shown(reason.replace('_', ' '))}" for number, reason in found
        )
        or "none"
    )


def who_died(data: Mapping[str, Any]) -> str:
    """Name whom recovered keys were taken back from: a process of a session that went on, or a whole session."""
    process = data.get("process")
    return f"session {data['session']}" if process is None else f"{process}, of session {data['session']},"


def attempt_words(data: Mapping[str, Any]) -> str:
    """Return one failed attempt: operation, class, HTTP status, code, request id, milliseconds, message."""
    parts = [f"attempt {data['attempt']}: {data['operation']} {data['failure'].replace('_', ' ')}"]
    if data.get("http_status") is not None:
        parts.append(f"HTTP {data['http_status']}")
    if data.get("code"):
        parts.append(data["code"])
    if data.get("request_id"):
        parts.append(f"request {data['request_id']}")
    if data.get("milliseconds") is not None:
        parts.append(f"{units.count(round(data['milliseconds']))} ms")
    return units.shown(f"{', '.join(parts)}: {data['message']}")


def outcome_words(row: Sequence[Any]) -> str:
    """Return what became of one key: outcome, bytes, MD5, ETag where it is another, version id."""
    outcome = OUTCOME_OF_CODE[row[1]]
    words = [outcome.value]
    if outcome.value == "recovered":
        words = ["stored (recovered: an upload whose answer was lost had arrived)"]
    if outcome.value != "vanished":
        words.append(units.plural(row[2], "byte"))
    if row[3]:
        words.append(f"MD5 {row[3]}")
    if len(row) > 4 and row[4] is not None:
        words.append(f"ETag {row[4]}")
    if len(row) > 5:
        words.append(f"version {row[5]}")
    return units.shown(", ".join(words))


def _outcomes(rows: Sequence[Sequence[Any]]) -> str:
    if len(rows) == 1:
        return f"key {rows[0][0]}: {outcome_words(rows[0])}"
    counts: dict[str, int] = {}
    for row in rows:
        outcome = OUTCOME_OF_CODE[row[1]].value
        counts[outcome] = counts.get(outcome, 0) + 1
    size = sum(row[2] for row in rows if row[1] in {"S", "R"})
    return f"{units.plural(len(rows), 'key')}: {reasons(counts)}; {units.size(size)} stored"


def _created(data: Mapping[str, Any]) -> str:
    cutoff = "not fixed yet" if data["cutoff_us"] is None else units.moment(data["cutoff_us"])
    return f"migration {units.shown(data['name'])}, {data['order']}, cutoff {cutoff}"


def _session_ended(data: Mapping[str, Any]) -> str:
    message = f": {units.shown(data['message'])}" if data.get("message") else ""
    return f"session {data['session']}, {units.shown(data['reason'])}, exit code {data['exit_code']}{message}"


def _sealed(data: Mapping[str, Any]) -> str:
    unusable = f"; unusable keys {units.count(data['unusable'])}" if data["unusable"] else ""
    if data["unusable_example"]:
        unusable += f", for example {units.shown(data['unusable_example'])}"
    return f"pass sealed; excluded {reasons(data['excluded'])}{unusable}"


def _probed(data: Mapping[str, Any]) -> str:
    meaning = "" if data["conditional"] == "atomic" else ": not atomic here"
    left = "" if data["deletable"] else f"; the probe object {data['key']} could not be deleted"
    return units.shown(f"bucket {data['bucket']}, conditional PUT {data['conditional']}{meaning}{left}")


def _completed(data: Mapping[str, Any]) -> str:
    settled = sum(source["settled"] for source in data["sources"].values())
    return f"{units.plural(settled, 'key')} of {units.plural(len(data['sources']), 'source')} settled"


def _findings(data: Mapping[str, Any]) -> str:
    counts: dict[str, int] = {}
    for kind, *_ in data["findings"]:
        counts[kind] = counts.get(kind, 0) + 1
    named = ", ".join(
        f"{kind} {object_key}{f' ({detail})' if detail else ''}"
        for kind, _, object_key, detail in data["findings"][:LISTED_MAX]
    )
    return units.shown(f"{reasons(counts)}: {named}{', …' if len(data['findings']) > LISTED_MAX else ''}")


def _verification_started(data: Mapping[str, Any]) -> str:
    words = [f"tier {data['tier']}"]
    sample = data.get("sample")
    if sample:
        words.append(f"a sample of {units.count(sample['keys'])} of {units.plural(sample['of'], 'key')}")
    return units.shown(", ".join([*words, *([f"by {data['who']}"] if data.get("who") else [])]))


def _verification_progressed(data: Mapping[str, Any]) -> str:
    return units.shown(
        f"tier {data['tier']}: {units.plural(data['counts']['checked'], 'key')} looked at so far"
    )


def _verified(data: Mapping[str, Any]) -> str:
    one = verified(data, finished_us=0)
    found = found_words(one)
    return (
        f"tier {units.shown(one.tier)}: {'mismatch' if one.failed else 'no mismatch'} in {checked_words(one)}"
        f"{'; ' if found else ''}{found}, exit code {data['exit_code']}"
    )


def _undo_started(data: Mapping[str, Any]) -> str:
    scope = data["scope"]
    words = [f"source {units.shown(name)}" for name in scope["sources"]]
    words += [f"key {units.shown(key)}" for key in scope["row_keys"][:LISTED_MAX]]
    if len(scope["row_keys"]) > LISTED_MAX:
        words.append(f"{units.count(len(scope['row_keys']) - LISTED_MAX)} more keys")
    if scope["before_us"] is not None:
        words.append(f"stored before {units.moment(scope['before_us'])}")
    return f"by {units.shown(data['who'])}: {', '.join(words) or 'every object'}"


def _undo_finished(data: Mapping[str, Any]) -> str:
    problem = f"; {units.shown(data['problem'])}" if data["problem"] else ""
    return (
        f"{units.plural(data['deleted'], 'object')} deleted, {units.size(data['bytes'])};"
        f" {units.count(data['gone'])} gone already; left: {reasons(data['left'])}{problem}"
    )


def _deleted(data: Mapping[str, Any]) -> str:
    named = data["ordinals"] if "ordinals" in data else [data["ordinal"]]
    return f"{ordinals(named)}{' found gone already' if data['already_gone'] else ''}"


def _restored(data: Mapping[str, Any]) -> str:
    return units.shown(
        f"by {data['who']}: {units.plural(data['restored'], 'row')} into {data['into']};"
        f" {data['equal']} were there, {data['different']} differ, {data['unread']} could not be had"
    )


def _chunk(data: Mapping[str, Any]) -> str:
    lo, rows = data["lo"], data["n"]
    return f"ordinals {lo} to {lo + rows - 1}, {units.plural(rows, 'row')}, {units.size(data['bytes'])}"


def _surveyed(data: Mapping[str, Any]) -> str:
    found = ", ".join(f"{question.replace('_', ' ')} {word}" for question, word in data["found"].items())
    return units.shown(f"s3://{data['bucket']}/{data['prefix']} by {data['who']}: {found}")


def _concurrency_changed(data: Mapping[str, Any]) -> str:
    why = change_words(data["cause"], data["cuts"])
    return units.shown(f"{data['from']} to {data['to']} of {data['ceiling']} uploads at once: {why}")


def _attested(data: Mapping[str, Any]) -> str:
    why = f": {', '.join(data['not_met'])}" if data["not_met"] else ""
    return units.shown(f"{data['verdict']} by {data['who']} at event {data['head_seq']}{why}")


_SENTENCES: dict[str, Callable[[Any], str]] = {
    Kind.MIGRATION_CREATED: _created,
    Kind.CUTOFF_FIXED: lambda data: units.moment(data["cutoff_us"]),
    Kind.SCHEMA_MIGRATED: lambda data: (
        f"from version {data['from']}; backup in {units.shown(str(data['backup']))}"
    ),
    Kind.SESSION_STARTED: lambda data: f"session {data['session']}, {facts_words(data['facts'])}",
    Kind.SESSION_ENDED: _session_ended,
    Kind.SOURCE_ADDED: lambda data: f"{units.shown(data['name'])}: {facts_words(data['identity'])}",
    Kind.SERVER_ACCEPTED: lambda data: f"by {units.shown(data['who'])}: {facts_words(data['facts'])}",
    Kind.PASS_BEGUN: lambda data: f"pass {data['pass']}, {data['kind']}",
    Kind.CHUNK_SEALED: _chunk,
    Kind.SEGMENT_SEALED: _sealed,
    Kind.PASS_ABANDONED: lambda data: units.shown(data["reason"]),
    Kind.SOURCE_CLOSED: lambda data: (
        f"{'proven' if data['proven'] else 'unproven'}: {units.shown(data['proof'])}"
    ),
    Kind.SOURCE_REOPENED: lambda data: units.shown(f"by {data['who']}: {data['reason']}"),
    Kind.KEYS_CLAIMED: lambda data: f"ordinals {data['lo']} to {data['hi']}",
    Kind.KEYS_RECLAIMED: lambda data: ordinals(data["ordinals"]),
    Kind.OUTCOMES_RECORDED: _outcomes,
    Kind.ATTEMPT_FAILED: lambda data: f"key {data['ordinal']}, {attempt_words(data)}",
    Kind.KEY_PARKED: lambda data: units.shown(f"key {data['ordinal']}, {data['failure']}: {data['message']}"),
    Kind.KEYS_RECOVERED: lambda data: (
        f"{ordinals(data['ordinals'])}, in flight when {units.shown(who_died(data))} died"
    ),
    Kind.KEYS_RELEASED: lambda data: f"{ordinals(data['ordinals'])} given back undone",
    Kind.KEYS_REQUEUED: lambda data: f"{ordinals(data['ordinals'])} by {units.shown(data['who'])}",
    Kind.OUTCOMES_REVOKED: lambda data: units.shown(
        f"{ordinals(data['ordinals'])} for a {data['cause']} by {data['who']}: {data['message']}"
    ),
    Kind.MIGRATION_COMPLETED: _completed,
    Kind.PAUSED: lambda data: f"by {units.shown(data['who'])}",
    Kind.RESUMED: lambda data: f"by {units.shown(data['who'])}",
    Kind.TUNABLES_SET: lambda data: f"by {units.shown(data['who'])}: {facts_words(data['changes'])}",
    Kind.THROTTLE_BEGAN: lambda data: units.shown(f"{data['cause']}: {data['detail']}"),
    Kind.THROTTLE_ENDED: lambda data: units.shown(
        f"{data['cause']} after {units.duration(data['ms'] / 1000)}: {data['detail']}"
    ),
    Kind.PROGRESS_SAMPLED: lambda data: ", ".join(
        f"{units.shown(cause)} {ms / 1000:g} s" for cause, ms in data["spent_ms"].items()
    ),
    Kind.CONCURRENCY_CHANGED: _concurrency_changed,
    Kind.HOOK_RAN: facts_words,
    Kind.SETTINGS_CHANGED: facts_words,
    Kind.SERVER_RECORDED: facts_words,
    Kind.PROBE_RECORDED: _probed,
    Kind.DRAIN_REQUESTED: facts_words,
    Kind.CANCELLED: facts_words,
    Kind.HALTED: facts_words,
    Kind.ENDPOINT_PROBED: _surveyed,
    Kind.VERIFICATION_STARTED: _verification_started,
    Kind.VERIFICATION_PROGRESSED: _verification_progressed,
    Kind.VERIFICATION_FINISHED: _verified,
    Kind.FINDING_RECORDED: _findings,
    Kind.UNDO_STARTED: _undo_started,
    Kind.OBJECTS_DELETED: _deleted,
    Kind.UNDO_FINISHED: _undo_finished,
    Kind.ROWS_RESTORED: _restored,
    Kind.ATTESTED: _attested,
}
