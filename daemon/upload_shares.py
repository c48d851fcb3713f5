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


def upload_shares(total: int, busy: Sequence[bool], before: Sequence[int]) -> list[int]:
    """Divide `total` uploads at once among processes.

    Where there are fewer uploads than processes, whoever is at work keeps one until it has nothing left, even if that
    is one too many just after `total` was lowered: what it holds in memory must not keep the others waiting for ever.

    Args:
        total: uploads at once.
        busy: which processes hold keys, or have some waiting.
        before: the shares so far.
    """
    number = len(busy)
    if total >= number:
        return even_shares(total, number)
    keeping = {position for position in range(number) if busy[position] and before[position]}
    waiting = sorted(set(range(number)) - keeping, key=lambda position: (not busy[position], position))
    served = keeping.union(waiting[: max(0, total - len(keeping))])
    return [int(position in served) for position in range(number)]
