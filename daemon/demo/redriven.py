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

_KINDS = (Kind.KEYS_RECOVERED, Kind.OUTCOMES_RECORDED, Kind.ATTEMPT_FAILED)


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of the keys that were in flight when a process died.

    Attributes:
        recovered: keys that the next session took back and drove again.
        sent_twice: of these, uploads found to have arrived before the kill: the second one was a repetition.
        stored: of these, uploads that the kill had kept from arriving.
        otherwise: of these, keys that ended in another way: present, vanished, skipped or not yet at all.
        failed_attempts: over all keys and sessions, requests that failed and were made again.
    """

    recovered: int
    sent_twice: int
    stored: int
    otherwise: int
    failed_attempts: int


def redriven(journal: Path) -> Redriven:
    """Fold the events of `journal` into what its kills cost.

    Raises:
        JournalError: it can't be read.
    """
    ended: dict[int, Outcome | None] = {}
    failed_attempts = 0
    with Reader.open(journal) as reader:
        for event in reader.events(kinds=_KINDS):
            if event.kind == Kind.KEYS_RECOVERED:
                ended.update(dict.fromkeys(event.data["ordinals"]))
            elif event.kind == Kind.ATTEMPT_FAILED:
                failed_attempts += 1
            else:
                ended.update(
                    {ordinal: OUTCOME_OF_CODE[code] for ordinal, code, *_ in event.data if ordinal in ended}
                )
    outcomes = Counter(ended.values())
    sent_twice, stored = outcomes[Outcome.RECOVERED], outcomes[Outcome.STORED]
    otherwise = len(ended) - sent_twice - stored
    return Redriven(len(ended), sent_twice, stored, otherwise, failed_attempts)
