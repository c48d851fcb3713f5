"""Copies of one journal that each go on by themselves: nothing is lost, nothing differing is written over another's."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.faults.counting_proxy import CountingProxy
from tests.faults.waiting import eventually
from tests.faults.watched import Watched
from tests.faults.worlds import PROBE, World

ROWS = 400


def is_data(key: str) -> bool:
    return not key.endswith(PROBE)


def begun(world: World, proxy: CountingProxy) -> Watched:
    """Run until some keys are settled and others in flight, and kill the daemon."""
    world.fill(world.tables[0], ROWS)
    world.upload = {"concurrency": 8, "key_batch_size": 100}
    watched = Watched.of(world, concurrency=8)
    with world.daemon() as daemon:
        world.until_settled(daemon, 1)
        proxy.hold(is_data)
        world.until_held(daemon, 8)
        assert daemon.kill()
    proxy.release()
    eventually(lambda: not proxy.waiting(), "the proxy lets go")
    watched.note_death(watched.check())
    return watched


def copied_to(world: World, host: str) -> World:
    """Copy the journal of a dead daemon as it lies there, as somebody who moves to another host may do."""
    directory = world.directory / host
    directory.mkdir()
    for name in ("journal.db", "journal.db-wal"):
        shutil.copyfile(world.directory / name, directory / name)
    return replace(world, directory=directory)


def codes(world: World) -> Counter[str]:
    return Counter(outcome.code for outcome in world.ledger().outcomes.values())


def differing_puts(proxy: CountingProxy, world: World) -> set[str]:
    """Return the keys that took two PUTs of different bytes."""
    taken: dict[str, set[str]] = {}
    for one in proxy.exchanges():
        if (
            one.method == "PUT"
            and one.status // 100 == 2
            and is_data(one.key)
            and one.key.startswith(world.prefix)
        ):
            taken.setdefault(one.key, set()).add(one.md5)
    return {key for key, bodies in taken.items() if len(bodies) > 1}


def check_copy(world: World) -> None:
    """The same as `check_end` asks, without the count of PUTs: another process has put objects there, too."""
    world.assert_copied()
    watched = Watched.of(replace(world, proxy=None), concurrency=8)
    ledger = world.ledger()
    for ordinal, outcome in ledger.stored().items():
        planned = ledger.plan[ordinal]
        row = watched.rows[planned.source][planned.row_key]
        assert (outcome.size, outcome.md5) == (row.size, row.md5)
    assert world.command("journal", "check").returncode == 0
    done = world.command("verify", "--tier", "source", "--tier", "content", "--no-extra")
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_hosts_that_go_on_at_once_from_one_journal_both_end_right(
    world: World, proxy: CountingProxy
) -> None:
    begun(world, proxy)
    other = copied_to(world, "other")
    with world.daemon() as first, other.daemon() as second:
        assert (first.exit_code(), second.exit_code()) == (0, 0)
    assert differing_puts(proxy, world) == set()
    for each in (world, other):
        check_copy(each)
    # Each key was uploaded by one of them only; the other found it as the migration's own.
    puts = Counter(one.key for one in proxy.exchanges() if one.method == "PUT" and one.status // 100 == 2)
    assert max(puts[key] for key in world.objects()) == 1
    assert codes(world)["R"] + codes(other)["R"] > 0


def test_a_host_that_goes_on_after_the_other_has_ended_uploads_nothing(
    world: World, proxy: CountingProxy
) -> None:
    begun(world, proxy)
    other = copied_to(world, "other")
    settled = sum(codes(world).values())
    with world.daemon() as daemon:
        assert daemon.exit_code() == 0
    before = (
        len(differing_puts(proxy, world)),
        Counter(one.status for one in proxy.exchanges() if one.method == "PUT"),
    )
    with other.daemon() as daemon:
        assert daemon.exit_code() == 0
    after = Counter(one.status for one in proxy.exchanges() if one.method == "PUT") - before[1]
    # The probe's own PUTs are all that was taken.
    assert after[412] >= ROWS - settled
    assert codes(other)["R"] >= ROWS - settled
    assert differing_puts(proxy, world) == set()
    check_copy(other)


def test_an_old_backup_put_back_in_place_of_a_journal_that_had_gone_on_ends_right(
    world: World, proxy: CountingProxy, tmp_path: Path
) -> None:
    """The backup is taken beside the working daemon, which goes on to the end."""
    world.fill(world.tables[0], ROWS)
    world.upload = {"concurrency": 8, "key_batch_size": 100}
    backup = tmp_path / "backup.db"
    with world.daemon() as daemon:
        world.until_settled(daemon, 1)
        proxy.hold(is_data)
        world.until_held(daemon, 8)
        done = world.command("journal", "backup", str(backup))
        assert done.returncode == 0, done.stderr
        proxy.release()
        assert daemon.exit_code() == 0
    settled = sum(codes(world).values())
    world.new_journal()
    shutil.copyfile(backup, world.journal)
    at_backup = len(world.ledger().outcomes)
    assert 0 < at_backup < settled == ROWS
    before = Counter(one.key for one in proxy.exchanges() if one.method == "PUT" and one.status // 100 == 2)
    with world.daemon() as daemon:
        assert daemon.exit_code() == 0
    after = Counter(one.key for one in proxy.exchanges() if one.method == "PUT" and one.status // 100 == 2)
    assert not {key for key in (after - before) if is_data(key)}, "an object was uploaded again"
    assert codes(world)["R"] == ROWS - at_backup
    check_copy(world)
