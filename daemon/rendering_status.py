"""`status` for the eye: where a migration stands, and why it is not further; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.rendering_advice import next_steps, reason
from daemon.rendering_course import force_facts, rates_table, slow_downs, standing_note, where_time_went
from daemon.rendering_endpoint import endpoint_line
from daemon.rendering_events import reasons
from daemon.rendering_tables import counts_table
from daemon.rendering_verified import checked_words, found_words
from daemon.rendering_view import view
from journal.checkpoint import Order
from journal.status import MigrationState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.rendering_view import View
    from journal.checkpoint import Checkpoint
    from journal.status import MigrationStatus, SourceStatus

WIDTH_MIN = 64
"""What a checkpoint's flag takes, unbroken, behind a name; a narrower terminal wraps lines by itself."""
LABEL_WIDTH = 12
FLAG_WIDTH = 51
"""What a checkpoint's flag takes with its margins: the rest of a line is left for the source's name."""


def status_text(status: MigrationStatus, *, now_us: int, width: int, past: bool = False) -> str:
    """Return the state of a migration in lines of at most `width` columns (WIDTH_MIN at least).

    In order: who works on it or how it ended, and what slows it down; counts of each source; rates and ETA;
    where the time went; the safe checkpoint, ready to paste; planning and closing; what is excluded; keys that
    can't be objects; what is parked, what failed; the newest verification of each tier; the next step.
    A section without anything to tell is left out, but for the checkpoint and the exclusions, of which it is
    told that there is none.

    Args:
        status: from the journal.
        now_us: microseconds since 1970-01-01 UTC; ages are counted from it.
        width: columns.
        past: `now_us` is an earlier moment, and the status is of then: it says so, and gives no advice.
    """
    width = max(WIDTH_MIN, width)
    seen = view(status, now_us=now_us)
    sections = [
        _moment(status, now_us, width) if past else [],
        _header(status, seen, width),
        counts_table([(source.name, source.counts) for source in status.sources], width=width)
        if status.sources
        else [],
        _rates(seen, width),
        _time(seen, width),
        _checkpoints(status, width),
        _planning(status, width),
        _excluded(status, width),
        _unusable(status, width),
        _probes(status, width),
        _parked(status, width),
        _failures(status, now_us, width),
        _verified(seen, width),
        [] if past else _advice(status, width),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)


def _moment(status: MigrationStatus, now_us: int, width: int) -> list[str]:
    ends = f"event {units.count(status.head_seq)} of {units.moment_ms(status.last_event_us)}"
    return units.wrap(f"as of {units.moment_ms(now_us)}, up to {ends}", width, rest="  ")


def _header(status: MigrationStatus, seen: View, width: int) -> list[str]:
    now_us = seen.now_us
    state = status.state.value.replace("_", " ")
    why = reason(status, now_us)
    lines = units.wrap(f"{units.shown(status.name)}: {state}{f': {why}' if why else ''}", width, rest="  ")
    facts: list[tuple[str, str]] = []
    session = status.session
    if session is not None:
        began = f"{session.number}, begun {units.moment_seconds(session.started_us)}"
        if session.ended_us is None:
            began += f" ({units.ago(session.started_us, now_us)})"
        else:
            lasted = units.duration((session.ended_us - session.started_us) / 1e6)
            began += f", ended after {lasted}, exit code {session.exit_code}"
        facts.append(("session", began))
    facts += [
        ("daemon", units.shown(str(status.owner) if status.owner is not None else _nobody(status))),
        ("last event", f"{units.ago(status.last_event_us, now_us)} (event {units.count(status.head_seq)})"),
        ("cutoff", "fixed at first planning" if status.cutoff_us is None else units.moment(status.cutoff_us)),
        ("order", status.order.value),
        *force_facts(seen),
    ]
    for label, text in facts:
        first = units.pad(label, LABEL_WIDTH, left=False)
        lines += units.wrap(text, width, first=f"  {first}", rest=" " * (LABEL_WIDTH + 2))
    return lines


