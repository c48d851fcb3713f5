"""What a verification found, for the screen; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.comparing import FindingKind, VerificationResult

if TYPE_CHECKING:
    from daemon.comparing import Finding


def verification_text(result: VerificationResult, *, width: int) -> str:
    """Return the result in lines of at most `width` columns: how much, by what means, and every kind of finding.

    Objects are named up to `EXAMPLES_MAX` of a kind; a command prints the rest from the journal.
    """
    lines = units.wrap(
        f"checked {units.plural(result.checked, 'key')} against the listing in {units.duration(result.seconds)}:"
        f" {units.count(result.by_md5)} right by size and MD5, {units.count(result.by_size)} by size only"
        " (no MD5 to compare)",
        width,
        rest="  ",
    )
    lines += _kind(result, FindingKind.MISSING, result.missing, "missing", width)
    lines += _kind(result, FindingKind.DIFFERING, result.differing, "differing", width)
    accepted = "" if result.extra_fails else "; they fail only with --no-extra"
    lines += _kind(
        result, FindingKind.EXTRA, result.extra, f"extra (no row accounts for them{accepted})", width
    )
    lines += _unchecked(result, width)
    verdict = "mismatch" if result.exit_code else "no mismatch"
    lines.append(f"{verdict}; exit code {int(result.exit_code)}")
    return "\n".join(lines)


def verification_word(result: VerificationResult) -> str:
    """Return the result in one clause, as the last line of the log has it."""
    if not result.exit_code:
        return f"verified {units.plural(result.checked, 'key')}"
    return f"verification found {result.missing} missing, {result.differing} differing, {result.extra} extra"


def _kind(result: VerificationResult, kind: FindingKind, number: int, word: str, width: int) -> list[str]:
    lines = units.wrap(f"{word}: {units.plural(number, 'object') if number else 'none'}", width, rest="  ")
    named = [finding for finding in result.examples if finding.kind is kind]
    for finding in named:
        lines += _finding_lines(finding, width)
    if number > len(named):
        more = f"and {units.count(number - len(named))} more"
        recorded = kind is not FindingKind.EXTRA or result.extra_fails
        lines.append(f"  {more}: `backfillctl events --kind finding_recorded`" if recorded else f"  {more}")
    return lines


def _finding_lines(finding: Finding, width: int) -> list[str]:
    name = f"{units.shown(finding.source)}: {units.shown(finding.object_key)}"
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
