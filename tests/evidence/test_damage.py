"""Seeded damage, through the command line on real servers: the right tier names it, and nothing else is touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from daemon.demo.seaweed import signed_request
from tests.cli.migrations import Migration
from tests.journal.tampering import tamper
from tests.s3_servers import BUCKET

MigrationOn = Callable[[str], Migration]

TIERS = ("receipts", "list", "head", "source", "content")


def request(migration: Migration, method: str, key: str, body: bytes = b"", **headers: str) -> bytes:
    server = migration.server
    status, answer = signed_request(
        server.port,
        method,
        f"/{BUCKET}/{migration.prefix}{key}",
        body=body,
        access_key=server.access_key,
        secret_key=server.secret_key,
        **({"headers": headers} if headers else {}),
    )
    assert status in {200, 204}, answer
    return answer


def put(migration: Migration, key: str, body: bytes) -> None:
    request(migration, "PUT", key, body)


def sql(statement: str) -> Callable[[Migration], None]:
    return lambda migration: migration.database.sql(statement) and None


@dataclass(frozen=True)
class Damage:
    """Something that happened after the copy.

    Attributes:
        found: what each tier that sees it calls it; a tier that is not named here finds nothing.
        names: object key (without the prefix) that is named; of a row without an object, what that would be called.
    """

    do: Callable[[Migration], None]
    found: dict[str, str]
    names: str
    exit_code: int = 4


DAMAGES = {
    "deleted object": Damage(
        lambda m: request(m, "DELETE", "7") and None,
        dict.fromkeys(("list", "head", "source", "content"), "missing"),
        "7",
    ),
    "truncated object": Damage(
        lambda m: put(m, "12", b"1"),
        dict.fromkeys(("list", "head", "source", "content"), "differing"),
        "12",
    ),
    "one flipped byte": Damage(
        lambda m: put(m, "12", b"13"),
        dict.fromkeys(("list", "head", "source", "content"), "differing"),
        "12",
    ),
    "foreign object with equal bytes": Damage(lambda m: put(m, "7", b"7"), {"head": "foreign"}, "7"),
    "object replaced after the copy": Damage(
        lambda m: put(m, "7", b"something else"),
        dict.fromkeys(("list", "head", "source", "content"), "differing"),
        "7",
    ),
    "extra object": Damage(
        lambda m: put(m, "stray", b"?"), dict.fromkeys(("list", "source"), "extra"), "stray", 0
    ),
    "row changed, same length": Damage(
        sql("update attachments set data = '8' where id = '7'"),
        dict.fromkeys(("source", "content"), "row_changed"),
        "7",
    ),
    "row changed, other length": Damage(
        sql("update attachments set data = 'seven' where id = '7'"),
        dict.fromkeys(("source", "content"), "row_changed"),
        "7",
    ),
    "row deleted": Damage(
        sql("delete from attachments where id = '7'"),
        dict.fromkeys(("source", "content"), "row_deleted"),
        "7",
        0,
    ),
    "row deleted and inserted again with other bytes": Damage(
        sql(
            "delete from attachments where id = '7';"
            " insert into attachments values ('7', now() - interval '2 days', '9')"
        ),
        dict.fromkeys(("source", "content"), "row_changed"),
        "7",
    ),
    "row deleted and inserted again with the same bytes": Damage(
        sql("delete from attachments where id = '7'; insert into attachments values ('7', now(), '7')"),
        {},
        "7",
        0,
    ),
    "row added late with an old timestamp": Damage(
        sql("insert into attachments values ('late', now() - interval '3 days', 'late')"),
        {"source": "unplanned"},
        "late",
    ),
}


def runs_of(migration: Migration, *flags: str) -> tuple[int, list[dict[str, object]]]:
    done = migration("verify --json", *flags)
    assert done.returncode in {0, 4}, done.stderr
    return done.returncode, json.loads(done.stdout)["runs"]


def findings_of(migration: Migration, tier: str, *flags: str) -> tuple[int, list[tuple[str, str]]]:
    code, [run] = runs_of(migration, "--tier", tier, *flags)
    examples = run["examples"]
    assert isinstance(examples, list)
    return code, [(each["kind"], each["object_key"].removeprefix(migration.prefix)) for each in examples]


@pytest.mark.parametrize("server", ["weed", "rclone", "moto"])
def test_a_true_copy_has_no_finding_in_any_tier_and_nothing_is_touched(
    migration_on: MigrationOn, server: str
) -> None:
    migration = migration_on(server)
    listing, rows = migration.listing(), migration.database.sql("table attachments")
    for tier in TIERS:
        flags = ["--no-extra"] if tier in {"list", "source"} else []
        assert findings_of(migration, tier, *flags) == (0, []), tier
    code, runs = runs_of(migration)
    assert code == 0
    assert [(run["tier"], run["checked"]) for run in runs] == [("list", 20), ("content", 20)]
    assert migration.listing() == listing
    assert migration.database.sql("table attachments") == rows


@pytest.mark.parametrize("server", ["weed", "rclone", "moto"])
@pytest.mark.parametrize("name", DAMAGES)
def test_the_tiers_that_can_see_a_damage_name_it_and_touch_nothing(
    migration_on: MigrationOn, server: str, name: str
) -> None:
    damage = DAMAGES[name]
    migration = migration_on(server)
    damage.do(migration)
    listing, rows = migration.listing(), migration.database.sql("table attachments")
    status = migration("status --json").stdout
    for tier in TIERS:
        code, findings = findings_of(migration, tier)
        kind = damage.found.get(tier)
        assert findings == ([] if kind is None else [(kind, damage.names)]), tier
        assert code == (damage.exit_code if kind else 0), tier
    assert migration.listing() == listing
    assert migration.database.sql("table attachments") == rows
    assert counts(migration("status --json").stdout) == counts(status)


def counts(status: str) -> object:
    return [source["counts"] for source in json.loads(status)["sources"]]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE event SET ts = ts + 1 WHERE seq = 2", "chain: event 2"),
        ("UPDATE plan SET row_key = '77' WHERE ordinal = 7", "plan: the chunk"),
        ("UPDATE tally SET stored = stored - 1, planned_rows = planned_rows - 1", "projection tally"),
    ],
    ids=["event altered", "plan row altered", "counters altered"],
)
def test_an_altered_journal_is_named_by_its_receipts(
    migration_on: MigrationOn, statement: str, named: str
) -> None:
    migration = migration_on("weed")
    # More events than every opening looks at again.
    for _ in range(70):
        assert migration("pause").returncode == migration("resume").returncode == 0
    tamper(migration.journal, statement)
    listing = migration.listing()
    code, [run] = runs_of(migration, "--tier", "receipts")
    assert code == 4
    assert any(named in each["detail"] for each in run["examples"])  # type: ignore[attr-defined]
    check = migration("journal check")
    assert check.returncode == 7
    assert named in check.stdout + check.stderr
    assert migration.listing() == listing


def test_a_log_whose_tail_was_cut_is_refused_and_nothing_is_verified(migration_on: MigrationOn) -> None:
    migration = migration_on("weed")
    tamper(migration.journal, "DELETE FROM event WHERE seq > 8")
    done = migration("verify --tier receipts")
    assert done.returncode == 7
    assert "the log ends at event 8" in done.stderr


def test_repair_lets_a_deleted_and_a_damaged_object_be_written_again(migration_on: MigrationOn) -> None:
    migration = migration_on("weed")
    migration.sections["s3"] = 'existing = "overwrite"'
    request(migration, "DELETE", "7")
    put(migration, "12", b"1")
    done = migration("verify --tier list --repair")
    assert done.returncode == 4
    assert "repair: 2 keys will be driven again" in done.stdout
    assert migration("run").returncode == 0
    assert findings_of(migration, "content") == (0, [])
    assert request(migration, "GET", "12") == b"12"


def test_a_repair_does_not_overwrite_what_another_program_put_there(migration_on: MigrationOn) -> None:
    migration = migration_on("weed")
    put(migration, "12", b"theirs")
    assert migration("verify --tier list --repair").returncode == 4
    assert migration("run").returncode == 3
    assert request(migration, "GET", "12") == b"theirs"


def test_a_sample_that_finds_damage_is_followed_by_every_key(migration_on: MigrationOn) -> None:
    migration = migration_on("weed")
    for key in range(1, 20):
        request(migration, "DELETE", str(key))
    code, runs = runs_of(migration, "--tier", "content", "--sample", "5")
    assert code == 4
    assert [(run["checked"], run["sample"]) for run in runs] == [(5, {"keys": 5, "of": 20}), (20, None)]


def test_a_sample_states_what_it_proves_and_names_its_keys_in_explain(migration_on: MigrationOn) -> None:
    migration = migration_on("weed")
    done = migration("verify --tier content --sample 5")
    assert done.returncode == 0
    assert "no mismatch in 5 of 20 keys: the mismatch rate is below 75 %" in done.stdout


def test_without_a_database_the_listing_is_still_verified(migration_on: MigrationOn) -> None:
    migration = migration_on("weed")
    dsn = "postgresql://nobody@127.0.0.1:1/none"
    migration.changes["dsn"] = dsn
    assert migration("verify --tier list").returncode == 0
    assert migration("verify --tier source").returncode == 5


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ("--tier list --tier list", "--tier list: given twice"),
        ("--sample lots", 'found "lots"; expected a share'),
        ("--tier list --sample 5", "--sample: receipts and list look at every key"),
        ("--source nothing", 'found "nothing"; expected one of attachments'),
    ],
)
def test_what_can_not_be_meant_is_refused(migration_on: MigrationOn, flags: str, problem: str) -> None:
    migration = migration_on("weed")
    done = migration(f"verify {flags}")
    assert done.returncode == 2
    assert problem in done.stderr
