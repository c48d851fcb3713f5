"""One condition of a verdict, and those that verifications have to meet; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.comparing import TierName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from journal.attestation import CountedSource
    from journal.verification_runs import VerificationRun

_LISTING = (TierName.LIST, TierName.SOURCE)
"""Tiers that look at the whole bucket."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must hold.

    Attributes:
        subject: what it is about, in a word or two.
        met: whether it holds.
        text: what was found, one line.
        hint: what to type where it does not hold.
    """

    subject: str
    met: bool
    text: str
    hint: str = ""


def verified_conditions(
    runs: Sequence[VerificationRun], sources: Sequence[CountedSource], required: TierName | None
) -> list[Condition]:
    """Return what verifications have to have shown, and each mismatch that stands.

    Args:
        runs: finished ones, the newest first.
        sources: all that were planned.
        required: a tier that must have looked at every key; None: the listing, and a sample by content.
    """
    if not sources:
        return []
    covering = [run for run in runs if _covers(run, sources)]
    whole = [run for run in covering if run.sample is None]
    if required is not None:
        wanted = {f"verified by {required}": next((run for run in whole if run.tier == required), None)}
        hint = f"`backfillctl verify --tier {required}`"
    else:
        wanted = {
            "verified by list": next((run for run in whole if run.tier in _LISTING), None),
            "verified by content": next((run for run in covering if run.tier == TierName.CONTENT), None),
        }
        hint = "`backfillctl verify`"
    found = [_reached(subject, run, hint) for subject, run in wanted.items()]
    told = [id(run) for run in wanted.values()]
    return found + [_refuting(run) for run in _standing(runs, sources) if id(run) not in told]


def _covers(run: VerificationRun, sources: Sequence[CountedSource]) -> bool:
    """Say whether the run looked at (or could have drawn) every key that has an outcome now."""
    return all(
        source.outcome_seq <= run.until_seq and (run.sources is None or source.id in run.sources)
        for source in sources
    )


def _standing(runs: Sequence[VerificationRun], sources: Sequence[CountedSource]) -> list[VerificationRun]:
    """Return the runs of which a mismatch stands: nothing was copied since, and nobody looked at every key again.

    A sample without a mismatch takes nothing back: it may have drawn others.
    """
    found = []
    for number, run in enumerate(runs):
        seen = {each.id for each in sources if run.sources is None or each.id in run.sources}
        current = all(each.outcome_seq <= run.until_seq for each in sources if each.id in seen)
        again = any(
            newer.tier == run.tier
            and newer.sample is None
            and (newer.sources is None or seen <= set(newer.sources))
            for newer in runs[:number]
        )
        if run.exit_code and seen and current and not again:
            found.append(run)
    return found


def _refuting(run: VerificationRun) -> Condition:
    mend = "mend what its findings name (`verify --repair`, or `plan --reconcile`; then `run`), then"
    hint = f"{mend} `backfillctl verify --tier {run.tier}` looks at every key again"
    return _reached(f"mismatch by {run.tier}", run, hint)


def _reached(subject: str, run: VerificationRun | None, hint: str) -> Condition:
    if run is None:
        return Condition(subject, met=False, text="not since the last key was copied", hint=hint)
    when = units.moment_seconds(run.finished_us)
    checked = units.plural(int(run.data.get("checked", 0)), "key")
    if run.exit_code:
        found = ", ".join(
            f"{units.count(number)} {kind.replace('_', ' ')}"
            for kind, number in run.data.get("counts", {}).items()
            if number
        )
        return Condition(
            subject, met=False, text=f"at {when}: mismatch: {found or 'see its findings'}", hint=hint
        )
    text = f"{checked} at {when}, no mismatch"
    bound = run.data.get("bound")
    if run.sample is not None and bound:
        text += (
            f"; a sample of {units.count(run.sample.of)}: mismatch rate below {100 * bound['rate']:.2g} %"
            f" at {100 * bound['confidence']:g} % confidence"
        )
    unread = run.data.get("counts", {}).get("unreadable", 0)
    if unread:
        return Condition(
            subject,
            met=False,
            text=f"{text}, but {units.count(unread)} of them could not be read",
            hint="restore what is archived, or grant s3:GetObject, and verify again; --require-tier list or head"
            " asks for no object's bytes",
        )
    return Condition(subject, met=True, text=text)
