"""Closes what a test leaves open: a journal left to the garbage collector is a warning from Python 3.13 on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.journal import journals

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _close_journals() -> Iterator[None]:
    yield
    while journals.OPENED:
        journals.OPENED.pop().close()
