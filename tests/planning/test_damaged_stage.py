"""Bits flipped in a stage that an earlier process left: a new scan, or the same plan to the last row."""

from __future__ import annotations

import sqlite3
import struct
from collections import Counter, defaultdict
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import pytest

from journal.checkpoint import Order
from journal.stage_file import StageLost, connect, stage_path
from journal.staging import RelationProgress, Stage, StageIdentity
from tests.faults.sqlite_layout import PAGE, regions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from journal.staging import StagedRow, StageTotals

SEED = 7
FLIPS = 150
"""Bits in each class of bytes, for each of `--flips`."""
IDENTITY = StageIdentity(source=1, number=2, scope="scope", order=Order.NEWEST_FIRST)
PAGE_ROWS = 50


def rows(numbers: range, size: int = 0) -> list[StagedRow]:
    """Keys that a flipped bit turns into each other."""
    return [(f"{n:030}", n // 3, n + size) for n in numbers]


RANGES: dict[tuple[int, int], tuple[int | None, list[StagedRow]]] = {
    (7, 0): (64, rows(range(60))),
    (7, 64): (128, [*rows(range(60, 120)), ("../up", 5, 1)]),
    # Read again in another range, as rows that moved are.
    (7, 128): (None, rows(range(45, 90), 1)),
    (8, 0): (None, [("ä", None, 3), ("", -(2**63), 0)]),
    (9, 0): (None, []),
}
"""What a scan brings, by relation and first block: the block after, and rows."""


class Planned(NamedTuple):
    rows: list[StagedRow]
    totals: StageTotals
    suspects: list[tuple[int, str]]
    memo: str


def scan(stage: Stage, ranges: int = len(RANGES)) -> None:
    """Go on with the scan, by so many ranges at most."""
    progress = stage.progress()
    for relation in (7, 8, 9):
        reached = progress.get(relation, RelationProgress(70, 0))
        while ranges and reached.next_block is not None:
            first = reached.next_block
            following, found = RANGES[relation, first]
            stage.add(
                found,
                relation=relation,
                filenode=reached.filenode,
                first_block=first,
                next_block=following,
                seen=len(found) + 1,
                excluded={"where": 1, "null_value": 0},
            )
            reached = RelationProgress(reached.filenode, following)
            ranges -= 1


def complete(stage: Stage, sealed: list[StagedRow]) -> Planned:
    """Scan what is left, and hand out what follows the rows that were sealed before."""
    if not stage.is_sorted:
        scan(stage)
        stage.sort()
    suspects = stage.suspects(longer_than=100, reserved="probe", after=0)
    place = stage.position_of(sealed[-1][0]) if sealed else 0
    found = list(sealed)
    while page := stage.page(place, PAGE_ROWS):
        found += page
        place += len(page)
    return Planned(found, stage.totals(), suspects, stage.memo)


def scanned_in_part(stage: Stage) -> list[StagedRow]:
    scan(stage, 2)
    return []


def rewritten(stage: Stage) -> list[StagedRow]:
    """What was forgotten leaves gaps and free pages."""
    scan(stage, 3)
    stage.restart_relation(7)
    scan(stage, 1)
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


def classes(content: bytes) -> dict[str, list[int]]:
    """Return the places of the bytes of each class."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content)
        roots = dict(connection.execute("select name, rootpage from sqlite_schema"))
    found: dict[str, list[int]] = defaultdict(list)
    for name, ranges in regions(content, roots).items():
        kind = name if name == "file header" else name.rpartition(" ")[2]
        found[kind] += [at for places in ranges for at in places]
    found["rowids"] = list(rowids(content))
    return found


def rowids(content: bytes) -> Iterator[int]:
    """Yield where the number of each row of a table stands: behind its length, both of a byte or two."""
    for page in range(PAGE, len(content), PAGE):
        if content[page] == 13:
            (cells,) = struct.unpack_from(">H", content, page + 3)
            for pointer in struct.unpack_from(f">{cells}H", content, page + 8):
                begin = page + pointer + (2 if content[page + pointer] & 0x80 else 1)
                yield begin
                if content[begin] & 0x80:
                    yield begin + 1


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power loss: it need not wait for the disk."""

    def connected(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("pragma synchronous = off")
        return connection

    monkeypatch.setattr("journal.staging.connect", connected)


@pytest.mark.parametrize("bring", [scanned_in_part, rewritten, scanned, in_order, sealed_in_part])
def test_a_flipped_bit_costs_a_new_scan_or_nothing(
    bring: Callable[[Stage], list[StagedRow]], tmp_path: Path, flips: int
) -> None:
    journal = tmp_path / "journal.db"
    with closing(Stage.create(journal, IDENTITY, memo="why")) as stage:
        sealed = bring(stage)
    whole = stage_path(journal).read_bytes()
    with closing(Stage.resume(journal, IDENTITY)) as stage:
        expected = complete(stage, sealed)
    assert (len(expected.rows), expected.totals.repeated, len(expected.suspects)) == (123, 45, 2)
    random = Random(SEED)
    seen: Counter[str] = Counter()
    for kind, places in classes(whole).items():
        bits = range(8 * len(places))
        for chosen in random.sample(bits, min(len(bits), FLIPS * flips)):
            at, bit = places[chosen // 8], chosen % 8
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            seen[outcome(journal, bytes(damaged), sealed, expected, f"{kind}: bit {bit} of byte {at}")] += 1
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
