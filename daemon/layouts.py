"""Name the object of a row, find the row of an object, and say which names S3 servers would mangle; pure.

Every layout is injective and invertible, so no two rows share an object and a listing can be read back.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

from daemon.objects import PROBE_KEY_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.config import SourceConfig

OBJECT_KEY_BYTES_MAX = 1024
"""Longest object key in UTF-8 bytes (Amazon S3 User Guide, "Naming Amazon S3 objects")."""
TIERS_MAX = 3
"""Tiers of two characters each in front of a tiered name: the first six characters, as the layer cache has them."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How one source names its objects.

    Attributes:
        prefix: put in front as it is; usually ends in '/'.
        kind: "flat", or "tiered": `ab/cd/ef/abcdef…`, cut by characters.
        reverse: the row key is spelled backwards, which spreads keys that count upwards.
        composite: the row key is a JSON array of texts as PostgreSQL's array_to_json writes it, without
            blanks; each part is percent-encoded, '/' joins them.
    """

    prefix: str = ""
    kind: Literal["flat", "tiered"] = "flat"
    reverse: bool = False
    composite: bool = False


def layout_of(spec: SourceConfig) -> Layout:
    """Return the layout that the configuration gives a source."""
    return Layout(spec.prefix, spec.layout, spec.reverse_key, composite=len(spec.key) > 1)


def recorded_layout(identity: Mapping[str, Any]) -> Layout | None:
    """Return the layout that a source's identity in the journal tells of; None where it tells of none."""
    try:
        return Layout(
            identity["prefix"],
            identity["layout"],
            reverse=identity["reverse_key"],
            composite=len(identity["key"]) > 1,
        )
    except KeyError:
        return None


def object_key(layout: Layout, row_key: str) -> str:
    """Return the object key of the row `row_key`.

    Raises:
        ValueError: the layout is composite and `row_key` is not a JSON array of texts.
    """
    name = _joined(row_key, reverse=layout.reverse) if layout.composite else row_key
    if layout.reverse and not layout.composite:
        name = name[::-1]
    if layout.kind == "tiered":
        name = "/".join([*_tiers(name), name])
    return layout.prefix + name


def row_key_of(layout: Layout, key: str) -> str:
    """Return the row key whose object key is `key`.

    Raises:
        ValueError: no row key has this object key under `layout`.
    """
    row_key = _inverse(layout, key)
    if row_key is None or object_key(layout, row_key) != key:
        raise ValueError(f"object key {key!r} follows no row key in this layout")
    return row_key


def unusable_reason(key: str) -> str | None:  # noqa: PLR0911 -- one rule, one line
    """Say why the object key `key` can't be relied on, or return None.

    SeaweedFS merges `a//b` into `a/b` and drops a leading '/', a backslash becomes '/' there, HTTP clients
    and proxies resolve '.' and '..', a trailing '/' reads as a folder; any of these can hide or overwrite
    another row's object. What ends like the probe's object key may be it under some source's prefix, and a probe
    overwrites and deletes what is there.
    """
    if not key:
        return "the object key is empty"
    if (
        len(key) * 4 > OBJECT_KEY_BYTES_MAX
        and len(key.encode("utf-8", "surrogatepass")) > OBJECT_KEY_BYTES_MAX
    ):
        return f"the object key is longer than {OBJECT_KEY_BYTES_MAX} bytes"
    if _SUSPECT.search(key) is None:
        return None
    if _CONTROL.search(key) is not None:
        return "the object key contains a control character"
    if key.endswith(PROBE_KEY_NAME):
        return f"the object key ends with '{PROBE_KEY_NAME}', which is reserved for the probe"
    if "\\" in key:
        return "the object key contains a backslash"
    if key.startswith("/"):
        return "the object key begins with '/'"
    if key.endswith("/"):
        return "the object key ends with '/'"
    segments = key.split("/")
    if "" in segments:
        return "the object key contains '//'"
    dotted = next((segment for segment in segments if segment in {".", ".."}), None)
    return None if dotted is None else f"the object key has a segment '{dotted}'"


def suspect_row_keys_longer_than(layout: Layout) -> int:
    """Return the UTF-8 bytes up to which no row key of `layout` can make an object key too long.

    A percent-encoded byte takes three; a tier repeats two characters of at most four bytes each and adds '/'.
    """
    room = OBJECT_KEY_BYTES_MAX - len(layout.prefix.encode())
    if layout.kind == "tiered":
        room -= TIERS_MAX * 9
    return max(0, room // 3 if layout.composite else room)


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SUSPECT = re.compile("[\x00-\x1f\x7f-\x9f\\\\]|^/|/$|//|^\\.|/\\.|" + re.escape(PROBE_KEY_NAME) + "$")


def _tiers(name: str) -> list[str]:
    """Return the tiers: six characters make three, four or five two, two or three one, fewer none.

    A tier never brings a segment of its own that a server would merge away: '/' and '..' become underscores.
    """
    if len(name) >= 2 * TIERS_MAX and name[: 2 * TIERS_MAX].isalnum():
        # Nearly every name, and reports make millions of them.
        return [name[:2], name[2:4], name[4:6]]
    cut = (name[at : at + 2] for at in range(0, 2 * min(TIERS_MAX, len(name) // 2), 2))
    return ["__" if tier == ".." else tier.replace("/", "_") for tier in cut]


def _joined(row_key: str, *, reverse: bool) -> str:
    parts = json.loads(row_key)
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"row key {row_key!r} of a composite key, expected a JSON array of texts")
    if reverse:
        parts = [part[::-1] for part in reversed(parts)]
    return "/".join(map(_encoded, parts))


def _encoded(part: str) -> str:
    if part in {".", ".."}:
        return part.replace(".", "%2E")
    return quote(part, safe="")


def _inverse(layout: Layout, key: str) -> str | None:
    """Return the only row key that may lead to `key`; the caller proves it by going forward again."""
    if not key.startswith(layout.prefix):
        return None
    name = key[len(layout.prefix) :]
    if layout.kind == "tiered":
        # The tiers' number follows from the name's length, so the whole length tells where the name begins.
        lengths = (len(name) - 3 * tiers for tiers in range(TIERS_MAX + 1))
        length = next((n for n in lengths if n >= 0 and n + 3 * min(TIERS_MAX, n // 2) == len(name)), None)
        if length is None:
            return None
        name = name[len(name) - length :]
    if not layout.composite:
        return name[::-1] if layout.reverse else name
    parts = [unquote(part, errors="strict") for part in name.split("/")]
    if layout.reverse:
        parts = [part[::-1] for part in reversed(parts)]
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
