"""Decide from readings of the source whether new work may begin there; pure.

Each reading has a threshold and perhaps a second one. Above the first, nothing new begins until the reading has been
at or below it RELEASE_READINGS times in a row; above the second, the source is left alone altogether for a while, not
even read. A reading that can't be had counts as one above its first threshold: not to know is no reason to go on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daemon.causes import Cause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.config import ThrottleConfig
    from daemon.errors import BackfillError

RELEASE_READINGS = 3
"""Readings in a row at or below a threshold that end a hold: one that swings around it does not flap with each."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is measured, and above which values to hold.

    Attributes:
        cause: which reading.
        words: begins the line that tells of it.
        unit: of the values; empty for counts.
        threshold: above it nothing new begins.
        hibernate: above it the source is left alone for a while; None: never.
    """

    cause: Cause
    words: str
    unit: str
    threshold: float
    hibernate: float | None = None

    @property
    def key(self) -> str:
        """The configuration's key, for hints."""
        return f"throttle.{self.cause}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a measurement gave.

    Attributes:
        value: in the rule's unit; None where there is none.
        problem: why not, one line.
        error: set where no later reading can be better, since the configuration or a right is to blame.
        note: what an operator should know of a value all the same, such as that no standby is connected.
    """

    value: float | None
    problem: str = ""
    error: BackfillError | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Throttle:
    """What holds after the latest readings.

    Attributes:
        holds: cause to what was found and expected, one line.
        calm: cause to how many readings in a row were at or below its threshold, for causes that hold.
        rest_until: no readings are to be taken before; monotonic seconds, -inf for no rest.
    """

    holds: Mapping[Cause, str] = field(default_factory=dict)
    calm: Mapping[Cause, int] = field(default_factory=dict)
    rest_until: float = -math.inf

    def after(
        self, rules: Sequence[Rule], readings: Mapping[Cause, Reading], *, now: float, rest: float
    ) -> Throttle:
        """Return what holds after these readings.

        Args:
            rules: every one, the same each time.
            readings: one for each rule.
            now: when they were taken, monotonic seconds; nothing changes during a rest.
            rest: seconds to leave the source alone above a second threshold.
        """
        if now < self.rest_until:
            return self
        holds: dict[Cause, str] = {}
        calm: dict[Cause, int] = {}
        alarming = []
        for rule in rules:
            reading = readings[rule.cause]
            if _exceeds(reading, rule.threshold):
                holds[rule.cause] = _found(rule, reading, rule.threshold)
            elif rule.cause in self.holds and self.calm.get(rule.cause, 0) + 1 < RELEASE_READINGS:
                holds[rule.cause] = self.holds[rule.cause]
                calm[rule.cause] = self.calm.get(rule.cause, 0) + 1
            if rule.hibernate is not None and reading.value is not None and reading.value > rule.hibernate:
                alarming.append(_found(rule, reading, rule.hibernate))
        if not alarming:
            return Throttle(holds, calm)
        holds[Cause.HIBERNATION] = "; ".join(alarming)
        return Throttle(holds, calm, now + rest)


def rules_of(throttle: ThrottleConfig) -> tuple[Rule, ...]:
    """Return a rule for each reading that the configuration asks for."""
    rules = []
    if throttle.replica_lag is not None:
        rules.append(
            Rule(Cause.REPLICA_LAG, "replica lag", " s", throttle.replica_lag, throttle.replica_lag_hibernate)
        )
    if throttle.active_sessions is not None:
        limit, rest = throttle.active_sessions, throttle.active_sessions_hibernate
        rules.append(Rule(Cause.ACTIVE_SESSIONS, "active sessions", "", limit, rest))
    if throttle.query is not None and throttle.query_threshold is not None:
        rules.append(
            Rule(Cause.QUERY, "throttle.query", "", throttle.query_threshold, throttle.query_hibernate)
        )
    return tuple(rules)


def shown(rule: Rule, value: float) -> str:
    """Return a value in the rule's unit; a tenth is as exact as anybody reads it."""
    return f"{round(value, 1):,.15g}{rule.unit}"


def _exceeds(reading: Reading, threshold: float) -> bool:
    return reading.value is None or reading.value > threshold


def _found(rule: Rule, reading: Reading, threshold: float) -> str:
    if reading.value is None:
        return f"{rule.words} could not be read: {reading.problem}"
    return f"{rule.words} {shown(rule, reading.value)}, above {shown(rule, threshold)}"
