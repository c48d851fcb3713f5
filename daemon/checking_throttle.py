"""Take each of the throttle's readings once, and say what the timetable allows now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.errors import ExitCode
from daemon.findings import Finding, Level, failure, ok, warning
from daemon.rendering_units import byte_rate, moment_seconds
from daemon.throttling import rules_of, shown
from daemon.timetables import zone_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.config import ThrottleConfig
    from daemon.throttle_watch import HealthSource
    from daemon.throttling import Reading, Rule

SUBJECT = "throttle"


async def check_throttle(
    throttle: ThrottleConfig, source: HealthSource, report: Callable[[Finding], None], *, now_us: int
) -> None:
    """Report what each reading is now and above which values it throttles, and the timetable's limit.

    Raises:
        RefusedError: the connection for readings is refused.
    """
    if throttle.timetable is not None:
        in_force = throttle.timetable.at(now_us, zone_named(throttle.timetable_zone))
        limit = "no limit" if in_force.limit is None else byte_rate(in_force.limit)
        report(ok(SUBJECT, f"timetable: {limit} until {moment_seconds(in_force.until_us)}"))
    rules = rules_of(throttle)
    if not rules:
        return
    health = await source.health(throttle)
    for rule in rules:
        report(_judged(rule, health.readings[rule.cause]))


def _judged(rule: Rule, reading: Reading) -> Finding:
    if reading.error is not None:
        return failure(SUBJECT, reading.error)
    if reading.value is None:
        text = f"{rule.words} can't be read: {reading.problem}"
        hint = f"a migration would run, and be throttled for want of it; mend it, or leave out {rule.key}"
        return Finding(Level.FAILURE, SUBJECT, text, hint, ExitCode.USAGE)
    bounds = f"throttles above {shown(rule, rule.threshold)}"
    if rule.hibernate is not None:
        bounds += f", hibernates above {shown(rule, rule.hibernate)}"
    text = f"{rule.words} {shown(rule, reading.value)}; {bounds}"
    if reading.value > rule.threshold:
        return warning(
            SUBJECT, text, f"a migration would wait now; raise {rule.key} if such values are usual"
        )
    if reading.note:
        return warning(
            SUBJECT, f"{text}: {reading.note}", f"connect to where it shows, or leave out {rule.key}"
        )
    return ok(SUBJECT, text)
