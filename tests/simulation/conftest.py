"""Cuts the seeds of a run into tests: `--seeds 10000 --from 2000` for a long night."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from daemon.allocation import collect_less_often

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS_PER_TEST = 50
"""About ten seconds each, so that both cores end at about the same time."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" not in metafunc.fixturenames:
        return
    count, first = metafunc.config.getoption("seeds"), metafunc.config.getoption("from")
    chunks = [
        range(start, min(start + SEEDS_PER_TEST, first + count))
        for start in range(first, first + count, SEEDS_PER_TEST)
    ]
    metafunc.parametrize("seeds", chunks, ids=[f"{chunk.start}-{chunk.stop - 1}" for chunk in chunks])


@pytest.fixture
def all_seeds(request: pytest.FixtureRequest) -> int:
    """How many seeds the run has in all."""
    return int(request.config.getoption("seeds"))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep the log still, which tells of each of thousands of things, and the garbage collector as `run` sets it."""
    collect_less_often()
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
