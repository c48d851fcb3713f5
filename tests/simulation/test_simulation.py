"""Whole migrations by seed; see `simulation.py` for what one is, `checker.py` for what must hold."""

from __future__ import annotations

import fcntl
import json
import logging
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.simulation import Simulation, simulate
from tests.simulation.worlds import make_world

EXPECTED = (
    *("outcome stored", "outcome recovered", "outcome present", "outcome skipped", "outcome vanished"),
    *("death before commit", "death after commit", "death step", "death answer", "death by poison"),
    *(
        "s3 storm",
        "s3 500",
        "s3 409",
        "s3 403",
        "s3 lost response",
        "s3 dropped request",
        "s3 slow",
        "s3 late",
    ),
    *("s3 truncated answer", "s3 garbage", "s3 flipped bit", "s3 rot"),
    *("FETCH timeout", "FETCH connection", "FETCH server", "SCAN timeout", "SCAN connection", "SCAN server"),
    *("postgres unreachable", "disk full", "stage lost", "drain", "cancel", "requeued"),
    *("pause", "set", "hold", "requeued live"),
    *("table insert", "table late_insert", "table late_commit", "table update", "table update_same_length"),
    *("table delete", "table move", "table rewrite", "table reinsert"),
    *("key planned again", "foreign object overwritten", "bucket compared whole"),
    *("checkpoint with cutoff", "checkpoint with floor"),
    *("ended: died", "ended: DONE: every key is settled", "ended: PARKED: ended", "ended: disk full"),
    *("ended: TERMINATED: drained on SIGTERM", "ended: TERMINATED: cancelled on SIGTERM"),
    *("ended: STOPPED: drained on limit = 7", "ended: STOPPED: drained on max_bytes = 3000"),
    *("ended: halted UNREACHABLE", "ended: halted PARKED", "ended: halted REFUSED"),
    *("event pass_abandoned", "event keys_recovered", "event keys_released", "event keys_requeued"),
    *("event keys_reclaimed", "event key_parked", "event source_closed", "event migration_completed"),
    *("parked process_died", "parked foreign_object", "parked unusable_key", "suspect alone"),
    *("value beyond the budget", "keys beyond one claim"),
)
"""What must have happened somewhere in the seeds of CI, or the weather is too kind to prove anything."""


@pytest.fixture(autouse=True)
def _quiet():
    """The program warns of each thing that befalls it; thousands do."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_migrations_survive_weather_and_deaths(seeds, all_seeds, tmp_path, tmp_path_factory, worker_id):
    reached: Counter[str] = Counter()
    for seed in seeds:
        directory = tmp_path / str(seed)
        directory.mkdir()
        try:
            reached += simulate(seed, directory).reached
        except BaseException as error:
            error.add_note(
                f"replay: python -m pytest tests/simulation/test_simulation.py --sim-from {seed} --sim-seeds 1 -n 0"
            )
            raise
    shared = (
        tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    )
    done, total = _add_up(shared / "simulation.json", len(seeds), reached)
    if done == all_seeds >= 200:
        missing = [what for what in EXPECTED if not total[what]]
        assert not missing, f"never happened in {done} seeds: {missing}"


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


@pytest.mark.parametrize("seed", [3, 4])
def test_a_seed_is_one_run(seed, tmp_path):
    traces = []
    for attempt in ("first", "second"):
        (tmp_path / attempt).mkdir()
        traces.append(simulate(seed, tmp_path / attempt).trace)
    assert len(traces[0]) > 100
    assert traces[0] == traces[1]


def test_another_seed_is_another_run(tmp_path):
    assert make_world(1, tmp_path).rows != make_world(2, tmp_path).rows


def test_the_order_of_tasks_follows_the_seed(tmp_path):
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
