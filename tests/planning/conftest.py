from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from journal.staging import Stage
from tests.planning.stages import IDENTITY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def stage(journal: Path) -> Iterator[Stage]:
    with closing(Stage.create(journal, IDENTITY, memo="why")) as created:
        yield created
