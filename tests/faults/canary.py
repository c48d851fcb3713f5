"""Search what a test left behind for secrets: every file of its directory, whatever it holds, and texts besides."""

from __future__ import annotations

import base64
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

SECRET_CHARACTERS_MIN = 8
"""A shorter one would be found by chance."""
_PIECE_BYTES = 1 << 20


def leaks(
    directory: Path,
    secrets: Collection[str],
    texts: Mapping[str, str | bytes] | None = None,
    *,
    spared: Collection[str] = ("*.toml",),
) -> list[str]:
    """Return where which secret stands, as "place: secret no. N"; never the secret itself.

    A secret is looked for as it is, percent-encoded and in base64, in the raw bytes of all files below `directory`:
    pages that SQLite has freed, its -wal, core files and logs alike.

    Args:
        directory: the test's own.
        secrets: what must be nowhere.
        texts: further places, such as what was printed.
        spared: patterns of files that may hold secrets: the configuration.
    """
    forms = [(number, form) for number, secret in enumerate(secrets, start=1) for form in _forms(secret)]
    longest = max((len(form) for _, form in forms), default=1)
    found: list[str] = []
    for name, text in (texts or {}).items():
        found += _found_in(
            name, [text if isinstance(text, bytes) else text.encode(errors="surrogateescape")], forms
        )
    for path in sorted(directory.rglob("*")):
        if stat.S_ISREG(path.lstat().st_mode) and not any(path.match(pattern) for pattern in spared):
            found += _found_in(str(path.relative_to(directory)), _pieces(path, longest - 1), forms)
    return found


def _forms(secret: str) -> set[bytes]:
    assert len(secret) >= SECRET_CHARACTERS_MIN, "the search would find such a short secret by chance"
    encoded = secret.encode()
    # Of three alignments in a longer text only that of the text's start is known; the other two lose its ends.
    aligned = {base64.b64encode(b"\0" * shift + encoded)[4 if shift else 0 : -4] for shift in range(3)}
    return {encoded, quote(secret, safe="").encode(), *aligned}


def _pieces(path: Path, overlap: int) -> Iterator[bytes]:
    """Read a file piece by piece, each beginning with the end of the last one."""
    with path.open("rb") as file:
        kept = b""
        while piece := file.read(_PIECE_BYTES):
            yield kept + piece
            kept = (kept + piece)[-overlap:] if overlap else b""


def _found_in(place: str, pieces: Iterator[bytes] | list[bytes], forms: list[tuple[int, bytes]]) -> list[str]:
    numbers = {number for piece in pieces for number, form in forms if form in piece}
    return [f"{place}: secret no. {number}" for number in sorted(numbers)]
