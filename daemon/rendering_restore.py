"""What a restore did, or would do, for the screen; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.restoring import RestoreTally


def restore_text(
    tally: RestoreTally,
    table: str,
    *,
    confirmed: bool,
    complete: bool,
    show: Callable[[str], str],
    width: int,
) -> str:
    """Return the result in lines of at most `width` columns.

    Args:
        tally: what was counted.
        table: where rows go, quoted.
        confirmed: they were written; else they would be.
        complete: the whole scope was gone through.
        show: redacts row keys, or does not.
        width: columns.
    """
    word = "restored" if confirmed else "would restore"
    proof = ", each with the size and MD5 on record, as the server computes them" if confirmed else ""
    rows = f"{word} {units.plural(tally.restored, 'row')}, {units.size(tally.restored_bytes)}"
    told = [f"{rows}, into {units.shown(table)}{proof if tally.restored else ''}"]
    if tally.equal:
        told.append(f"there already, with the value on record: {units.plural(tally.equal, 'row')}")
    if tally.different:
        told.append(f"not as on record, and left: {units.plural(tally.different, 'row')}")
    if tally.unread:
        told.append(f"not to be had from the bucket: {units.plural(tally.unread, 'row')}")
    if tally.bare:
        told.append(
            f"without metadata, since somebody else wrote their objects: {units.plural(tally.bare, 'row')}"
        )
    lines = [line for text in told for line in units.wrap(text, width, rest="  ")]
    for row_key, problem in tally.examples:
        lines += units.fold(
            f"{units.shown(show(row_key))} ({units.shown(problem)})", width, first="  ", rest="      "
        )
    if tally.different + tally.unread > len(tally.examples):
        lines.append(
            f"  and {units.count(tally.different + tally.unread - len(tally.examples))} more; the log names them"
        )
    if not complete:
        lines += units.wrap("stopped before the end; the same command goes on", width, rest="  ")
    elif not confirmed:
        lines += units.wrap(
            "nothing was read from the bucket and nothing written; the same command with --yes restores",
            width,
            rest="  ",
        )
    return "\n".join(lines)


def restore_word(tally: RestoreTally, *, confirmed: bool) -> str:
    """Return the result in one clause, as the last line of the log has it."""
    word = "restored" if confirmed else "looked, and wrote nothing: restore would write"
    left = tally.different + tally.unread
    return f"{word} {units.plural(tally.restored, 'row')}{f', {units.count(left)} not' if left else ''}"
