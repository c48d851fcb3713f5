"""What a kill cost, told from the journal's events alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from journal.events import Kind
from journal.lifecycle import OUTCOME_OF_CODE, Outcome
from journal.reader import Reader

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of the keys that were in flight when a process died.

    Attributes:
        recovered: keys that the next session took back and drove again.
        sent_twice: of these, uploads found to have arrived before the kill: the second one was a repetition.
        stored: of these, uploads that the kill had kept from arriving.
        otherwise: of these, keys that ended in another way (present, vanished) or are parked.
    """

    recovered: int
    sent_twice: int
    stored: int
    otherwise: int


def redriven(journal: Path) -> Redriven:
    """Fold the events of `journal` into what its kills cost.

    Raises:
        JournalError: it can't be read.
    """
    ended: dict[int, Outcome | None] = {}
    with Reader.open(journal) as reader:
        for event in reader.events(kinds=[Kind.KEYS_RECOVERED, Kind.OUTCOMES_RECORDED]):
            if event.kind == Kind.KEYS_RECOVERED:
                ended.update(dict.fromkeys(event.data["ordinals"]))
            else:
                ended.update(
                    {ordinal: OUTCOME_OF_CODE[code] for ordinal, code, *_ in event.data if ordinal in ended}
                )
    outcomes = Counter(ended.values())
    sent_twice, stored = outcomes[Outcome.RECOVERED], outcomes[Outcome.STORED]
    return Redriven(len(ended), sent_twice, stored, len(ended) - sent_twice - stored)
