"""The stage that these tests fill."""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal.checkpoint import Order
from journal.staging import StageIdentity

if TYPE_CHECKING:
    from journal.staging import Stage, StagedRow

IDENTITY = StageIdentity(source=1, number=1, scope="scope", order=Order.NEWEST_FIRST)


def add(
    stage: Stage,
    rows: list[StagedRow],
    first: int = 0,
    following: int | None = None,
    relation: int = 7,
    filenode: int = 70,
) -> None:
    stage.add(
        rows,
        relation=relation,
        filenode=filenode,
        first_block=first,
        next_block=following,
        seen=len(rows) + 1,
        excluded={"where": 1, "null_value": 0},
    )
