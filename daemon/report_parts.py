"""Small pieces of a report's page: a section, a table, what is not told; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def section(title: str, body: str) -> str:
    """Return a section of the page; nothing where there is no body."""
    return f'<section class="sheet"><h2>{title}</h2>{body}</section>' if body else ""


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, texts: Sequence[int] = (), last: str = ""
) -> str:
    """Return a table; the first cell of a row is its head, `texts` are columns of words, `last` a class of the last row."""
    head = "".join(f'<th scope="col"{_words(at in texts)}>{name}</th>' for at, name in enumerate(heads))
    drawn = []
    listed = list(rows)
    for number, row in enumerate(listed):
        cells = "".join(
            f'<th scope="row"{_words(at in texts)}>{cell}</th>'
            if at == 0
            else f"<td{_words(at in texts)}>{cell}</td>"
            for at, cell in enumerate(row)
        )
        style = f' class="{last}"' if last and number == len(listed) - 1 else ""
        drawn.append(f"<tr{style}>{cells}</tr>")
    if not drawn:
        return ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(drawn)}</tbody></table></div>'


def _words(wanted: bool) -> str:  # noqa: FBT001 -- a flag of a cell
    return ' class="text"' if wanted else ""


def more(number: int, noun: str) -> str:
    """Return how many more there are; nothing where there are none."""
    return (
        f'<p class="none">and {units.plural(number, noun, noun + ("es" if noun.endswith("s") else "s"))} more</p>'
        if number > 0
        else ""
    )
