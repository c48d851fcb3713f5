"""Keys in the log as a short hash that is always the same for the same key; pure."""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from urllib.parse import quote

from daemon import rendering_units as units

UNNAMED = "[key]"
"""Stands for a key before the migration's id is known: nothing that has no journal yet needs correlation."""
PREFIX = "key#"
"""How a hashed key begins, so that it is known for one."""
_HASH_BYTES = 8
"""Sixteen hexadecimal digits: among 100 million keys two share a hash with a chance below one in a thousand."""


class Redactor:
    """Replaces keys by their hash under the migration's id, which is in no log line.

    Without the id, short keys could be found by hashing all there are.
    """

    def __init__(self, migration_id: str | None = None) -> None:
        self._salt = None if migration_id is None else migration_id.encode()

    def hashed(self, key: str) -> str:
        """Return what the log shows in place of `key`: "key#" and 16 hexadecimal digits of its HMAC-SHA-256."""
        if self._salt is None:
            return UNNAMED
        return PREFIX + hmac.digest(self._salt, key.encode(), "sha256")[:_HASH_BYTES].hex()

    def redacted(self, text: str, keys: Collection[str]) -> str:
        """Return `text` with each of `keys` hashed, in every form that messages quote keys in.

        A form that begins or ends with a letter or digit is not looked for inside longer words: key "7" must
        not spoil "57 rows".
        """
        hashes = {form: self.hashed(key) for key in keys if key for form in _forms(key)}
        if not hashes:
            return text
        # The longest first: a row key is often part of its object key.
        pattern = "|".join(_bounded(form) for form in sorted(hashes, key=len, reverse=True))
        return re.sub(pattern, lambda found: hashes[found[0]], text)


def _forms(key: str) -> set[str]:
    """Return `key` as it stands, quoted by Python, escaped for a terminal, and percent-encoded."""
    quoted = {repr(key)[1:-1], ascii(key)[1:-1]}
    escaped = {units.shown(key), units.one_line(key)}
    return {key, *quoted, *escaped, quote(key), quote(key, safe="")}


def _bounded(form: str) -> str:
    before = r"(?<!\w)" if re.match(r"\w", form) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", form) else ""
    return f"{before}{re.escape(form)}{after}"
