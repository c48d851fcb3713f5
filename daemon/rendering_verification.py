"""What a verification found, for the screen and for programs; pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from daemon import rendering_units as units
from daemon.comparing import FindingKind, Means, TierName, VerificationResult, exit_code_of
from daemon.sampling import CONFIDENCE, mismatch_bound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.comparing import Finding

SCHEMA_VERSION = 1
"""Version of `verification_json`: fields may be added under the same one."""

_AGAINST = {
    TierName.RECEIPTS: "in the journal",
    TierName.LIST: "against the listing",
    TierName.HEAD: "by their objects' headers",
    TierName.SOURCE: "against their rows and the listing",
    TierName.CONTENT: "against their objects' bytes and their rows",
}
_RIGHT = {
    Means.MD5: "right by size and MD5",
    Means.SHA256: "right by size, MD5 and SHA-256",
    Means.SIZE: "by size only (no MD5 to compare)",
    Means.RECEIPT: "with a receipt",
}
_WORDS = {
    FindingKind.MISSING: "missing",
    FindingKind.DIFFERING: "differing",
    FindingKind.FOREIGN: "foreign (not written by this migration)",
    FindingKind.UNREADABLE: "not readable",
    FindingKind.ROW_CHANGED: "row changed since it was copied (`verify --repair`, `run`)",
    FindingKind.ROW_DELETED: "row deleted since it was copied (no mismatch)",
    FindingKind.UNPLANNED: "rows that the journal does not know (`plan --reconcile`, `run`)",
    FindingKind.RECEIPT: "the journal contradicts itself",
}
_ALWAYS_TOLD = {
    TierName.RECEIPTS: (FindingKind.RECEIPT,),
    TierName.LIST: (FindingKind.MISSING, FindingKind.DIFFERING, FindingKind.EXTRA),
    TierName.HEAD: (FindingKind.MISSING, FindingKind.DIFFERING, FindingKind.FOREIGN),
    TierName.SOURCE: (
        FindingKind.MISSING,
        FindingKind.DIFFERING,
        FindingKind.ROW_CHANGED,
        FindingKind.ROW_DELETED,
        FindingKind.UNPLANNED,
    ),
    TierName.CONTENT: (FindingKind.MISSING, FindingKind.DIFFERING, FindingKind.ROW_CHANGED),
}


def verification_text(result: VerificationResult, *, width: int) -> str:
    """Return the result in lines of at most `width` columns: how much, by what means, and every kind of finding.

    Things are named up to `EXAMPLES_MAX` of a kind; a command prints the rest from the journal.
    """
    tier = TierName(result.tier)
    of = "" if result.sample is None else f" of {units.count(result.sample.of)}"
    means = ", ".join(f"{units.count(number)} {_RIGHT[means]}" for means, number in _right(result))
    lines = units.wrap(
        f"{tier}: checked {units.plural(result.checked, 'key')}{of} {_AGAINST[tier]}"
        f" in {units.duration(result.seconds)}{': ' if means else ''}{means}",
        width,
        rest="  ",
    )
    for kind in FindingKind:
        looked_for = kind in _ALWAYS_TOLD[tier] and not (kind is FindingKind.UNPLANNED and of)
        if looked_for or result.number(kind):
            lines += _kind(result, kind, width)
    lines += _unchecked(result, width)
    unread = result.number(FindingKind.UNREADABLE)
    if result.sample is not None and result.bound is not None:
        lines += units.wrap(bound_words(result.checked, result.sample.of), width, rest="  ")
    elif result.sample is not None and unread and not result.exit_code:
        text = f"nothing is proven of the keys that were not drawn: {units.count(unread)} that were could not be read"
        lines += units.wrap(text, width, rest="  ")
    verdict = "mismatch" if result.exit_code else "no mismatch"
    if result.blind:
        verdict = "nothing could be read: grant s3:GetObject, or restore what is archived"
    lines += units.wrap(f"{verdict}; exit code {int(exit_code_of([result]))}", width, rest="  ")
    return "\n".join(lines)


def repaired_text(number: int, results: Sequence[VerificationResult], *, overwrites: bool, width: int) -> str:
    """Return what `--repair` has done, and what is left to do."""
    lines = []
    if number:
        text = f"repair: {units.plural(number, 'key')} will be driven again; `backfillctl run` copies them"
        lines += units.wrap(text, width, rest="  ")
        in_the_way = (FindingKind.DIFFERING, FindingKind.FOREIGN)
        if not overwrites and any(result.number(kind) for result in results for kind in in_the_way):
            text = (
                "an object that another program put there is not overwritten: its key will be parked, unless"
            )
            lines += units.wrap(f'{text} s3.existing = "overwrite"', width, first="  ", rest="  ")
    else:
        lines.append("repair: nothing is to be driven again")
    if any(result.number(FindingKind.UNPLANNED) for result in results):
        text = "rows added since are for `backfillctl plan --reconcile`, then `run`"
        lines += units.wrap(text, width, first="  ", rest="  ")
    return "\n".join(lines)


def bound_words(keys: int, of: int) -> str:
    """Return what a sample without a mismatch proves."""
    drawn = f"no mismatch in {units.count(keys)} of {units.plural(of, 'key')}"
    bound = mismatch_bound(keys, of)
    return f"{drawn}: {rate_words(bound)}" if bound else drawn


def rate_words(bound: float) -> str:
    """Return "the mismatch rate is below 0.69 % at 99.9 % confidence": a share above 0, rounded up to two digits."""
    digits = 1 - math.floor(math.log10(bound * 100))
    percent = math.ceil(bound * 100 * 10**digits) / 10**digits
    return f"the mismatch rate is below {percent:.{max(digits, 0)}f} % at {CONFIDENCE * 100:g} % confidence"


def verification_word(results: Sequence[VerificationResult]) -> str:
    """Return the results in one clause, as the last line of the log has it."""
    found = {kind: max((result.number(kind) for result in results), default=0) for kind in FindingKind}
    if not exit_code_of(results):
        checked = max((result.checked for result in results), default=0)
        return f"verified {units.plural(checked, 'key')}"
    told = [
        (kind, number) for kind, number in found.items() if number and kind is not FindingKind.ROW_DELETED
    ]
    return f"verification found {', '.join(f'{number} {_plain(kind)}' for kind, number in told)}"


def verification_json(results: Sequence[VerificationResult], *, repaired: int | None) -> dict[str, Any]:
    """Return the results for programs.

    Keys: `schema_version`; `exit_code`; `repaired` (keys to be driven again, null without --repair); `runs`, each
    with `run` (its id in the journal), `tier`, `sample` (null, or `keys` and `of`), `checked`, `right` by means,
    `found` by kind, `unsettled`, `skipped`, `bound` (null, or `rate` and `confidence`), `seconds`, `exit_code` and
    `examples`: `kind`, `source`, `object_key`, `ordinal`, `detail`.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "exit_code": int(exit_code_of(results)),
        "repaired": repaired,
        "runs": [
            {
                "run": result.run,
                "tier": result.tier,
                "sample": None
                if result.sample is None
                else {"keys": result.sample.keys, "of": result.sample.of},
                "checked": result.checked,
                "right": {means.value: number for means, number in result.right.items()},
                "found": {kind.value: number for kind, number in result.found.items()},
                "unsettled": result.unsettled,
                "skipped": result.skipped,
                "bound": None if result.bound is None else {"rate": result.bound, "confidence": CONFIDENCE},
                "seconds": round(result.seconds, 3),
                "exit_code": int(exit_code_of([result])),
                "examples": [
                    {
                        "kind": finding.kind.value,
                        "source": finding.source,
                        "object_key": finding.object_key,
                        "ordinal": finding.ordinal,
                        "detail": finding.detail,
                    }
                    for finding in result.examples
                ],
            }
            for result in results
        ],
    }


