"""What `status` prints for --cutoff-timestamp is enough for the ancestor's rule: it reads rows strictly older."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.counting_proxy import CountingProxy
from tests.faults.waiting import eventually
from tests.faults.worlds import Table, World

ROWS = 900
MIGRATION_END = "2024-06-01T00:00:00Z"


def ancestors_page(world: World, table: Table, cutoff_us: int, limit: int) -> list[str]:
    """The first page of a pass of the ancestor; its later pages lose ties of their own, so one page takes all."""
    listed = world.sql(
        f"select id from public.{table.name} where created_at < to_timestamp({cutoff_us} / 1000000.0)"
        f" order by created_at desc limit {limit}"
    )
    return listed.splitlines()


def newest_are_settled(world: World, newest: set[str]) -> bool:
    """Whether those keys of the first source are."""
    ledger = world.ledger()
    first = world.tables[0].name
    settled = {
        ledger.plan[ordinal].row_key for ordinal in ledger.outcomes if ledger.plan[ordinal].source == first
    }
    return newest <= settled


def killed_in_mid_copy(world: World, proxy: CountingProxy, *, settled: int) -> dict[str, Any]:
    """Its status, once a daemon has died with claimed keys, that many settled and the first source's newest tie among them."""
    rows = world.rows(world.tables[0])
    last_us = max(row.created_us for row in rows.values())
    newest = {key for key, row in rows.items() if row.created_us == last_us}
    with world.daemon() as daemon:
        world.until_settled(daemon, settled)
        if len(newest) < settled:
            eventually(lambda: newest_are_settled(world, newest), "the newest tie is settled")
        proxy.hold()
        world.until_held(daemon, 1)
        assert daemon.kill()
    proxy.release()
    proxy.exchanges()
    return world.status()


@pytest.mark.parametrize("settled", [40, 300])
def test_the_printed_cutoff_leaves_no_row_to_the_ancestors_rule(
    world: World, proxy: CountingProxy, settled: int
) -> None:
    world.tables = [Table("alpha"), Table("beta")]
    for table in world.tables:
        world.fill(table, ROWS)
    world.upload = {"concurrency": 8, "key_batch_size": 50}
    status = killed_in_mid_copy(world, proxy, settled=settled)
    copied = set(world.objects())
    assert status["sources"][0]["checkpoint"]["cutoff_us"] is not None
    for table, source in zip(world.tables, status["sources"], strict=True):
        cutoff_us = source["checkpoint"]["cutoff_us"]
        if cutoff_us is None:
            assert source["checkpoint"]["position"] is None
            continue
        rows = world.rows(table)
        found = ancestors_page(world, table, cutoff_us, limit=ROWS)
        missing = {key for key in set(rows) - set(found) if world.object_key(table.name, key) not in copied}
        assert not missing
        # It falls into the middle of a tie at times: that tie is read again whole, and nothing before it.
        position_us = source["checkpoint"]["position"]["created_at_us"]
        assert set(found) == {key for key, row in rows.items() if row.created_us <= position_us}
        assert found
        # It is worth something where the newest tie is settled whole.
        assert len(found) < ROWS or table != world.tables[0]
        newest = max(row.created_us for key, row in rows.items() if key in found)
        assert {key for key, row in rows.items() if row.created_us == newest} <= set(found)


def test_a_new_journal_from_the_printed_cutoff_completes_the_copy(world: World, proxy: CountingProxy) -> None:
    (table,) = world.tables
    world.fill(table, ROWS)
    world.upload = {"concurrency": 8}
    world.cutoff = MIGRATION_END
    status = killed_in_mid_copy(world, proxy, settled=200)
    text = world.command("status").stdout
    cutoff_us = status["sources"][0]["checkpoint"]["cutoff_us"]
    (printed,) = {
        word
        for line in text.splitlines()
        if "--cutoff-timestamp" in line
        for word in line.split()
        if "T" in word and "Z" in word
    }
    world.new_journal()
    world.cutoff = None
    with world.daemon("--cutoff-timestamp", printed) as daemon:
        assert daemon.exit_code() == 0
    ledger = world.ledger()
    older = {key for key, row in world.rows(table).items() if row.created_us < cutoff_us}
    assert {plan.row_key for plan in ledger.plan.values()} == older
    assert {key: (one.size, one.etag) for key, one in world.objects().items()} == {
        world.object_key(table.name, key): (row.size, row.md5) for key, row in world.rows(table).items()
    }


def test_every_row_of_a_tie_is_behind_the_printed_cutoff(world: World, proxy: CountingProxy) -> None:
    (table,) = world.tables
    world.fill(table, ROWS)
    world.sql("update public.rows set created_at = '2024-05-01 12:00Z'")
    world.upload = {"concurrency": 8}
    status = killed_in_mid_copy(world, proxy, settled=200)
    cutoff_us = status["sources"][0]["checkpoint"]["cutoff_us"]
    assert len(ancestors_page(world, table, cutoff_us, limit=ROWS)) == ROWS
