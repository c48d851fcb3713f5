"""Decide whether the source may be dropped, from what was found; pure. Every condition is looked at, none ends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.comparing import TierName
from daemon.verified_conditions import Condition, verified_conditions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from journal.attestation import CountedSource, JournalFacts
    from journal.verification_runs import VerificationRun


@dataclass(frozen=True, slots=True)
class ScannedSource:
    """What one snapshot of a source's table showed.

    Attributes:
        seen: rows of the table.
        excluded: rows out of scope, by reason.
        new, reappeared, changed: rows in scope whose present bytes have no copy.
        examples: row keys of some of them.
    """

    seen: int
    excluded: Mapping[str, int]
    new: int
    reappeared: int
    changed: int
    examples: tuple[str, ...] = ()

    @property
    def uncopied(self) -> int:
        """Rows in scope without a copy."""
        return self.new + self.reappeared + self.changed

    @property
    def left_out(self) -> int:
        """Rows out of scope."""
        return sum(self.excluded.values())


@dataclass(frozen=True, slots=True)
class Standby:
    """A server that only replays another's log.

    Attributes:
        replayed: pg_last_wal_replay_lsn() before the first snapshot; None where nothing was replayed.
        required: the primary's position after its last write, as the operator gave it; None: not given.
    """

    replayed: str | None
    required: str | None


@dataclass(frozen=True, slots=True)
class Demands:
    """What the operator asks of a GO beyond the rule, or excuses.

    Attributes:
        excused: parked row keys, by source.
        accept_unproven: a closing without a proof is enough.
        tier: a tier that must have looked at every key; None: the listing, and a sample by content.
    """

    excused: Mapping[str, frozenset[str]] = field(default_factory=dict)
    accept_unproven: bool = False
    tier: TierName | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that was looked at.

    Attributes:
        problems: what is wrong with the journal, as `journal check` says.
        anchor_problem: how it contradicts an earlier report; None if it does not; "" if none was named.
        server_change: how the server differs from the one on record; empty if it does not.
        scanned: by source name; a source that is not configured is absent.
        unplanned: names of configured sources that the journal does not know.
    """

    journal: JournalFacts
    problems: Sequence[str]
    anchor_problem: str | None
    server_change: str
    standby: Standby | None
    scanned: Mapping[str, ScannedSource]
    demands: Demands
    unplanned: Sequence[str] = ()


def conditions(facts: Facts, show: Callable[[str], str] = str) -> list[Condition]:
    """Return every condition of a GO, the journal's first; row keys as `show` shows them."""
    found = [_journal(facts)]
    if facts.anchor_problem != "":
        found.append(_anchor(facts.anchor_problem))
    if facts.server_change:
        found.append(
            Condition(
                "server",
                met=False,
                text=facts.server_change,
                hint="name the server in postgres.dsn that was copied",
            )
        )
    if facts.standby is not None:
        found.append(_standby(facts.standby))
    if not facts.journal.sources:
        found.append(
            Condition(
                "sources",
                met=False,
                text="nothing was ever planned",
                hint="`backfillctl run` copies the rows",
            )
        )
    found += [
        Condition(
            f"{name}: planned",
            met=False,
            text="configured, and none of its rows was ever planned",
            hint="`backfillctl run` copies them; or take the source out of the configuration",
        )
        for name in facts.unplanned
    ]
    for source in facts.journal.sources:
        excused = facts.demands.excused.get(source.name, frozenset())
        found += [
            _settled(source),
            _skipped(source),
            _parked(source, excused, show),
            _closed(source, accept_unproven=facts.demands.accept_unproven),
            _rows(source, facts.scanned.get(source.name), digested=_digested(facts.journal.runs, source)),
        ]
    return found + verified_conditions(facts.journal, facts.demands.tier, show)


def _journal(facts: Facts) -> Condition:
    head = facts.journal.anchor.head_seq
    if not facts.problems:
        text = f"chain, plan, counters and {units.plural(head, 'event')} hold together"
        return Condition("journal", met=True, text=text)
    more = f", and {len(facts.problems) - 1} more" if len(facts.problems) > 1 else ""
    return Condition(
        "journal",
        met=False,
        text=f"{units.shown(facts.problems[0])}{more}",
        hint="`backfillctl journal check` names everything that is wrong",
    )


def _anchor(problem: str | None) -> Condition:
    if problem is None:
        return Condition("manifest", met=True, text="the journal goes on from the earlier report")
    return Condition(
        "manifest",
        met=False,
        text=units.shown(problem),
        hint="look into who changed the journal, or put the right one back",
    )


def _standby(standby: Standby) -> Condition:
    if standby.required is None:
        return Condition(
            "standby",
            met=False,
            text="the rows were read on a standby, which can't tell what its primary wrote last",
            hint="attest on the primary; or stop all writers, ask the primary for pg_current_wal_lsn(), and give"
            " --primary-lsn with its answer",
        )
    replayed = 0 if standby.replayed is None else lsn(standby.replayed)
    if replayed < lsn(standby.required):
        return Condition(
            "standby",
            met=False,
            text=f"replayed up to {standby.replayed or 'nowhere'}, the primary had written up to {standby.required}",
            hint="wait until it has caught up, then attest again",
        )
    return Condition(
        "standby",
        met=True,
        text=f"replayed past {standby.required}, the primary's last write by --primary-lsn",
    )


