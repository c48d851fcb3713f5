"""A migration that tells when an uploader lets go of a value."""

from __future__ import annotations

from typing import Any

from daemon.ends import TargetEnd
from daemon.migration import Migration
from daemon.rows import FetchedRow
from daemon.uploader import Destination, Uploader
from journal.entries import Parked, Settled


class MeasuredUploader(Uploader):
    """Counts a value as held from its fetch until its copy ends."""

    source: Any

    async def copy(
        self, ordinal: int, destination: Destination, key: str, row: FetchedRow, *, replacing: bool = False
    ) -> Settled | Parked:
        try:
            return await super().copy(ordinal, destination, key, row, replacing=replacing)
        finally:
            self.source.held -= row.size


class MeasuredMigration(Migration):
    """Uses measured uploaders."""

    def _uploader(self, target: TargetEnd) -> Uploader:
        uploader = super()._uploader(target)
        measured = MeasuredUploader.__new__(MeasuredUploader)
        measured.__dict__.update(uploader.__dict__)
        measured.source = self._source
        return measured
