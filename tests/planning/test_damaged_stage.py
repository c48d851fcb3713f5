"""Bits flipped in a stage that an earlier process left: a new scan, or the same plan to the last row."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import pytest

from journal.checkpoint import Order
from journal.stage_file import StageLost, stage_path
from journal.staging import RelationProgress, Stage, StageIdentity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from journal.staging import StagedRow, StageTotals

SEED = 7
FLIPS = 200
"""Bits among the bytes that aren't 0, and as many among all, for each of `--flips`."""
IDENTITY = StageIdentity(source=1, number=2, scope="scope", order=Order.NEWEST_FIRST)
PAGE_ROWS = 9
RANGES: dict[tuple[int, int], tuple[int | None, list[StagedRow]]] = {
    (7, 0): (64, [(str(n), n // 3, n) for n in range(20)]),
    (7, 64): (128, [(str(n), n // 3, n) for n in range(20, 40)]),
    # Read again in another range, as rows that moved are: which reads are dropped must not depend on a flipped key.
    (7, 128): (None, [(str(n), n // 3, n + 1) for n in range(15, 30)]),
    (8, 0): (None, [("ä", None, 3), ("", -(2**63), 0)]),
}
"""What a scan brings, by relation and first block: the block after, and rows."""


class Planned(NamedTuple):
    rows: list[StagedRow]
    totals: StageTotals
    memo: str


def scan(stage: Stage, ranges: int | None = None) -> None:
    """Go on with the scan, by `ranges` ranges or to its end."""
    for relation in (7, 8):
        reached = stage.progress().get(relation, RelationProgress(70, 0))
        while reached.next_block is not None:
            if ranges == 0:
                return
            first = reached.next_block
            following, rows = RANGES[relation, first]
            stage.add(
                rows,
                relation=relation,
                filenode=reached.filenode,
                first_block=first,
                next_block=following,
                seen=len(rows) + 1,
                excluded={"where": 1},
            )
            reached = RelationProgress(reached.filenode, following)
            ranges = None if ranges is None else ranges - 1


def complete(stage: Stage, sealed: list[StagedRow]) -> Planned:
    """Scan what is left, and hand out what follows the rows that were sealed before."""
    if not stage.is_sorted:
        scan(stage)
        stage.sort()
    place = stage.position_of(sealed[-1][0]) if sealed else 0
    rows = list(sealed)
    while page := stage.page(place, PAGE_ROWS):
        rows += page
        place += len(page)
    return Planned(rows, stage.totals(), stage.memo)


def scanned_in_part(stage: Stage) -> list[StagedRow]:
    scan(stage, 2)
    return []


def scanned(stage: Stage) -> list[StagedRow]:
    scan(stage)
    return []


def in_order(stage: Stage) -> list[StagedRow]:
    scan(stage)
    stage.sort()
    return []


def sealed_in_part(stage: Stage) -> list[StagedRow]:
    in_order(stage)
    return stage.page(0, PAGE_ROWS)


@pytest.mark.parametrize("bring", [scanned_in_part, scanned, in_order, sealed_in_part])
def test_a_flipped_bit_costs_a_new_scan_or_nothing(
    bring: Callable[[Stage], list[StagedRow]], tmp_path: Path, flips: int
) -> None:
    journal = tmp_path / "journal.db"
    with closing(Stage.create(journal, IDENTITY, memo="why")) as stage:
        sealed = bring(stage)
    whole = stage_path(journal).read_bytes()
    with closing(Stage.resume(journal, IDENTITY)) as stage:
        expected = complete(stage, sealed)
    assert len(expected.rows) == 42
    random = Random(SEED)
    used = [at for at, byte in enumerate(whole) if byte]
    seen: Counter[str] = Counter()
    for places in (used, range(len(whole))):
        for _ in range(FLIPS * flips):
            at, bit = random.choice(places), random.randrange(8)
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            seen[outcome(journal, bytes(damaged), sealed, expected, f"bit {bit} of byte {at}")] += 1
    assert seen.keys() == {"lost", "harmless"}


def outcome(journal: Path, content: bytes, sealed: list[StagedRow], expected: Planned, what: str) -> str:
    """Complete what `content` holds of a stage; fail where it is neither refused nor as it should be."""
    stage_path(journal).write_bytes(content)
    try:
        with closing(Stage.resume(journal, IDENTITY)) as stage:
            found = complete(stage, sealed)
    except StageLost:
        return "lost"
    assert found == expected, what
    return "harmless"
