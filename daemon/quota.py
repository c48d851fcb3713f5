"""How much a session may still claim: a number of keys, a number of bytes; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from journal.entries import ClaimedKey


@dataclass
class Quota:
    """Counts what is claimed against the session's limits; one for all sources and all rounds of copying.

    Attributes:
        keys_max: `limits.limit`; None: any number.
        bytes_max: `limits.max_bytes`, by planned sizes; None: any number. One key is claimed however large.
        keys, size: claimed so far; bytes.
        spent: the limit that lets nothing more be claimed, in the words of the configuration; None while none does.
    """

    keys_max: int | None = None
    bytes_max: int | None = None
    keys: int = field(default=0, init=False)
    size: int = field(default=0, init=False)
    spent: str | None = field(default=None, init=False)

    @property
    def keys_left(self) -> int | None:
        """How many keys may still be claimed; None: any number."""
        return None if self.keys_max is None else self.keys_max - self.keys

    @property
    def bytes_left(self) -> int | None:
        """How many bytes may still be claimed; None: any number, and as long as nothing is claimed, one key's."""
        return None if self.bytes_max is None else max(0, self.bytes_max - self.size)

    def claimed(self, keys: Iterable[ClaimedKey]) -> None:
        """Count what was claimed."""
        for key in keys:
            self.keys += 1
            self.size += key.size
        if self.keys_max is not None and self.keys >= self.keys_max:
            self.spent = f"limit = {self.keys_max}"

    def too_large(self) -> None:
        """Note that the next key would pass `bytes_max`."""
        self.spent = f"max_bytes = {self.bytes_max}"
