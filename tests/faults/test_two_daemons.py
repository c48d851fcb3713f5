"""Two daemons on one journal: one works, the other is refused and told by whom, whichever comes first."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.faults.counting_proxy import CountingProxy
from tests.faults.waiting import eventually
from tests.faults.watched import Watched
from tests.faults.worlds import PROBE, Daemon, Table, World
from tests.s3_servers import S3Server

RACES = 2
"""Pairs of daemons that race at once, each on a journal of its own: waiting for the lock takes 10 s and no core."""
ROWS = 300

MakeWorld = Callable[[str], World]


@pytest.fixture
def make_world(database: Database, weed: S3Server, tmp_path: Path) -> MakeWorld:
    """Makes worlds over tables of one database, each with a directory of its own."""

    def make(name: str) -> World:
        directory = tmp_path / name
        directory.mkdir()
        world = World(directory, database.dsn, database.sql, weed, [Table(name)])
        world.fill(world.tables[0], ROWS)
        return world

    return make


def started(world: World, config: Path, name: str, *arguments: str) -> Daemon:
    """Start a command, `run` by itself, with a log of its own; no daemon may be reading a file that is written anew."""
    command = [sys.executable, "-m", "daemon", *(arguments or ("run",)), "-c", str(config)]
    log = world.directory / f"{name}.log"
    return Daemon(command, log=log, env=world.environment, cwd=world.directory)


def is_data(key: str) -> bool:
    """Say whether it is a row's object: held back is what comes after the claim, not the probe before it."""
    return not key.endswith(PROBE)


@pytest.mark.parametrize("begun", [False, True], ids=["no journal yet", "a journal killed in mid-run"])
def test_of_two_daemons_started_at_once_one_works_and_the_other_is_refused_naming_it(
    make_world: MakeWorld, weed: S3Server, begun: bool
) -> None:
    with ExitStack() as stack:
        pairs = []
        for number in range(RACES):
            world = make_world(f"race{number}")
            world.upload = {"concurrency": 8, "processes": 1 + number % 2}
            world.proxy = stack.enter_context(CountingProxy(weed.port))
            watched = Watched.of(world, concurrency=8)
            if begun:
                kill_in_mid_run(watched)
            # Whoever works has work for as long as the other waits.
            world.proxy.hold(is_data)
            config = world.configure()
            racing = [stack.enter_context(started(world, config, name)) for name in ("first", "second")]
            pairs.append((watched, racing))
        for watched, racing in pairs:
            refused = until_one_is_refused(racing)
            (working,) = (daemon for daemon in racing if daemon is not refused)
            assert refused.exit_code() == 7
            assert re.search(rf"pid {working.pid} on \S+ holds it \(waited 10 s\)", refused.output())
            assert "hint: stop that process first" in refused.output()
            assert working.running()
            assert watched.world.proxy is not None
            watched.world.proxy.release()
        for watched, racing in pairs:
            assert sorted(daemon.exit_code() for daemon in racing) == [0, 7]
            ledger = watched.check()
            assert len(ledger.of_kind("session_started")) == 1 + begun
            watched.check_end()


def kill_in_mid_run(watched: Watched) -> None:
    world = watched.world
    assert world.proxy is not None
    world.proxy.hold(is_data)
    with world.daemon() as daemon:
        world.until_held(daemon, watched.concurrency)
        assert daemon.kill()
    world.proxy.release()
    eventually(lambda: world.proxy is not None and not world.proxy.waiting(), "the proxy lets go")
    watched.note_death(watched.check())


def until_one_is_refused(racing: list[Daemon]) -> Daemon:
    eventually(lambda: not all(daemon.running() for daemon in racing), "one of two daemons ends")
    return next(daemon for daemon in racing if not daemon.running())


def waits_for_the_lock(daemon: Daemon) -> bool:
    """Say whether it has the lock file open, which is all that it does until it has the lock."""
    descriptors = Path(f"/proc/{daemon.pid}/fd")
    names = [entry.name for entry in descriptors.iterdir()]
    with contextlib.suppress(FileNotFoundError):
        return any(str((descriptors / name).readlink()).endswith("journal.db.lock") for name in names)
    return False


def test_a_daemon_takes_over_from_one_that_dies_while_it_waits(world: World, proxy: CountingProxy) -> None:
    (table,) = world.tables
    world.fill(table, ROWS)
    world.upload = {"concurrency": 8}
    watched = Watched.of(world, concurrency=8)
    proxy.hold(is_data)
    config = world.configure()
    with started(world, config, "dying") as dying:
        world.until_held(dying, 8)
        with started(world, config, "heir") as heir:
            eventually(lambda: waits_for_the_lock(heir), "the heir waits")
            assert dying.kill()
            proxy.release()
            assert heir.exit_code() == 0
    ledger = world.ledger()
    assert len(ledger.of_kind("session_started")) == 2
    watched.died_with.update(world.object_key("rows", ledger.plan[o].row_key) for o in ledger.claims)
    watched.check_end()


def test_what_writes_beside_a_daemon_is_refused_naming_it_or_goes_through_it_and_disturbs_nothing(
    world: World, proxy: CountingProxy
) -> None:
    (table,) = world.tables
    world.fill(table, ROWS)
    world.upload = {"concurrency": 8}
    watched = Watched.of(world, concurrency=8)
    proxy.hold(is_data)
    config = world.configure()
    with started(world, config, "daemon") as daemon, ExitStack() as stack:
        world.until_held(daemon, 8)
        refused = [
            stack.enter_context(started(world, config, "-".join(words), *words))
            for words in (["journal", "rebuild"], ["verify"], ["plan"])
        ]
        requeued = stack.enter_context(started(world, config, "requeue", "requeue", "--all"))
        assert requeued.exit_code() == 0
        for command in refused:
            assert command.exit_code() == 7
            assert f"pid {daemon.pid} on" in command.output()
        proxy.release()
        assert daemon.exit_code() == 0
    watched.check_end()
