"""What the journal's raw events say, read by SQL and JSON alone: the product's own reader is under test."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class TakenBack(NamedTuple):
    """Keys that a dead process had in flight: an upload process's in mid-session, else those of the session before."""

    session: int
    process: str | None
    ordinals: set[int]


@dataclass
class Facts:
    """What became of the keys of a journal that nobody writes.

    Attributes:
        cutoff_us: rows created from then on are none of the migration's.
        sessions: how many there were.
        outcomes: by letter.
        taken_back: what each death left.
        failed: ordinals with a failed attempt on record.
        repeated: ordinals whose object was found to be ours by another PUT.
        causes: failed attempts by class.
        parked: keys ever parked, by reason.
    """

    cutoff_us: int = 0
    sessions: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    taken_back: list[TakenBack] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    repeated: set[int] = field(default_factory=set)
    causes: Counter[str] = field(default_factory=Counter)
    parked: Counter[str] = field(default_factory=Counter)

    @property
    def unexplained(self) -> set[int]:
        """Ordinals uploaded again though no process died with them and no attempt failed."""
        return self.repeated - self.failed - set().union(*(taken.ordinals for taken in self.taken_back))


def read(journal: Path) -> Facts:
    """Walk over all events once."""
    facts = Facts()
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        for kind, text in connection.execute("select kind, data from event order by seq"):
            _take(facts, kind, text)
    return facts


def _take(facts: Facts, kind: str, text: str) -> None:
    match kind:
        case "cutoff_fixed":
            facts.cutoff_us = json.loads(text)["cutoff_us"]
        case "session_started":
            facts.sessions += 1
        case "keys_recovered":
            data = json.loads(text)
            facts.taken_back.append(TakenBack(facts.sessions, data.get("process"), set(data["ordinals"])))
        case "attempt_failed":
            data = json.loads(text)
            facts.failed.add(data["ordinal"])
            facts.causes[data["failure"]] += 1
        case "key_parked":
            facts.parked[json.loads(text)["failure"]] += 1
        case "outcomes_recorded":
            for ordinal, letter, *_ in json.loads(text):
                facts.outcomes[letter] += 1
                if letter == "R":
                    facts.repeated.add(ordinal)
