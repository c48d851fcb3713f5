"""What the coordinator and its upload processes tell each other: plain values, pickled."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from daemon.causes import Cause
from daemon.config import Config
from daemon.controls import Hold
from daemon.errors import ExitCode
from daemon.rows import ServerFacts, TableFacts
from daemon.signing import Credentials
from daemon.uploader import Destination
from journal.entries import AttemptFailed, ClaimedKey, Parked, Settled


@dataclass(frozen=True, slots=True)
class Allowance:
    """One process's share of what a session may do at this moment.

    Attributes:
        concurrency: uploads at once.
        holds: the throttles in force.
    """

    concurrency: int
    holds: tuple[Hold, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to a process: all that it needs to know.

    Attributes:
        connections: fetches at once, each over a connection of its own.
        ids, tables, destinations: of each source, by its name.
        server: the one that every connection must reach.
    """

    config: Config
    migration_id: str
    connections: int
    ids: Mapping[str, int]
    tables: Mapping[str, TableFacts]
    destinations: Mapping[str, Destination]
    server: ServerFacts


@dataclass(frozen=True, slots=True)
class Work:
    """A batch of claimed keys of one source; as `fetching.Batch`."""

    source: int
    keys: Sequence[ClaimedKey]
    replacing: Collection[int]


@dataclass(frozen=True, slots=True)
class Stopping:
    """The session drains: nothing more is fetched."""

    cause: str


@dataclass(frozen=True, slots=True)
class Renewed:
    """Sign with these from now on."""

    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Granted:
    """The request of this number has what it asked for; with it, credentials if those were asked for."""

    number: int
    credentials: Credentials | None = None


@dataclass(frozen=True, slots=True)
class NoMoreWork:
    """There will be no more batches: end once all keys have an outcome."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The last batch is being fetched: another one may come."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """Asks for room for `size` bytes of values in memory."""

    number: int
    size: int


@dataclass(frozen=True, slots=True)
class Admit:
    """Asks that a fetch of so many rows and bytes may begin."""

    number: int
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class Refresh:
    """Asks for other credentials than those that were refused."""

    number: int
    refused: Credentials | None


@dataclass(frozen=True, slots=True)
class Released:
    """So many bytes of values have left memory."""

    size: int


@dataclass(frozen=True, slots=True)
class Served:
    """How many uploads were served since the last word, beside as many others as were allowed; and are under way."""

    number: int
    under_way: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What a process is at, and what its instruments have counted since it last said so.

    Attributes:
        doing: tasks by cause.
        requests: by operation, counts by class and the sum of seconds (`Histogram.take`).
    """

    doing: Mapping[Cause, int]
    requests: Mapping[str, tuple[Sequence[int], float]]


@dataclass(frozen=True, slots=True)
class Logged:
    """A line of the log, to be told by the coordinator."""

    record: logging.LogRecord


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing more can succeed: the session is to halt."""

    problem: str
    hint: str
    exit_code: ExitCode
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The last message of a process that ended as it should."""


Outcome: TypeAlias = Settled | Parked | AttemptFailed
ToProcess: TypeAlias = Start | Work | Allowance | Stopping | Renewed | Granted | NoMoreWork
ToCoordinator: TypeAlias = (
    Ready | Outcome | Reserve | Admit | Refresh | Released | Served | Measured | Logged | Failed | Finished
)
