"""A migration between fakes, in virtual time: brought to a state, its files damaged, then run on and judged.

The product's own journal, planner, pipeline, recovery, verification and check; milliseconds instead of seconds a run.
"""

from __future__ import annotations

import copy
import hashlib
import random
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import trio

import daemon.passes
import daemon.recorder
from daemon.comparing import TierName
from daemon.errors import BackfillError, ExitCode
from daemon.layouts import layout_of
from daemon.requesting import RequestPolicy
from daemon.tier_list import ListTier
from daemon.tiers import VerifiedSource
from daemon.verifying import Step, Verifier
from journal import maintenance
from journal.appending import _abandoned
from journal.errors import JournalError
from journal.reader import Reader
from tests.faults import raw_journal
from tests.pipeline.rig import CUTOFF_US, Rig
from tests.simulation.crashing import Crashed, SimulatedJournal, journal_in, unsynced
from tests.simulation.deterministic import run

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from daemon.ends import TargetEnd
    from daemon.migration import Ended, Migration
    from daemon.recorder import Recorder

ROWS = 500
GROUP = 10
"""Outcomes of one commit, and so events enough for a tree of pages."""
CHUNK = 100
SECONDS_MAX = 120.0
"""Virtual time of a session; an undamaged one takes a few seconds."""


@dataclass
class State:
    """A migration as it was found: its files, and what was in the bucket."""

    files: dict[str, bytes]
    buckets: dict[str, Any]


@dataclass
class Judged:
    """What became of a damaged journal.

    Attributes:
        exit_code: the run's; None where the journal was refused.
        refusals: what it was refused with.
        mismatch: `verify` found one.
        problems: what `journal check` says afterwards.
        harm: what nothing of that reported, and is wrong; empty if nothing is.
    """

    exit_code: ExitCode | None = None
    refusals: list[JournalError | BackfillError] = field(default_factory=list)
    mismatch: bool = False
    problems: list[str] = field(default_factory=list)
    harm: str = ""

    @property
    def verdict(self) -> str:
        """Who noticed, if anybody."""
        if self.refusals:
            return "refused"
        if self.mismatch or self.problems:
            return "verify or check"
        return "harmless"


class VerifiedRig(Rig):
    """Runs the migration, then `verify` over the listing, as `run --verify` does."""

    mismatch = False

    async def work(self, migration: Migration, recorder: Recorder, target: TargetEnd) -> Ended:
        ended = await migration.run(target)
        if ended.exit_code is ExitCode.DONE:
            self.mismatch = await self._mismatch(recorder, target)
        return ended

    async def _mismatch(self, recorder: Recorder, target: TargetEnd) -> bool:
        journal = recorder.journal
        counts = journal.counts()
        sources = [
            VerifiedSource(
                journal.sources[spec.name].id, spec.name, spec.bucket, layout_of(spec), counts[spec.name]
            )
            for spec in self.sources
        ]
        policy = RequestPolicy(3, 60.0, random.Random(1))
        with Reader.open(journal.path) as reader:
            tiers = {TierName.LIST: lambda: ListTier(journal.path, target, journal.latest, policy)}
            verifier = Verifier(
                recorder, reader, sources, tiers, random.Random(1), extra_fails=True, who="operator"
            )
            results = await verifier.verify([Step(TierName.LIST)])
        return any(result.exit_code for result in results)


class Dying:
    """The process that dies right after one of its commits, and checkpoints after others."""

    def __init__(
        self, directory: Path, *, dies_after: int | None, checkpoints_after: Collection[int]
    ) -> None:
        self.dead = self.broken = False
        self.files: dict[str, bytes] = {}
        self._directory = directory
        self._dies_after = dies_after
        self._checkpoints_after = checkpoints_after
        self._commits = 0

    def before_commit(self) -> None:
        """Nothing befalls it here."""

    def after_commit(self, connection: sqlite3.Connection) -> None:
        self._commits += 1
        if self._commits in self._checkpoints_after:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if self._commits == self._dies_after:
            self.files = files_in(self._directory)
            self.dead = True
            raise Crashed


def files_in(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.glob("journal.db*") if file.suffix != ".lock"}


