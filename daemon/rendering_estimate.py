"""What a dry run found, for the screen; pure."""

from __future__ import annotations

from daemon import rendering_units as units
from daemon.estimating import Estimate

BAR_CELLS = 30


def estimate_text(name: str, estimate: Estimate, *, width: int) -> str:
    """Return rows, bytes, exclusions, a histogram of sizes, requests and dollars at list price."""
    lines = units.wrap(
        f"{units.shown(name)}: {units.plural(estimate.rows, 'row')} to copy, {units.size(estimate.size)}"
        f" (largest {units.size(estimate.largest)}), of {units.count(estimate.seen)} seen",
        width,
        rest="  ",
    )
    lines += [
        f"  excluded, {reason.replace('_', ' ')}: {units.count(number)}"
        for reason, number in estimate.excluded.items()
        if number
    ]
    if estimate.unusable:
        lines += units.wrap(
            f"{units.plural(estimate.unusable, 'row')} can't be an object and would be parked,"
            f" such as {units.shown(estimate.unusable_example or '')}",
            width,
            first="  ",
            rest="    ",
        )
    lines += _histogram(estimate)
    for sentence in (
        (
            f"requests: {units.count(estimate.put_requests)} PUT (${estimate.put_dollars:.2f}),"
            f" {units.count(estimate.list_requests)} LIST to verify (${estimate.list_dollars:.2f});"
            f" storage ${estimate.storage_dollars_per_month:.2f} a month"
        ),
        (
            f"where conditional PUTs don't work: {units.count(estimate.head_requests)} HEAD more"
            f" (${estimate.head_dollars:.2f}); list prices of S3 Standard in us-east-1"
        ),
    ):
        lines += units.wrap(sentence, width, first="  ", rest="    ")
    return "\n".join(lines)


def _histogram(estimate: Estimate) -> list[str]:
    """Return a bar for each size class that has rows, from its lower bound to the next power of two."""
    most = max((size_class.rows for size_class in estimate.histogram), default=0)
    lines = []
    for size_class in estimate.histogram:
        bar = "#" * max(1, round(BAR_CELLS * size_class.rows / most))
        low = units.size(size_class.low) if size_class.low else "empty"
        lines.append(f"  {low:>9}  {bar:<{BAR_CELLS}}  {units.count(size_class.rows)}")
    return lines
