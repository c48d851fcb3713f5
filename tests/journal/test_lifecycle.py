from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from journal.errors import IllegalTransition
from journal.lifecycle import OUTCOME_CODES, SETTLED, TRANSITIONS, KeyState, Outcome, Trigger, advance

DESIGN = Path(__file__).parents[2] / "journal" / "DESIGN.md"


def test_the_diagram_in_design_md_shows_exactly_the_transition_table() -> None:
    diagram = re.search(r"```mermaid\nstateDiagram-v2\n(.*?)```", DESIGN.read_text(), re.DOTALL)
    assert diagram is not None
    drawn = {
        (source, label, target)
        for source, target, labels in re.findall(r"^ *(\w+) --> (\w+): (.+)$", diagram[1], re.MULTILINE)
        for label in labels.split(", ")
    }
    assert drawn == {
        (state.value, trigger.value, target.value) for (state, trigger), target in TRANSITIONS.items()
    }


@pytest.mark.parametrize(
    ("state", "trigger"),
    [pair for pair in product(KeyState, [*Trigger, *Outcome]) if pair not in TRANSITIONS],
)
def test_a_trigger_that_is_not_in_the_table_is_refused(state: KeyState, trigger: Trigger | Outcome) -> None:
    with pytest.raises(IllegalTransition, match=state.value):
        advance(state, trigger)


def test_a_settled_key_leaves_only_by_a_revocation() -> None:
    assert {trigger for state, trigger in TRANSITIONS if state in SETTLED} == {Trigger.REDRIVE, Trigger.UNDO}


def test_every_state_is_reached_from_planned() -> None:
    reached = {KeyState.PLANNED}
    while further := {target for (state, _), target in TRANSITIONS.items() if state in reached} - reached:
        reached |= further
    assert reached == set(KeyState)


def test_every_outcome_leads_to_a_settled_state_and_has_its_own_letter() -> None:
    assert {advance(KeyState.IN_FLIGHT, outcome) for outcome in Outcome} == SETTLED
    assert len(set(OUTCOME_CODES.values())) == len(Outcome)
