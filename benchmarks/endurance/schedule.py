"""What happens when in a soak: phases of its time and faults drawn from a seed; pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is done to the daemon, its processes, its servers, or the network before S3."""

    KILL = "SIGKILL"
    TERMINATE = "SIGTERM"
    FREEZE = "SIGSTOP, SIGCONT"
    KILL_UPLOADER = "upload process killed"
    CUT_SESSIONS = "pg_terminate_backend"
    KILL_POSTGRES = "PostgreSQL killed"
    KILL_S3 = "S3 killed"
    PAUSE = "pause, resume"
    SET = "set concurrency"
    SLOW = "S3 slow"
    REFUSE = "S3 connections reset"
    LOSE_ANSWERS = "S3 answers lost"


class Phase(StrEnum):
    """CALM: nothing is done. FAULTS: what a daemon must outlive, one by one. DEATHS: everything at once. REST: the end."""

    CALM = "calm"
    FAULTS = "faults"
    DEATHS = "deaths"
    REST = "the rest"


AT_ONCE = frozenset({Kind.KILL, Kind.TERMINATE, Kind.KILL_UPLOADER, Kind.CUT_SESSIONS})
"""Over as soon as they are done."""
OUTAGES = frozenset({Kind.KILL_POSTGRES, Kind.KILL_S3, Kind.REFUSE, Kind.LOSE_ANSWERS})
"""A daemon that starts meanwhile may give up: one end does not answer, and no supervisor is there to bear it."""
OUTLIVED = {
    Kind.FREEZE: 2,
    Kind.KILL_UPLOADER: 2,
    Kind.CUT_SESSIONS: 3,
    Kind.KILL_POSTGRES: 2,
    Kind.KILL_S3: 2,
    Kind.PAUSE: 1,
    Kind.SET: 1,
    Kind.SLOW: 2,
    Kind.REFUSE: 2,
    Kind.LOSE_ANSWERS: 2,
}
"""With the weights that they are drawn by."""
DEADLY = {Kind.KILL: 10, Kind.TERMINATE: 4} | {
    # A command would wait for a frozen daemon's answer.
    kind: weight
    for kind, weight in OUTLIVED.items()
    if kind not in {Kind.PAUSE, Kind.SET}
}
MINUTES_PER_ROUND = 10.0
ROUNDS_MAX = 4
"""More time makes rounds longer instead: what grows slowly shows only in a process that lives long."""
SHARES = {Phase.CALM: 0.4, Phase.FAULTS: 0.3, Phase.DEATHS: 0.3}
SECONDS = (1.0, 5.0)
"""How long a fault lasts."""
REST_SECONDS = (2.0, 7.0)
"""After a fault that a daemon must outlive."""
BETWEEN_SECONDS = (2.0, 8.0)
"""From the beginning of one fault to that of the next among deaths, so that they overlap."""
SAME_KIND_SECONDS = 1.0
"""Between two of one kind: ends are noticed some time after they are due."""
SETTLING_SECONDS = 3.0
"""At the end of a phase, in which none begins."""
SHORT_SECONDS = 20.0
"""In a phase that is shorter, all goes faster, so that something happens."""


@dataclass(frozen=True, slots=True)
class Span:
    """A phase from `begin` to `end`, in seconds; `processes` is `upload.processes` of daemons begun in it."""

    phase: Phase
    begin: float
    end: float
    processes: int


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from `begin` to `end`; `choice` in [0, 1) picks where there is a choice to make."""

    kind: Kind
    begin: float
    end: float
    choice: float


def spans(minutes: float) -> list[Span]:
    """Divide the time: calm, faults, deaths, and so on; with two upload processes and one in turn.

    Deaths go on with what comes next, since the last daemon that is started among them lives on.
    """
    rounds = max(1, min(ROUNDS_MAX, round(minutes / MINUTES_PER_ROUND)))
    found: list[Span] = []
    at = 0.0
    for number in range(rounds):
        for phase, share in SHARES.items():
            end = at + minutes * 60 / rounds * share
            found.append(Span(phase, at, end, 2 - (number + (phase is Phase.DEATHS)) % 2))
            at = end
    return found


def faults(of: list[Span], seed: int) -> list[Fault]:
    """Draw the faults of all spans, in the order in which they begin."""
    source = random.Random(seed)
    found: list[Fault] = []
    for span in of:
        if span.phase is Phase.CALM:
            continue
        pace = min(1.0, (span.end - span.begin) / SHORT_SECONDS)
        weights = OUTLIVED if span.phase is Phase.FAULTS else DEADLY
        at = span.begin + pace * source.uniform(*BETWEEN_SECONDS)
        until: dict[Kind, float] = {}
        while True:
            (kind,) = source.choices(list(weights), list(weights.values()))
            end = at if kind in AT_ONCE else min(at + pace * source.uniform(*SECONDS), span.end)
            choice = source.random()
            if at > span.end - pace * SETTLING_SECONDS:
                break
            if until.get(kind, 0.0) <= at and (kind is not Kind.KILL_UPLOADER or span.processes > 1):
                found.append(Fault(kind, at, end, choice))
                until[kind] = end + pace * SAME_KIND_SECONDS
            if span.phase is Phase.FAULTS:
                at = end + pace * source.uniform(*REST_SECONDS)
            else:
                at += pace * source.uniform(*BETWEEN_SECONDS)
    return found