def _nobody(status: MigrationStatus) -> str:
    facts = status.session.facts if status.session is not None else {}
    if status.state is MigrationState.KILLED and "pid" in facts:
        return f"no daemon (the last was pid {facts['pid']} on {facts.get('host', 'an unknown host')})"
    return "no daemon"


def _rates(seen: View, width: int) -> list[str]:
    table = rates_table(seen, width)
    note = standing_note(seen)
    return [*table, *units.wrap(note, width, first="  note: ", rest="        ")] if table and note else table


def _time(seen: View, width: int) -> list[str]:
    """Return where all sessions' time went, and the newest slow-down of each cause."""
    went = where_time_went(seen)
    lines = units.wrap(went, width, first="time: ", rest="      ") if went else []
    for text in slow_downs(seen):
        lines += units.wrap(text, width, first="  ", rest="    ")
    return lines


def _checkpoints(status: MigrationStatus, width: int) -> list[str]:
    if not status.sources:
        return []
    lines = ["safe checkpoint: every key planned up to there is settled"]
    uncovered: dict[str, list[str]] = {}
    for name, source in _aligned(status.sources, width):
        checkpoint = source.checkpoint
        text = checkpoint_text(checkpoint, status.order)
        if checkpoint.held_by_parked:
            text += f" (held by {units.plural(checkpoint.held_by_parked, 'parked key')})"
        lines += _entry(name, text, width)
        if checkpoint.cutoff_us is not None or checkpoint.floor_us is not None:
            for note in checkpoint.notes:
                uncovered.setdefault(note, []).append(units.shown(source.name))
    for note, names in uncovered.items():
        whose = "" if len(names) == len(status.sources) else f" ({', '.join(names)})"
        lines += units.wrap(f"{note}{whose}", width, first="  note: ", rest="        ")
    return lines


def checkpoint_text(checkpoint: Checkpoint, order: Order) -> str:
    """Return the flag to paste where rows before it are all that is left, or why there is none."""
    if checkpoint.cutoff_us is not None:
        return f"--cutoff-timestamp {units.moment(checkpoint.cutoff_us)}"
    if checkpoint.floor_us is not None:
        return (
            f"all that is left was created after {units.moment(checkpoint.floor_us)};"
            f" {order.value}: no --cutoff-timestamp can say that"
        )
    return f"none: {'; '.join(checkpoint.notes)}" if checkpoint.notes else "none"


def _planning(status: MigrationStatus, width: int) -> list[str]:
    """Return how far planning is; sources of which the same is true share a line."""
    sharing: dict[str, list[str]] = {}
    for source in status.sources:
        sharing.setdefault(planning_text(source), []).append(units.shown(source.name))
    lines = ["planning"] if sharing else []
    for text, names in sharing.items():
        lines += units.wrap(f"{', '.join(names)}: {text}", width, first="  ", rest="    ")
    return lines


def planning_text(source: SourceStatus) -> str:
    """Return how far a source's planning is: closed and by what proof, or what is still to come."""
    if source.closed:
        proof = units.shown(source.closing_proof or "no proof on record")
        return f"closed, {'proven' if source.proven else 'unproven'}: {proof}"
    if not source.passes:
        return "not planned yet"
    last = source.passes[-1]
    rows = units.plural(last.rows, "row")
    if last.state == "open":
        return f"pass {last.number} ({last.kind}) under way, {rows} sealed so far"
    if last.state == "abandoned":
        return f"pass {last.number} ({last.kind}) was abandoned after {rows}; the next one looks again"
    return f"pass {last.number} ({last.kind}) sealed with {rows}; not closed: rows may still be found"


def _excluded(status: MigrationStatus, width: int) -> list[str]:
    if not any(source.passes for source in status.sources):
        return []
    entries: list[str] = []
    for name, source in _aligned(status.sources, width):
        if any(source.counts.excluded.values()):
            entries += _entry(name, reasons(source.counts.excluded), width)
    return ["excluded rows (last finished pass)", *entries] if entries else ["excluded rows: none"]


