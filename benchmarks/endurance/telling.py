"""What a soak found, as JSON and in words; pure."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.endurance.journal_facts import Facts
    from benchmarks.endurance.judging import Death, Verdict
    from benchmarks.endurance.proving import Proof
    from benchmarks.endurance.sampling import Sample
    from benchmarks.endurance.schedule import Fault

LETTERS = {
    "S": "stored",
    "R": "found stored by an earlier PUT of ours",
    "P": "present",
    "K": "skipped",
    "V": "vanished",
}


@dataclass
class Soaked:
    """Everything that one soak found; `failure`: why it did not come to its end."""

    minutes: float
    rows: int
    seed: int
    rows_per_second: int
    samples: list[Sample]
    faults: list[Fault]
    deaths: list[Death]
    requeued: int
    facts: Facts
    verdicts: list[Verdict]
    proof: Proof
    failure: str = ""

    @property
    def problems(self) -> list[str]:
        """What is wrong; empty: nothing."""
        return [
            *([self.failure] if self.failure else []),
            *(f"{verdict.rule}: {verdict.said}" for verdict in self.verdicts if not verdict.is_met),
            *self.proof.problems(),
        ]


def document(found: Soaked) -> str:
    """Return it all as JSON."""
    facts = found.facts
    told: dict[str, Any] = {
        "minutes": found.minutes,
        "rows": found.rows,
        "seed": found.seed,
        "rows_per_second": found.rows_per_second,
        "faults": [asdict(fault) for fault in found.faults],
        "deaths": [
            {"at": death.at, "code": death.code, "is_expected": death.is_expected} for death in found.deaths
        ],
        "sessions": facts.sessions,
        "requeued": found.requeued,
        "outcomes": dict(facts.outcomes),
        "failed_attempts": dict(facts.causes),
        "parked": dict(facts.parked),
        "taken_back": [
            {
                "session": taken.session,
                "process": taken.process,
                "in_flight": len(taken.ordinals),
                "repeated": len(taken.ordinals & facts.repeated),
            }
            for taken in facts.taken_back
        ],
        "verdicts": [asdict(verdict) for verdict in found.verdicts],
        "proof": asdict(found.proof),
        "problems": found.problems,
        "samples": [
            {**asdict(sample), "daemon": sample.daemon._asdict(), "uploaders": sample.uploaders._asdict(),
             "progress": sample.progress._asdict()}
            for sample in found.samples
        ],
    }  # fmt: skip
    return json.dumps(told) + "\n"


def summary(found: Soaked) -> str:
    """Return it in words."""
    facts = found.facts
    kinds = Counter(fault.kind for fault in found.faults)
    in_flight = sum(len(taken.ordinals) for taken in facts.taken_back)
    lines = [
        f"seed {found.seed}: {found.minutes:g} minutes, {len(found.faults)} faults, {facts.sessions} sessions",
        "faults: " + ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()),
        "failed attempts: " + _counted(facts.causes),
        "keys: " + _counted(Counter({LETTERS[letter]: count for letter, count in facts.outcomes.items()})),
        f"in flight: {in_flight:,} keys at {len(facts.taken_back)} deaths of a daemon or an upload process",
        f"uploads repeated: {len(facts.repeated):,}, of these and of {len(facts.failed):,} keys with a failed attempt",
        f"parked on the way: {_counted(facts.parked)}; requeued {found.requeued} time(s)",
        *found.proof.lines(),
        *(
            f"{'ok' if verdict.is_met else 'NOT MET'}: {verdict.rule}: {verdict.said}"
            for verdict in found.verdicts
        ),
        *(f"PROBLEM: {problem}" for problem in found.problems),
        "all is well" if not found.problems else f"{len(found.problems)} problem(s)",
    ]
    return "\n".join(lines)


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counter.most_common()) or "none"