def _plain(kind: FindingKind) -> str:
    return kind.value.replace("_", " ")


def _right(result: VerificationResult) -> list[tuple[Means, int]]:
    return [(means, result.right[means]) for means in Means if result.right.get(means)]


def _kind(result: VerificationResult, kind: FindingKind, width: int) -> list[str]:
    number = result.number(kind)
    accepted = "" if result.extra_fails else "; they fail only with --no-extra"
    word = _WORDS.get(kind, f"extra (no row accounts for them{accepted})")
    lines = units.wrap(f"{word}: {units.count(number) if number else 'none'}", width, rest="  ")
    named = [finding for finding in result.examples if finding.kind is kind]
    for finding in named:
        lines += _finding_lines(finding, width)
    if number > len(named):
        more = f"and {units.count(number - len(named))} more"
        recorded = kind is not FindingKind.EXTRA or result.extra_fails
        lines.append(f"  {more}: `backfillctl events --kind finding_recorded`" if recorded else f"  {more}")
    return lines


def _finding_lines(finding: Finding, width: int) -> list[str]:
    key = finding.object_key or (f"row {finding.row_key}" if finding.row_key is not None else "")
    name = f"{units.shown(finding.source)}: {units.shown(key)}" if key else units.shown(finding.source)
    line = f"{name} ({units.shown(finding.detail)})" if finding.detail else name
    return units.fold(line, width, first="  ", rest="      ")


def _unchecked(result: VerificationResult, width: int) -> list[str]:
    lines: list[str] = []
    if result.unsettled:
        what = f"not checked: {units.plural(result.unsettled, 'planned key')} without a copy yet"
        lines += units.wrap(f"{what}; `backfillctl status` says why", width, rest="  ")
    if result.skipped:
        what = f"not checked: {units.plural(result.skipped, 'skipped key')}"
        lines += units.wrap(
            f"{what} (s3.existing = skip: what was there was left uncompared)", width, rest="  "
        )
    return lines
