"""What a dry run found, for the screen; pure."""

from __future__ import annotations

from daemon import rendering_units as units
from daemon.estimating import Estimate

BAR_CELLS = 30


def estimate_text(name: str, estimate: Estimate, *, width: int) -> str:
    """Return rows, bytes, exclusions, a histogram of sizes, requests and dollars at list price."""
    lines = [
        f"{units.shown(name)}: {units.plural(estimate.rows, 'row')} to copy, {units.size(estimate.size)}"
        f" (largest {units.size(estimate.largest)}), of {units.count(estimate.seen)} seen"
    ]
    lines += [
        f"  excluded, {reason.replace('_', ' ')}: {units.count(number)}"
        for reason, number in estimate.excluded.items()
        if number
    ]
    if estimate.unusable:
        lines.append(
            f"  {units.plural(estimate.unusable, 'row')} can't be an object and would be parked,"
            f" such as {units.shown(estimate.unusable_example or '')}"
        )
    most = max((size_class.rows for size_class in estimate.histogram), default=0)
    for size_class in estimate.histogram:
        bar = "#" * max(1, round(BAR_CELLS * size_class.rows / most))
        span = units.size(size_class.low) if size_class.low else "empty"
        lines.append(f"  {span:>10} {bar:<{BAR_CELLS}} {units.count(size_class.rows)}")
    lines.append(
        f"  requests: {units.count(estimate.put_requests)} PUT (${estimate.put_dollars:.2f}),"
        f" {units.count(estimate.list_requests)} LIST to verify (${estimate.list_dollars:.2f});"
        f" storage ${estimate.storage_dollars_per_month:.2f} a month; list price, S3 Standard, us-east-1"
    )
    lines.append(
        f"  where conditional PUTs don't work: {units.count(estimate.head_requests)} HEAD more"
        f" (${estimate.head_dollars:.2f})"
    )
    return "\n".join(line for text in lines for line in units.wrap(text, width, rest="    "))
