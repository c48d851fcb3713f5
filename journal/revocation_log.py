"""The writer's side of taking outcomes back: after a verification that found damage, and before an undo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal.appending import EventLog
from journal.entries import Revocation
from journal.errors import IllegalTransition
from journal.events import Kind, encode
from journal.lifecycle import OUTCOME_CODES, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYS_MAX = 10_000
"""Keys per event."""
_MADE_BY_US = (OUTCOME_CODES[Outcome.STORED], OUTCOME_CODES[Outcome.RECOVERED])
_REVOCABLE = {
    Revocation.REPAIR: (*_MADE_BY_US, OUTCOME_CODES[Outcome.PRESENT]),
    Revocation.UNDO: _MADE_BY_US,
}


class RevocationLog(EventLog):
    """What is no longer believed of keys that were settled."""

    def revoke(
        self, ordinals: Sequence[int], cause: Revocation, *, message: str, who: str, now_us: int
    ) -> None:
        """Take outcomes back: from here on the journal does not claim that these objects are there.

        On record before anything is done about an object. A repair makes the keys wait, to be driven again; an
        undo parks them as UNDONE. Either way they hold the safe checkpoint.

        Args:
            ordinals: keys that are stored; for a repair, present ones too.
            cause: what follows.
            message: one line, as `status` shows it beside parked keys.
            who: the operator.
            now_us: microseconds since 1970-01-01 UTC.

        Raises:
            IllegalTransition: a key has no such outcome, or is named twice; nothing changed.
        """
        self._check_usable()
        by_source: dict[int, list[int]] = {}
        for ordinal, source in self._connection.execute(
            "SELECT o.ordinal, g.source FROM json_each(?) e CROSS JOIN outcome o ON o.ordinal = e.value"
            " CROSS JOIN chunk h ON h.lo = (SELECT max(lo) FROM chunk WHERE lo <= o.ordinal)"
            " CROSS JOIN segment g ON g.id = h.segment"
            " WHERE o.code IN (SELECT value FROM json_each(?)) ORDER BY o.ordinal",
            (encode(sorted(set(ordinals))), encode(_REVOCABLE[cause])),
        ):
            by_source.setdefault(source, []).append(ordinal)
        strangers = len(ordinals) - sum(map(len, by_source.values()))
        if strangers:
            raise IllegalTransition(
                f"revoke the outcomes of {len(ordinals)} keys: {strangers} have none that a {cause.value} takes"
                " back, or are named twice"
            )
        if not by_source:
            return
        facts = {"cause": cause.value, "message": message, "who": who}
        with self._transaction():
            for source, keys in by_source.items():
                for first in range(0, len(keys), KEYS_MAX):
                    data = {"ordinals": keys[first : first + KEYS_MAX], **facts}
                    self._append(Kind.OUTCOMES_REVOKED, data, source=source, now_us=now_us)
