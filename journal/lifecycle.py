"""The life of a key: the only table of transitions.

Nobody else decides what state follows; the projections only store what `advance` allows. An illegal trigger
raises and leaves the state as it was. The diagram in DESIGN.md is tested against `TRANSITIONS`.
"""

from __future__ import annotations

from enum import StrEnum

from journal.errors import IllegalTransition


class KeyState(StrEnum):
    """Where a planned key stands."""

    PLANNED = "planned"
    IN_FLIGHT = "in_flight"
    STORED = "stored"
    PRESENT = "present"
    SKIPPED = "skipped"
    VANISHED = "vanished"
    PARKED = "parked"


class Outcome(StrEnum):
    """How a key was settled; "recovered" is stored, found to be ours after a lost answer."""

    STORED = "stored"
    RECOVERED = "recovered"
    PRESENT = "present"
    SKIPPED = "skipped"
    VANISHED = "vanished"


class Trigger(StrEnum):
    """What moves a key that is not an outcome."""

    CLAIM = "claim"
    RECOVER = "recover"
    RELEASE = "release"
    PARK = "park"
    REQUEUE = "requeue"
    REDRIVE = "redrive"
    UNDO = "undo"


SETTLED: frozenset[KeyState] = frozenset(
    {KeyState.STORED, KeyState.PRESENT, KeyState.SKIPPED, KeyState.VANISHED}
)
"""States that need nothing more; a key leaves them only when its object is found wrong, or is deleted by an operator."""

TRANSITIONS: dict[tuple[KeyState, Trigger | Outcome], KeyState] = {
    (KeyState.PLANNED, Trigger.CLAIM): KeyState.IN_FLIGHT,
    (KeyState.IN_FLIGHT, Outcome.STORED): KeyState.STORED,
    (KeyState.IN_FLIGHT, Outcome.RECOVERED): KeyState.STORED,
    (KeyState.IN_FLIGHT, Outcome.PRESENT): KeyState.PRESENT,
    (KeyState.IN_FLIGHT, Outcome.SKIPPED): KeyState.SKIPPED,
    (KeyState.IN_FLIGHT, Outcome.VANISHED): KeyState.VANISHED,
    (KeyState.IN_FLIGHT, Trigger.PARK): KeyState.PARKED,
    (KeyState.IN_FLIGHT, Trigger.RECOVER): KeyState.PLANNED,
    (KeyState.IN_FLIGHT, Trigger.RELEASE): KeyState.PLANNED,
    (KeyState.PARKED, Trigger.REQUEUE): KeyState.PLANNED,
    (KeyState.STORED, Trigger.REDRIVE): KeyState.PLANNED,
    (KeyState.PRESENT, Trigger.REDRIVE): KeyState.PLANNED,
    (KeyState.STORED, Trigger.UNDO): KeyState.PARKED,
}

OUTCOME_CODES: dict[Outcome, str] = {
    Outcome.STORED: "S",
    Outcome.RECOVERED: "R",
    Outcome.PRESENT: "P",
    Outcome.SKIPPED: "K",
    Outcome.VANISHED: "V",
}
"""The letter that stands for an outcome in events and in table `outcome`; part of the file format."""

OUTCOME_OF_CODE: dict[str, Outcome] = {code: outcome for outcome, code in OUTCOME_CODES.items()}
"""The inverse of `OUTCOME_CODES`."""

UNDONE = "undone"
"""The failure under which a key is parked whose object was deleted on an operator's order."""

RECOVERIES_MAX = 3
"""After so many recoveries without an outcome a key is driven alone; the next one parks it."""


def advance(state: KeyState, trigger: Trigger | Outcome) -> KeyState:
    """Return the state that follows.

    Raises:
        IllegalTransition: `trigger` means nothing to a key in `state`.
    """
    following = TRANSITIONS.get((state, trigger))
    if following is None:
        raise IllegalTransition(f"move a key: a key that is {state.value} can't take '{trigger.value}'")
    return following
