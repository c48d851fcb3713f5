"""What an undo did, or would do, for the screen; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.undoing import EXAMPLES_MAX, WORDS, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.undoing import UndoTally


def undo_text(
    tally: UndoTally, *, confirmed: bool, complete: bool, show: Callable[[str], str], width: int
) -> str:
    """Return the result in lines of at most `width` columns: what goes, by source, and what stays, by reason.

    Args:
        tally: what was counted.
        confirmed: it was deleted; else it would be.
        complete: the whole scope was gone through.
        show: redacts object keys, or does not.
        width: columns.
    """
    word = "deleted" if confirmed else "would delete"
    lines = units.wrap(
        f"{word} {units.plural(tally.deleted, 'object')}, {units.size(tally.deleted_bytes)}",
        width,
        rest="  ",
    )
    for name, source in tally.sources.items():
        lines += units.wrap(
            f"{units.shown(name)}: {units.plural(source.deleted, 'object')}, {units.size(source.deleted_bytes)}",
            width,
            first="  ",
            rest="    ",
        )
    if tally.gone:
        lines += units.wrap(f"gone already: {units.plural(tally.gone, 'object')}", width, rest="  ")
    for reason in Reason:
        lines += _left(tally, reason, show, width)
    lines += units.wrap(_last(tally, confirmed=confirmed, complete=complete), width, rest="  ")
    return "\n".join(lines)


def undo_word(tally: UndoTally, *, confirmed: bool) -> str:
    """Return the result in one clause, as the last line of the log has it."""
    word = "deleted" if confirmed else "looked, and deleted nothing: undo would delete"
    left = tally.left(*Reason)
    return f"{word} {units.plural(tally.deleted, 'object')}{f', {units.count(left)} left' if left else ''}"


def _left(tally: UndoTally, reason: Reason, show: Callable[[str], str], width: int) -> list[str]:
    number = tally.left(reason)
    if not number:
        return []
    lines = units.wrap(f"left, {WORDS[reason]}: {units.plural(number, 'object')}", width, rest="  ")
    named = [left for left in tally.examples if left.reason is reason]
    for left in named:
        line = f"{units.shown(left.source)}: {units.shown(show(left.object_key))}"
        detail = f" ({units.shown(left.detail)})" if left.detail else ""
        lines += units.fold(line + detail, width, first="  ", rest="      ")
    if named and number > len(named):
        lines.append(f"  and {units.count(number - EXAMPLES_MAX)} more; the log names them")
    return lines


def _last(tally: UndoTally, *, confirmed: bool, complete: bool) -> str:
    if not complete:
        return "stopped before the end of the scope; the same command goes on"
    if not confirmed:
        return "nothing was deleted; the same command with --yes deletes"
    if tally.deleted or tally.gone:
        return (
            "the keys are parked as undone: `backfillctl requeue --failure undone` and `backfillctl run` copy"
            " their rows again"
        )
    return "nothing was there to delete"
