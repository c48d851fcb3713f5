"""Whole migrations by seed; see `simulation.py` for what one is, `checker.py` for what must hold."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.simulation.expected import EXPECTED, SEEDS_MIN, TIMES_MIN
from tests.simulation.simulation import Simulation, simulated
from tests.simulation.weather import THEMES
from tests.simulation.worlds import make_world

MEMORY = Path("/dev/shm")


@pytest.fixture
def directories():
    """Returns a new directory, in memory where there is one; all are gone when the test ends."""
    base = Path(mkdtemp(dir=MEMORY if MEMORY.is_dir() else None, prefix="simulation-"))

    def directory(name: object) -> Path:
        made = base / str(name)
        made.mkdir()
        return made

    yield directory
    shutil.rmtree(base)


@pytest.fixture
def shared(tmp_path_factory, worker_id):
    """The directory that all test processes of a run share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.mark.timeout(600)
def test_migrations_survive_weather_and_deaths(seeds, all_seeds, directories, shared):
    reached: Counter[str] = Counter()
    for seed in seeds:
        simulation = Simulation(make_world(seed, directories(seed) / "journal.db"))
        try:
            simulated(simulation)
        except BaseException as error:
            trace = shared / f"trace-of-seed-{seed}.txt"
            trace.write_text("\n".join([*simulation.trace, ""]), encoding="utf-8")
            error.add_note(
                f"replay: python -m pytest tests/simulation/test_simulation.py -k survive --from {seed} --seeds 1\n"
                f"what happened until then: {trace}"
            )
            raise
        shutil.rmtree(simulation.disk.path.parent)
        reached += simulation.reached
    done, total = _add_up(shared / "simulation.json", len(seeds), reached)
    if done == all_seeds >= SEEDS_MIN:
        rare = {what: total[what] for what in EXPECTED if total[what] < TIMES_MIN}
        assert not rare, f"hardly ever happened in {done} seeds"


def test_so_many_seeds_show_whether_every_kind_of_fault_and_state_is_met(all_seeds):
    """The test that runs the last of the seeds asserts it."""
    if all_seeds < SEEDS_MIN:
        pytest.skip(
            f"NOT TESTED: whether every kind of fault and state is met, that takes --seeds {SEEDS_MIN}"
        )


def _add_up(path: Path, seeds: int, reached: Counter[str]) -> tuple[int, Counter[str]]:
    """Add to the tally that all test processes share; return it."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = json.loads(file.read() or '{"seeds": 0, "reached": {}}')
        done, total = before["seeds"] + seeds, Counter(before["reached"]) + reached
        file.truncate(0)
        file.write(json.dumps({"seeds": done, "reached": total}))
    return done, total


@pytest.mark.parametrize("seed", range(16))
def test_a_seed_is_one_run(seed, directories):
    traces = []
    for attempt in ("first", "second"):
        simulation = Simulation(make_world(seed, directories(attempt) / "journal.db"))
        simulated(simulation)
        traces.append(simulation.trace)
    assert len(traces[0]) > 20
    assert traces[0] == traces[1]


def test_these_seeds_have_every_theme():
    assert len(THEMES) == 16


def test_another_seed_is_another_run(tmp_path):
    assert make_world(1, tmp_path).rows != make_world(2, tmp_path).rows


def test_the_order_of_tasks_follows_the_seed():
    """Guards the private names of trio on which all of this rests."""
    import trio

    from tests.simulation.deterministic import run

    def order(seed: int) -> list[int]:
        found: list[int] = []

        async def main() -> None:
            async def one(number: int) -> None:
                await trio.lowlevel.checkpoint()
                found.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(one, number)

        run(seed, main)
        return found

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(8)}) > 1


def test_a_simulation_begins_alive(tmp_path):
    assert not Simulation(make_world(1, tmp_path / "journal.db")).dead
