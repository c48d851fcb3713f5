"""How many seeds, and from which on: `--sim-seeds 10000 --sim-from 200` for a long night."""

from __future__ import annotations

import pytest

SEEDS = 200
SEEDS_PER_TEST = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--sim-seeds", type=int, default=SEEDS, help=f"how many seeds to simulate ({SEEDS})")
    group.addoption("--sim-from", type=int, default=0, help="the first seed (0)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" not in metafunc.fixturenames:
        return
    # Where this file is loaded late (a run of the whole suite), its options are not known.
    count = metafunc.config.getoption("sim_seeds", SEEDS)
    first = metafunc.config.getoption("sim_from", 0)
    chunks = [
        range(start, min(start + SEEDS_PER_TEST, first + count))
        for start in range(first, first + count, SEEDS_PER_TEST)
    ]
    names = [f"{chunk.start}-{chunk.stop - 1}" for chunk in chunks]
    metafunc.parametrize("seeds", chunks, ids=names)


@pytest.fixture
def all_seeds(request: pytest.FixtureRequest) -> int:
    """How many seeds the run has in all."""
    return int(request.config.getoption("sim_seeds", SEEDS))
