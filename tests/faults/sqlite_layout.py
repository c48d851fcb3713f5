"""Where things lie in the files of an SQLite database: by the file format's documentation, nothing of SQLite is used.

What `regions` and `wal_regions` return are the offset classes of the tests of damage: every byte of the file is in one.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 4096
FILE_HEADER = 100
WAL_HEADER = 32
FRAME_HEADER = 24
FRAME = FRAME_HEADER + PAGE

_INTERIOR = {2: 12, 5: 12}
_LEAF = {10: 8, 13: 8}
_TREE_HEADERS = _INTERIOR | _LEAF

Regions = dict[str, list[range]]


def regions(content: bytes, roots: dict[str, int]) -> Regions:
    """Return the offsets of each class: of a table's or index's pages by name, kind and part; the rest by what it is.

    Args:
        content: the database, without any WAL.
        roots: root page by name, as `sqlite_schema` has them.
    """
    found: Regions = defaultdict(list)
    found["file header"].append(range(FILE_HEADER))
    owners = {1: "schema"}
    for name, root in roots.items():
        owners |= dict.fromkeys(_tree(content, root), name)
    for number in range(1, len(content) // PAGE + 1):
        if number not in owners:
            found["free or overflow page"].append(_page(number))
            continue
        for part, where in _parts(content, number):
            found[f"{owners[number]} {part}"].append(where)
    return found


def wal_regions(content: bytes) -> Regions:
    """Return the offsets of each class in a WAL; of the first frame, a middle one and the last, and of all others."""
    frames = (len(content) - WAL_HEADER) // FRAME
    found: Regions = {
        "WAL magic and version": [range(8)],
        "WAL page size and sequence": [range(8, 16)],
        "WAL salts": [range(16, 24)],
        "WAL checksum": [range(24, WAL_HEADER)],
    }
    named = {0: "first", frames // 2: "middle", frames - 1: "last"}
    for number in range(frames):
        at = WAL_HEADER + number * FRAME
        which = named.get(number, "another")
        for part, begin, end in (
            ("frame's page and size", 0, 8),
            ("frame's salts", 8, 16),
            ("frame's checksum", 16, FRAME_HEADER),
            ("frame's payload", FRAME_HEADER, FRAME),
        ):
            found.setdefault(f"{which} {part}", []).append(range(at + begin, at + end))
    return found


def _tree(content: bytes, root: int) -> Iterator[int]:
    yield root
    at = (root - 1) * PAGE
    header = at + (FILE_HEADER if root == 1 else 0)
    if content[header] not in _INTERIOR:
        return
    (cells,) = struct.unpack_from(">H", content, header + 3)
    pointers = struct.unpack_from(f">{cells}H", content, header + 12)
    children = [struct.unpack_from(">I", content, at + pointer)[0] for pointer in pointers]
    for child in [*children, struct.unpack_from(">I", content, header + 8)[0]]:
        yield from _tree(content, child)


def _parts(content: bytes, number: int) -> Iterator[tuple[str, range]]:
    page = _page(number)
    begin = page.start + (FILE_HEADER if number == 1 else 0)
    kind = content[begin]
    size = _TREE_HEADERS[kind]
    (cells, cells_begin) = struct.unpack_from(">HH", content, begin + 3)
    pointers = begin + size
    gap = pointers + 2 * cells
    name = "interior" if kind in _INTERIOR else "leaf"
    yield f"{name} header", range(begin, pointers)
    if cells:
        yield f"{name} pointers", range(pointers, gap)
        yield f"{name} cells", range(page.start + cells_begin, page.stop)
    if gap < page.start + cells_begin:
        yield f"{name} gap", range(gap, page.start + cells_begin)


def _page(number: int) -> range:
    return range((number - 1) * PAGE, number * PAGE)
