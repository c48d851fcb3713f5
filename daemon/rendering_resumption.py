"""What `run` would do with an existing journal, and which events say so: as text and as JSON; pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from daemon import rendering_units as units
from daemon.rendering_status import checkpoint_text
from journal.events import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from journal.resuming import Evidence, Resumption, SourceResumption

SCHEMA_VERSION = 1
"""Version of `resumption_json`: fields may be added under the same one."""
WIDTH_MIN = 64
LABEL_WIDTH = 11
_CAUSES = {
    Kind.KEYS_RECOVERED.value: "taken back from dead sessions",
    Kind.KEYS_RELEASED.value: "given back by sessions that were stopped",
    Kind.KEYS_REQUEUED.value: "requeued",
    Kind.OUTCOMES_REVOKED.value: "to be repaired",
}
"""Why keys wait, by the event that put them there."""


@dataclass(frozen=True, slots=True)
class Configured:
    """What the configuration says that the journal does not.

    Attributes:
        journal: the journal's path.
        changes: settings that would take effect, as "key: before, now after".
        added: names of sources that the journal does not know.
        limits: what would end the session early, as "upload.limit 5".
    """

    journal: Path
    changes: Sequence[str] = ()
    added: Sequence[str] = ()
    limits: Sequence[str] = ()


def settings_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what differs between two settings, nested ones by their path, as "path: before, now after"."""
    found: list[str] = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += [f"{key}.{change}" for change in settings_changes(old, new)]
        elif old != new:
            found.append(f"{key}: {_value(old)}, now {_value(new)}")
    return found