def _unusable(status: MigrationStatus, width: int) -> list[str]:
    """Return how many keys no object can have: they are planned, unlike what is excluded."""
    entries: list[str] = []
    for name, source in _aligned(status.sources, width):
        if source.counts.unusable:
            example = (
                f", for example {units.shown(source.unusable_example)}" if source.unusable_example else ""
            )
            entries += _entry(name, f"{units.plural(source.counts.unusable, 'row')}{example}", width)
    return ["keys that can't be objects, parked when driven", *entries] if entries else []


def _probes(status: MigrationStatus, width: int) -> list[str]:
    """Return what is known of conditional PUTs, where they are not atomic, and what else is unusual there."""
    probes = [
        probe
        for probe in [status.probe.data if status.probe else None, *(s.probe for s in status.sources)]
        if probe
    ]
    found = {
        str(probe.get("bucket", "")): str(probe["conditional"])
        for probe in probes
        if probe.get("conditional") not in {"atomic", None}
    }
    lines: list[str] = []
    for bucket, conditional in found.items():
        verb = "ignores" if conditional == "ignored" else "refuses"
        text = f"not atomic here: bucket {units.shown(bucket)} {verb} If-None-Match, so that an object which"
        lines += units.wrap(
            f"{text} somebody else writes at the same moment can be overwritten", width, rest="  "
        )
    for source in status.sources:
        if source.endpoint is not None and (line := endpoint_line(source.endpoint)):
            lines += units.wrap(line, width, rest="  ")
    return lines


def _parked(status: MigrationStatus, width: int) -> list[str]:
    lines: list[str] = []
    for source in status.sources:
        for entry in source.parked:
            what = f"{units.shown(source.name)}: {units.plural(entry.count, 'key')}, {units.shown(entry.failure)}"
            lines += _example(what, entry.example_key, entry.message, width)
    return ["parked (newest example of each)", *lines] if lines else []


def _failures(status: MigrationStatus, now_us: int, width: int) -> list[str]:
    lines: list[str] = []
    for source in status.sources:
        for entry in source.failures:
            what = (
                f"{units.shown(source.name)}: {units.count(entry.count)} x {units.shown(entry.operation)}"
                f" {units.shown(entry.failure)}, last {units.ago(entry.last_us, now_us)}"
            )
            lines += _example(what, entry.example_key, entry.message, width)
    return ["failed attempts (newest example of each)", *lines] if lines else []


def _verified(seen: View, width: int) -> list[str]:
    lines: list[str] = []
    for one in seen.verified:
        text = (
            f"verified by {units.shown(one.tier)} {units.ago(one.finished_us, seen.now_us)}:"
            f" {'mismatch' if one.failed else 'no mismatch'} in {checked_words(one)}"
        )
        found = found_words(one)
        lines += units.wrap(f"{text}; {found}" if found else text, width, rest="  ")
    return lines


def _advice(status: MigrationStatus, width: int) -> list[str]:
    lines: list[str] = []
    for step in next_steps(status):
        word = "then" if lines else "next"
        lines += units.wrap(step, width, first=f"{word}: ", rest="      ")
    return lines


def _aligned(sources: Sequence[SourceStatus], width: int) -> list[tuple[str, SourceStatus]]:
    """Return each source behind its name, all names equally wide."""
    longest = max((units.cells(units.shown(source.name)) for source in sources), default=0)
    column = min(longest, width - FLAG_WIDTH)
    return [
        (units.pad(units.clip(units.shown(source.name), column), column, left=False), source)
        for source in sources
    ]


def _entry(name: str, text: str, width: int) -> list[str]:
    return units.wrap(text, width, first=f"  {name}  ", rest=" " * (units.cells(name) + 4))


def _example(what: str, key: str, message: str, width: int) -> list[str]:
    """Return a finding with its example: the key whole, because `explain` takes it."""
    lines = units.wrap(what, width, first="  ", rest="    ")
    lines += units.fold(f"key {units.shown(key)}", width, first="    ", rest="      ")
    if message:
        lines += units.wrap(units.shown(message), width, first="    ", rest="      ")
    return lines