def lsn(text: str) -> int:
    """Return a position in PostgreSQL's log as a number of bytes.

    Raises:
        ValueError: it is not written as X/Y, two hexadecimal numbers of 32 bits (PostgreSQL manual, pg_lsn).
    """
    high, slash, low = text.partition("/")
    if not slash or not 1 <= len(high) <= 8 or not 1 <= len(low) <= 8:
        raise ValueError(f'found "{text}"; expected a position such as 16/B374D848')
    return (int(high, 16) << 32) + int(low, 16)


def _settled(source: CountedSource) -> Condition:
    subject = f"{source.name}: settled"
    settled = source.stored + source.present + source.skipped + source.vanished
    if source.unsettled:
        return Condition(
            subject,
            met=False,
            text=f"{units.plural(source.unsettled, 'key')} of {units.count(source.planned)} not settled",
            hint="`backfillctl run` goes on",
        )
    vanished = (
        f", {units.count(source.vanished)} of them gone when they were to be copied"
        if source.vanished
        else ""
    )
    return Condition(
        subject,
        met=True,
        text=f"{units.count(settled)} of {units.plural(source.planned, 'key')}, counted one by one{vanished}",
    )


def _skipped(source: CountedSource) -> Condition:
    subject = f"{source.name}: skipped"
    if not source.skipped:
        return Condition(subject, met=True, text="none")
    return Condition(
        subject,
        met=False,
        text=f"{units.plural(source.skipped, 'key')} had an object that nobody compared",
        hint='s3.existing = "compare" in a new migration looks at them',
    )


def _parked(source: CountedSource, excused: frozenset[str], show: Callable[[str], str]) -> Condition:
    subject = f"{source.name}: parked"
    if not source.parked:
        return Condition(subject, met=True, text="none")
    left = source.parked - sum(key.row_key in excused for key in source.parked_keys)
    if not left:
        return Condition(subject, met=True, text=f"{units.plural(source.parked, 'key')}, all excused by name")
    named = [key for key in source.parked_keys if key.row_key not in excused][:1]
    such = "".join(f", such as {units.shown(show(key.row_key))} ({key.failure})" for key in named)
    return Condition(
        subject,
        met=False,
        text=f"{units.plural(left, 'key')} without a copy{such or ', too many to be excused'}",
        hint="mend what `status` names, `requeue`, `run`; or excuse each by --excuse KEY",
    )


def _closed(source: CountedSource, *, accept_unproven: bool) -> Condition:
    subject = f"{source.name}: closed"
    if not source.closed:
        return Condition(
            subject,
            met=False,
            text="planning is not known to be complete",
            hint="`backfillctl run` closes it",
        )
    proof = units.shown(source.closing_proof or "")
    if source.proven or accept_unproven:
        accepted = "" if source.proven else "unproven, accepted: "
        return Condition(subject, met=True, text=f"{accepted}{proof}")
    return Condition(
        subject,
        met=False,
        text=f"unproven: {proof}",
        hint="grant pg_read_all_stats and `plan --reconcile`; or take it as it is by --accept-unproven",
    )


def _digested(runs: Sequence[VerificationRun], source: CountedSource) -> bool:
    """Say whether every row was compared with its copy since the last one was copied."""
    return any(
        run.tier in {TierName.SOURCE, TierName.CONTENT}
        and not run.exit_code
        and not run.data.get("counts", {}).get("unreadable", 0)
        and run.covers(source.id, source.outcome_seq)
        for run in runs
    )


def _rows(source: CountedSource, scanned: ScannedSource | None, *, digested: bool) -> Condition:
    subject = f"{source.name}: rows"
    if scanned is None:
        return Condition(
            subject,
            met=False,
            text="its table was not looked at",
            hint="name the source in the configuration",
        )
    if scanned.uncopied:
        kinds = (
            ("unknown to the journal", scanned.new),
            ("gone when they were to be copied and back again", scanned.reappeared),
            ("of another length than copied", scanned.changed),
        )
        found = ", ".join(f"{units.count(number)} {word}" for word, number in kinds if number)
        return Condition(
            subject,
            met=False,
            text=f"rows without a copy: {found}, such as {units.shown(scanned.examples[0])}",
            hint="`backfillctl plan --reconcile`, `run`, `verify`",
        )
    outside = ", ".join(
        f"{units.count(number)} {reason.replace('_', ' ')}"
        for reason, number in scanned.excluded.items()
        if number
    )
    text = f"{units.plural(scanned.seen, 'row')} in one snapshot, none in scope without a copy"
    if outside:
        text += f"; out of scope: {outside}"
    if not digested:
        text += "; a change of equal length shows by `verify --tier source` only"
    return Condition(subject, met=True, text=text)