def _value(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def unplanned_text(journal: Path, names: Sequence[str]) -> str:
    """Return what `run` would do where there is no journal yet."""
    sources = units.plural(len(names), "source")
    return (
        f"there is no journal at {units.shown(str(journal))}: `run` would make it, plan {sources}"
        f" ({', '.join(map(units.shown, names))}) and copy every row of the plan\n"
        "`plan --dry-run` counts rows, bytes and requests, and writes nothing"
    )


def resumption_text(found: Resumption, configured: Configured, *, width: int) -> str:
    """Return what a resume would do, in lines of at most `width` columns (WIDTH_MIN at least).

    Every number is followed by the events that prove it: `events` prints them.
    """
    width = max(WIDTH_MIN, width)
    sections = [_header(found, configured, width)]
    sections += [_source(found, source, width) for source in found.sources]
    sections.append(
        units.wrap(
            "what planning finds in PostgreSQL comes on top; that the server is the one on record, and what the"
            " bucket does, `run` looks at itself",
            width,
        )
    )
    return "\n\n".join("\n".join(section) for section in sections)


def _header(found: Resumption, configured: Configured, width: int) -> list[str]:
    status = found.status
    driven = sum(source.driven for source in found.sources)
    lines = units.wrap(
        f"{units.shown(status.name)}: `run` would drive {units.plural(driven, 'key')}, and upload none of the settled"
        " ones again",
        width,
        rest="  ",
    )
    as_of = f"event {units.count(status.head_seq)} of {units.moment_ms(status.last_event_us)}"
    facts = [
        ("as of", f"{as_of}; nothing was contacted or changed"),
        ("journal", units.shown(str(configured.journal))),
    ]
    if status.owner is not None:
        owner = units.shown(str(status.owner))
        facts.append(
            ("daemon", f"{owner} works on it now: so a resume would find it, did that die at this event")
        )
    elif status.session is None or status.session.ended_us is None:
        facts.append(("session", "the last one has no end on record: it was killed"))
    if status.pause is not None and found.paused_seq is not None:
        who = units.shown(str(status.pause.data.get("who", "")))
        since = f"event {units.count(found.paused_seq)}"
        facts.append(("paused", f"by {who} ({since}): nothing begins until `backfillctl resume`"))
    if status.tunables is not None:
        facts.append(("tuned", "what operators set stays in force: `backfillctl status` shows it"))
    facts += [("new source", f"{units.shown(name)}: planned first") for name in configured.added]
    facts += [("setting", units.shown(change)) for change in configured.changes]
    facts += [("limit", f"{units.shown(limit)}: the session ends there") for limit in configured.limits]
    if status.verifications:
        tiers = ", ".join(
            f"{units.shown(str(run.data.get('tier')))} with exit code {run.data.get('exit_code')}"
            f" at {units.moment_seconds(run.ts_us)}"
            for run in status.verifications
        )
        facts.append(("verified", f"last by {tiers}; what is driven now was not looked at by it"))
    if found.completed_seq is not None and not configured.added:
        facts.append(("complete", f"every key is settled (event {units.count(found.completed_seq)})"))
    return lines + [line for label, text in facts for line in _fact(label, text, width)]


def _source(found: Resumption, source: SourceResumption, width: int) -> list[str]:
    counts = source.status.counts
    lines = units.wrap(
        f"source {units.shown(source.status.name)}: {units.plural(source.driven, 'key')} to drive;"
        f" {units.size(source.bytes_left)} without an outcome",
        width,
        rest="  ",
    )
    facts: list[tuple[str, str]] = []
    if source.in_flight is not None:
        facts.append(
            (
                "first",
                f"{_keys(source.in_flight)} in flight, nobody knows what became of them: {_proof(source.in_flight)}",
            )
        )
    if source.dying is not None:
        facts.append(
            ("", f"{_keys(source.dying)} of them outlived too many dead sessions and would be parked")
        )
    facts += [
        ("first", f"{_keys(group)} {_CAUSES.get(cause, cause.replace('_', ' '))}: {_proof(group)}")
        for cause, group in source.waiting.items()
    ]
    if source.alone:
        facts.append(("", f"{units.plural(source.alone, 'key')} of them one at a time"))
    if source.unclaimed is not None:
        frontier = (
            "none was claimed yet"
            if source.claimed_seq is None
            else f"claimed so far up to event {units.count(source.claimed_seq)}"
        )
        facts.append(
            (
                "then",
                f"{_keys(source.unclaimed)} never begun: planned by {_proof(source.unclaimed)}; {frontier}",
            )
        )
    if source.half_sealed is not None:
        facts.append(
            (
                "then",
                f"{_keys(source.half_sealed)} of a pass that is not sealed yet: {_proof(source.half_sealed)}",
            )
        )
    for failure, group in source.parked.items():
        stays = units.plural(group.keys, "key stays", "keys stay")
        why = units.shown(failure.replace("_", " "))
        facts.append(("parked", f"{stays}, {why}: {_proof(group)}; `requeue` gives another chance"))
    settled = ", ".join(
        f"{units.count(number)} {word}"
        for word, number in (
            ("stored", counts.stored + counts.recovered),
            ("present", counts.present),
            ("skipped", counts.skipped),
            ("vanished", counts.vanished),
        )
        if number
    )
    proof = f": {settled}; outcomes up to event {units.count(found.status.head_seq)}" if settled else ""
    facts.append(("settled", f"{units.plural(counts.settled, 'key')}, none of them uploaded again{proof}"))
    facts.append(("planning", _planning(source)))
    facts.append(("checkpoint", checkpoint_text(source.status.checkpoint, found.status.order)))
    return lines + [line for label, text in facts for line in _fact(label, text, width)]


def _planning(source: SourceResumption) -> str:
    if source.open_pass is not None:
        number, kind, seq = source.open_pass
        after = "; the source stays open until a closing pass" if not source.planned else ""
        return (
            f"pass {number} ({kind}) was begun (event {units.count(seq)}) and would be finished first{after}"
        )
    if not source.planned:
        return "no pass was finished: the first one would be made"
    if source.closed_seq is not None:
        return f"closed (event {units.count(source.closed_seq)}): not looked at again"
    return "not closed: once its keys are driven, a closing pass looks for rows that came late"


def _keys(evidence: Evidence) -> str:
    return units.plural(evidence.keys, "key")


def _proof(evidence: Evidence) -> str:
    if evidence.first_seq == evidence.last_seq:
        return f"event {units.count(evidence.first_seq)}"
    return (
        f"{units.plural(evidence.events, 'event')}, {units.count(evidence.first_seq)}"
        f" to {units.count(evidence.last_seq)}"
    )


def _fact(label: str, text: str, width: int) -> list[str]:
    first = units.pad(label, LABEL_WIDTH, left=False)
    return units.wrap(text, width, first=f"  {first}", rest=" " * (LABEL_WIDTH + 2))


def resumption_json(found: Resumption, configured: Configured) -> dict[str, Any]:
    """Return the same for programs.

    Keys: `schema_version`; `journal`, its path; `head_seq` and `last_event_us`, the event it is told as of;
    `state`, `owned` (a process holds the journal), `paused_seq`, `completed_seq` (events or null);
    `settings_changed`, `sources_added`, `limits` (texts); `driven`, keys in all; and `sources`: `name`, `driven`,
    `bytes_left`, `in_flight`, `dying`, `unclaimed`, `half_sealed` (null, or `keys`, `events`, `first_seq`, `last_seq`: how many
    events prove it, and the oldest and newest of them), `waiting` and `parked` (the same by cause and failure),
    `alone`, `claimed_seq`, `settled`, `settled_until_seq`, `open_pass` (null, or `number`, `kind`,
    `seq`), `planned`, `closed_seq`.
    """
    status = found.status
    return {
        "schema_version": SCHEMA_VERSION,
        "journal": str(configured.journal),
        "head_seq": status.head_seq,
        "last_event_us": status.last_event_us,
        "state": status.state.value,
        "owned": status.owner is not None,
        "paused_seq": found.paused_seq,
        "completed_seq": found.completed_seq,
        "settings_changed": list(configured.changes),
        "sources_added": list(configured.added),
        "limits": list(configured.limits),
        "driven": sum(source.driven for source in found.sources),
        "sources": [_source_json(source, status.head_seq) for source in found.sources],
    }


def _source_json(source: SourceResumption, head_seq: int) -> dict[str, Any]:
    def evidence(group: Evidence | None) -> dict[str, int] | None:
        return None if group is None else asdict(group)

    return {
        "name": source.status.name,
        "driven": source.driven,
        "bytes_left": source.bytes_left,
        "in_flight": evidence(source.in_flight),
        "dying": evidence(source.dying),
        "waiting": {cause: asdict(group) for cause, group in source.waiting.items()},
        "alone": source.alone,
        "parked": {failure: asdict(group) for failure, group in source.parked.items()},
        "unclaimed": evidence(source.unclaimed),
        "claimed_seq": source.claimed_seq,
        "half_sealed": evidence(source.half_sealed),
        "settled": source.status.counts.settled,
        "settled_until_seq": head_seq,
        "open_pass": None
        if source.open_pass is None
        else dict(zip(("number", "kind", "seq"), source.open_pass, strict=True)),
        "planned": source.planned,
        "closed_seq": source.closed_seq,
    }
