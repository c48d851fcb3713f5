"""One condition of a verdict, and those that verifications have to meet; pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.comparing import FAILING, FindingKind, TierName

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from journal.attestation import CountedSource, JournalFacts
    from journal.standing_findings import StandingFinding
    from journal.verification_runs import VerificationRun

_LISTING = (TierName.LIST, TierName.SOURCE)
"""Tiers that look at the whole bucket."""
_READ_AGAIN = (
    "restore what is archived, or grant s3:GetObject, and verify all keys again; --require-tier list or head asks for"
    " no object's bytes"
)


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
    journal: JournalFacts, required: TierName | None, show: Callable[[str], str] = str
) -> list[Condition]:
    """Return what verifications have to have shown, and what stands of that which they found.

    Args:
        journal: its sources, its finished runs (the newest first) and the findings that stand.
        required: a tier that must have looked at every key; None: the listing, and a sample by content.
        show: shows a row key.
    """
    if not journal.sources:
        return []
    whole = [run for run in journal.runs if run.sample is None]
    if required is not None:
        hint = f"`backfillctl verify --tier {required}`"
        wanted = {f"verified by {required}": [run for run in whole if run.tier == required]}
    else:
        hint = "`backfillctl verify`"
        wanted = {
            "verified by list": [run for run in whole if run.tier in _LISTING],
            "verified by content": [run for run in journal.runs if run.tier == TierName.CONTENT],
        }
    found = []
    told = set()
    for subject, runs in wanted.items():
        for name, run in _newest(runs, journal.sources).items():
            found.append(_reached(f"{name}{subject}", run, hint))
            if run is not None and not found[-1].met:
                told.add(run.seq)
    standing = [each for each in journal.findings if each.run not in told]
    for tier in TierName:
        of_tier = [each for each in standing if each.tier == tier]
        found += _refuting(tier, of_tier, journal.sources, show)
        unread = [each for each in of_tier if each.kind == FindingKind.UNREADABLE]
        # Who may not have an object's headers may not have its bytes.
        if unread and (required or TierName.CONTENT) in {tier, TierName.CONTENT}:
            text = _named(unread, journal.sources, show)
            found.append(Condition(f"unreadable by {tier}", met=False, text=text, hint=_READ_AGAIN))
    return found


def _newest(
    runs: Sequence[VerificationRun], sources: Sequence[CountedSource]
) -> dict[str, VerificationRun | None]:
    """Return the newest run that looked at (or could have drawn) every key of a source that has an outcome now.

    By what names the source in a condition's subject: one without a name where the run is the same for all.
    """
    found = {
        f"{source.name}: ": next(
            (
                run
                for run in runs
                if source.outcome_seq <= run.until_seq and (run.sources is None or source.id in run.sources)
            ),
            None,
        )
        for source in sources
    }
    first = next(iter(found.values()))
    return {"": first} if all(run is first for run in found.values()) else found


def _refuting(
    tier: TierName,
    findings: Sequence[StandingFinding],
    sources: Sequence[CountedSource],
    show: Callable[[str], str],
) -> list[Condition]:
    failing = [each for each in findings if each.kind in FAILING]
    if not failing:
        return []
    return [
        Condition(
            f"mismatch by {tier}",
            met=False,
            text=_named(failing, sources, show),
            hint=f"`backfillctl verify --tier {tier}` looks at every key again; with --repair it lets `run` copy"
            " anew what is still wrong",
        )
    ]


def _named(
    findings: Sequence[StandingFinding], sources: Sequence[CountedSource], show: Callable[[str], str]
) -> str:
    """Return how many keys of which kind, and one of them by name."""
    keys: Counter[str] = Counter()
    for each in findings:
        keys[each.kind] += each.keys
    found = ", ".join(f"{units.count(number)} {kind.replace('_', ' ')}" for kind, number in keys.items())
    of = {source.id: source.name for source in sources}.get(findings[0].source, "")
    return f"{found}, such as {units.shown(show(findings[0].row_key))} of {of}; not found right since, nor copied anew"


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
            hint=_READ_AGAIN,
        )
    return Condition(subject, met=True, text=text)
