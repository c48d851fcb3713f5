"""What verifications are on record, as `status` and the page tell it; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon import rendering_units as units
from daemon.comparing import FAILING, FindingKind
from daemon.rendering_verification import rate_words

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Verified:
    """The newest finished verification of one tier.

    Attributes:
        checked, by_size: keys that it looked at; how many of them were right by size only.
        sample_of: how many keys its sample was drawn from; None where it looked at every key.
        found: what it found, by kind; nothing where there was nothing of a kind.
        mismatches: how many of these findings are one.
        bound: below which share wrong keys lie, as a sample without a mismatch proves; None where nothing is.
        failed: it ended with a mismatch.
    """

    tier: str
    finished_us: int
    checked: int
    by_size: int
    sample_of: int | None
    found: tuple[tuple[str, int], ...]
    mismatches: int
    bound: float | None
    failed: bool


def verified(data: Mapping[str, Any], *, finished_us: int) -> Verified:
    """Return what the data of a `verification_finished` says, whichever version wrote it."""
    # Before there were other tiers than `list`, these three were all that could be found.
    counts = data.get("counts") or {word: data.get(word, 0) for word in ("missing", "differing", "extra")}
    failing = FAILING | {FindingKind.EXTRA} if data.get("extra_fails") else FAILING
    sample, bound = data.get("sample"), data.get("bound")
    return Verified(
        tier=str(data.get("tier", "")),
        finished_us=finished_us,
        checked=int(data.get("checked", 0)),
        by_size=int(data.get("by_size", 0)),
        sample_of=None if sample is None else int(sample["of"]),
        found=tuple((str(kind), int(number)) for kind, number in counts.items() if number),
        mismatches=sum(int(number) for kind, number in counts.items() if kind in failing),
        bound=None if bound is None else float(bound["rate"]),
        failed=bool(data.get("exit_code")),
    )


def checked_words(one: Verified) -> str:
    """Return "40,000 keys (10 by size only)", or "1,000 of 40,000 keys" with what that proves."""
    of = "" if one.sample_of is None else f"{units.count(one.checked)} of "
    text = of + units.plural(one.checked if one.sample_of is None else one.sample_of, "key")
    if one.by_size:
        text += f" ({units.count(one.by_size)} by size only)"
    return f"{text}: {rate_words(one.bound)}" if one.bound else text


def found_words(one: Verified) -> str:
    """Return "3 missing, 1 row changed"; empty where nothing was found."""
    return ", ".join(
        f"{units.count(number)} {units.shown(kind.replace('_', ' '))}" for kind, number in one.found
    )