def rig_in(directory: Path) -> VerifiedRig:
    rig = VerifiedRig(directory)
    for number in range(ROWS):
        rig.table.insert(
            f"k{number:05}", CUTOFF_US - 1000 - number // 3, (b"%d " % number) * (1 + number % 5)
        )
    return rig


def brought_to(
    directory: Path, *, dies_after: int | None = None, checkpoints_after: Collection[int] = ()
) -> State:
    """Run a migration until it dies, or to its end."""
    directory.mkdir()
    rig = rig_in(directory)
    process = Dying(directory, dies_after=dies_after, checkpoints_after=checkpoints_after)
    opened: list[SimulatedJournal] = []

    class Remembered(journal_in(process)):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            opened.append(self)

    async def session() -> None:
        try:
            with unsynced():
                await rig.session(journal_kind=Remembered)
        except BaseException:
            if not process.dead:
                raise

    with scaled():
        run(1, session)
    for journal in opened:
        if process.dead:
            journal.vanish()
    found = State(process.files if process.dead else files_in(directory), copy.deepcopy(rig.fake.buckets))
    shutil.rmtree(directory)
    return found


@contextmanager
def scaled() -> Iterator[None]:
    """Make the program's batches small, for as long as the block lasts."""
    with (
        patch.object(daemon.recorder, "GROUP_MAX", GROUP),
        patch.object(daemon.passes, "CHUNK_KEYS_MAX", CHUNK),
    ):
        yield


def judged(directory: Path, state: State, files: dict[str, bytes]) -> Judged:
    """Run on with `files` in place of the state's own, verify, check, and compare bucket, table and log.

    Raises:
        Exception: whatever would be a traceback to an operator.
    """
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    rig = rig_in(directory)
    rig.fake.buckets = copy.deepcopy(state.buckets)
    found = Judged()
    objects: dict[str, bytes] = {}

    async def session() -> None:
        try:
            # A run that waits for what will not come (a cutoff that became one of another century) is ended here.
            with unsynced(), trio.move_on_after(SECONDS_MAX):
                found.exit_code = (await rig.session()).exit_code
        except* (JournalError, BackfillError) as group:
            found.refusals = leaves(group)
        objects.update(rig.objects())

    with scaled():
        run(2, session)
    # What failed is left open until its process ends, as which this stands for.
    while _abandoned:
        _abandoned.pop().close()
    found.mismatch = rig.mismatch
    try:
        found.problems = maintenance.check(rig.journal_path)
    except JournalError as error:
        found.problems = [error.problem]
    found.harm = harm(rig, objects, found)
    shutil.rmtree(directory)
    return found


def leaves(group: BaseExceptionGroup[JournalError | BackfillError]) -> list[JournalError | BackfillError]:
    found: list[JournalError | BackfillError] = []
    for one in group.exceptions:
        found += leaves(one) if isinstance(one, BaseExceptionGroup) else [one]
    return found


def harm(rig: VerifiedRig, objects: dict[str, bytes], found: Judged) -> str:
    """Say what is wrong that nobody noticed; an object that differs from its row is wrong in any case."""
    expected = {f"t/{version.key}": version.value for version in rig.table.versions()}
    wrong = sorted(key for key, body in objects.items() if expected.get(key) != body)
    if wrong:
        return f"objects that no row has: {wrong[:3]}"
    if found.verdict != "harmless":
        return ""
    if found.exit_code is not ExitCode.DONE or objects != expected:
        return f"exit code {found.exit_code} with {len(objects)} objects of {len(expected)}"
    ledger = raw_journal.read(rig.journal_path)
    for ordinal, outcome in ledger.stored().items():
        body = objects.get(f"t/{ledger.plan[ordinal].row_key}", b"")
        if hashlib.md5(body, usedforsecurity=False).hexdigest() != outcome.md5:
            return f"{ledger.plan[ordinal]} is settled as {outcome}, and the object has {len(body)} bytes"
    unsettled = set(ledger.plan) - set(ledger.outcomes)
    return f"unsettled: {sorted(unsettled)[:3]}" if unsettled else ""
