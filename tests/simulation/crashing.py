"""A journal whose process can die at a commit, and whose every commit is told to an observer."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol
from unittest.mock import patch

import journal.appending
import journal.log
import journal.staging
from journal.log import Journal
from journal.stage_file import stage_path
from tests.simulation.observer import ensure

if TYPE_CHECKING:
    from collections.abc import Iterator


class Crashed(BaseException):
    """The process is dead; whatever it still tries raises this again. No Exception: nothing may handle it."""


class Process(Protocol):
    """What a journal must know of the process that it lives in.

    Attributes:
        dead: it makes no call any more.
        broken: the journal's disk has failed: it makes no call of SQLite any more.
    """

    dead: bool
    broken: bool

    def touched_when_broken(self, statement: str) -> None:
        """Note a statement that came all the same."""

    def ends_broken(self) -> None:
        """The process is about to end, and its files are still as it left them."""

    def before_commit(self) -> None:
        """May raise: the transaction is lost."""

    def after_commit(self, connection: sqlite3.Connection) -> None:
        """Look at what is on disk now; may raise: it is there, and the process never learnt."""


class SimulatedJournal(Journal):
    """Refuses every call of a dead process, so that no cleanup writes what SIGKILL would have lost."""

    process: ClassVar[Process]

    def _check_usable(self) -> None:
        if self.process.dead:
            raise Crashed
        super()._check_usable()

    def _commit(self) -> None:
        if self.process.dead:
            raise Crashed
        try:
            self.process.before_commit()
            super()._commit()
            self.process.after_commit(self._connection)
        finally:
            if self.process.broken:
                self._connection.set_trace_callback(self.process.touched_when_broken)

    def close(self) -> None:
        if self.process.broken:
            self._connection.set_trace_callback(None)
            self.process.ends_broken()
        if self.process.dead or self.process.broken:
            self.vanish()
        else:
            super().close()

    def vanish(self) -> None:
        """Give back what the kernel would: the lock and all descriptors."""
        abandoned = journal.appending._abandoned
        abandoned[:] = [connection for connection in abandoned if connection is not self._connection]
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        self._lock.release()


@contextlib.contextmanager
def unsynced() -> Iterator[None]:
    """Let SQLite not wait for the disk: a dying process loses nothing that it gave to the kernel."""
    prepare, stage = journal.log.prepare_writer, journal.staging.connect

    def prepared(connection: sqlite3.Connection, path: Path) -> None:
        prepare(connection, path)
        connection.execute("PRAGMA synchronous = OFF")

    def staged(path: Path) -> sqlite3.Connection:
        connection = stage(path)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    with (
        patch.object(journal.log, "prepare_writer", prepared),
        patch.object(journal.staging, "connect", staged),
        patch.object(journal.log, "sync_directory", lambda _path: None),
    ):
        yield


def journal_in(process: Process) -> type[SimulatedJournal]:
    """Return the class of journals that live in `process`."""
    return type("JournalInProcess", (SimulatedJournal,), {"process": process})


class Disk:
    """The files of one journal, frozen at the moment of a crash and thawed after it.

    Closing the dead process's SQLite connection would checkpoint the WAL, which SIGKILL does not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._frozen = path.parent / "frozen"
        self._frozen.mkdir()

    def freeze(self) -> None:
        for file in self._files():
            shutil.copyfile(file, self._frozen / file.name)

    def ensure_untouched(self) -> None:
        """Check that nothing was written since the files were frozen."""
        for file in self._frozen.iterdir():
            if file.name in {self.path.name, self.path.name + "-wal"}:
                same = file.read_bytes() == (self.path.parent / file.name).read_bytes()
                ensure(same, f"{file.name} was written to after an I/O error")

    def thaw(self) -> None:
        for file in self._files():
            file.unlink()
        self.path.with_name(self.path.name + "-shm").unlink(missing_ok=True)
        for file in self._frozen.iterdir():
            file.rename(self.path.parent / file.name)

    def lose_stage(self) -> bool:
        """Delete the stage, as an operator who needs the space would; tell whether there was one."""
        stage = stage_path(self.path)
        there = stage.exists()
        stage.unlink(missing_ok=True)
        stage.with_name(stage.name + "-journal").unlink(missing_ok=True)
        return there

    @contextlib.contextmanager
    def copied(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection of our own to a copy, so that looking changes nothing."""
        copy = self.path.parent / "copy.db"
        for suffix in ("", "-wal"):
            source = self.path.with_name(self.path.name + suffix)
            if source.exists():
                shutil.copyfile(source, copy.with_name(copy.name + suffix))
        connection = sqlite3.connect(copy)
        try:
            yield connection
        finally:
            connection.close()
            for suffix in ("", "-wal", "-shm"):
                copy.with_name(copy.name + suffix).unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        stage = stage_path(self.path)
        candidates = [
            self.path,
            self.path.with_name(self.path.name + "-wal"),
            stage,
            stage.with_name(stage.name + "-journal"),
        ]
        return [file for file in candidates if file.exists()]
