"""How a session's totals are divided among its upload processes; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence


def processes_in_force(configured: int | Literal["auto"], *, cores: int, connections: int) -> int:
    """Return how many processes upload; "auto" leaves a core to the coordinator and the other ends.

    Args:
        configured: `upload.processes`.
        cores: that this process may use.
        connections: that fetch; each process needs one of its own.
    """
    return max(1, min(cores - 1, connections)) if configured == "auto" else configured


def even_shares(total: int, number: int) -> list[int]:
    """Divide `total` among `number`, larger shares first."""
    return [total // number + (position < total % number) for position in range(number)]


def upload_shares(total: int, busy: Sequence[bool]) -> list[int]:
    """Divide `total` uploads at once among processes, of which those that are `busy` hold keys.

    Where there are fewer uploads than processes, those that hold keys come first: what is claimed always ends.
    """
    shares = even_shares(total, len(busy))
    if total >= len(busy):
        return shares
    first = sorted(range(len(busy)), key=lambda position: not busy[position])
    return [shares[first.index(position)] for position in range(len(busy))]
