from __future__ import annotations

import pytest

from tests.source.sources import Opening


@pytest.fixture
def opening(database):
    return Opening(database.dsn)
