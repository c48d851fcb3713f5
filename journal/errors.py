"""What can go wrong with a journal, as the operator meets it: a problem and a hint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RESTORE_BACKUP = (
    "restore a backup: name the copy in migration.journal, or move the journal and its -wal and -shm away first"
    " and put the copy in its place"
)
"""The hint where only a backup helps. Beside an old -wal a copy would not stay the copy: SQLite replays that."""


class JournalError(Exception):
    """A failure of the journal: what was tried on what, expected and found, then what helps.

    Attributes:
        problem: lower case, no final stop, never a secret.
        hint: the command or config key that helps; may be empty.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}\n  hint: {self.hint}" if self.hint else self.problem


class JournalMissing(JournalError):  # noqa: N818 -- the name is the message
    """There is no journal at the path given."""


class JournalExists(JournalError):  # noqa: N818
    """A journal is to be created where a file is already."""


class JournalLocked(JournalError):  # noqa: N818
    """Another process holds the journal's lock; `owner` says which, for display only."""

    def __init__(self, problem: str, hint: str = "", *, owner: str = "unknown") -> None:
        super().__init__(problem, hint)
        self.owner = owner


class JournalCorrupt(JournalError):  # noqa: N818
    """The file contradicts itself: chain, hash of a plan chunk, guards, or SQLite's own structure."""


class ManifestUnfit(JournalError):  # noqa: N818
    """What was named as the manifest of an earlier report is none."""


class JournalNewer(JournalError):  # noqa: N818
    """The journal's schema is newer than this program."""


class JournalOutdated(JournalError):  # noqa: N818
    """The journal's schema is older than this program, and this command only reads."""


class JournalFull(JournalError):  # noqa: N818
    """The disk is full; the transaction was rolled back, nothing was recorded, the caller keeps its batch."""


class JournalFailed(JournalError):  # noqa: N818
    """The disk failed; in mid-run the last commit's outcome is unknown, and every later call is refused."""


class JournalOnNetworkFilesystem(JournalError):  # noqa: N818
    """The journal lies on a file system whose locks and shared memory can't be trusted."""


class IllegalTransition(JournalError):  # noqa: N818
    """A call contradicts the life of a key, a pass or a session; nothing has changed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of a source's identity in which the configuration contradicts the journal.

    Attributes:
        source: the source's name.
        field: the field of the fingerprint; "source" where the whole source is missing.
        recorded: what the journal holds, as text.
        configured: what the configuration says, as text.
    """

    source: str
    field: str
    recorded: str
    configured: str

    def __str__(self) -> str:
        return f"{self.source}.{self.field}: journal has {self.recorded}, config has {self.configured}"


class IdentityMismatch(JournalError):  # noqa: N818
    """The configuration describes another migration than the one on record."""

    def __init__(self, differences: Sequence[Difference]) -> None:
        lines = "\n".join(f"  {difference}" for difference in differences)
        super().__init__(
            f"this journal belongs to another migration than the configuration describes:\n{lines}",
            "restore the recorded settings, or give the new migration a journal of its own (migration.journal)",
        )
        self.differences = list(differences)
