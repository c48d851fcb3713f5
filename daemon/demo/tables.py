"""What the demo migrates: the eight layer-cache tables, one generic table, and objects that are there before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from daemon.layer_cache import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.demo.postgres import EmbeddedPostgres

CACHE_ROWS = {
    "cas": 7000,
    "workspace_snapshot": 2000,
    "encrypted_secret": 1500,
    "rebase_batch": 1500,
    "change_batch": 1500,
    "split_snapshot_subgraph": 1500,
    "split_snapshot_supergraph": 1000,
    "split_snapshot_rebase_batch": 1000,
}
ATTACHMENT_ROWS = 3000
ATTACHMENT_BUCKET = "demo-attachments"
ATTACHMENT_PREFIX = "attachments/"
BUCKET_PREFIX = "demo"
LARGE_VALUES = {"workspace_snapshot": 3}
"""So many rows of a cache have values of 2, 3, 4 ... MiB."""
PRESENT_BEFORE = 40
"""Objects that are in the bucket, whole, before the migration begins; one more is truncated."""

# 25 rows share each created_at. One row in 128 has an empty value, and one in 97 a key that is not ASCII.
_CACHE = """
create table {table} (
    key text primary key, sort_key text, created_at timestamptz not null, value bytea, serialization_lib text
);
insert into {table}
select case when n % 97 = 0 then 'schlüssel-鍵-' || n
            else encode(sha256(convert_to('{table}/' || n, 'UTF8')), 'hex') end,
       'sort/' || n,
       date_trunc('second', now()) - interval '1 day' - n / 25 * interval '1 minute',
       case when n <= {large}
            then (select string_agg(sha512(convert_to(n || '/' || block, 'UTF8')), ''::bytea order by block)
                  from generate_series(1, (n + 1) * 16384) block)
            else decode(repeat(md5('{table}/' || n), n % 128), 'hex') end,
       'postcard'
from generate_series(1, {rows}) n;
analyze {table};
"""
_ATTACHMENTS = """
create table attachments (
    document uuid, name text, kind text not null, created_at timestamptz not null, content bytea,
    primary key (document, name)
);
insert into attachments
select md5('document ' || n / 3)::uuid,
       case when n % 10 = 3 then 'Übersicht № ' || n || '.pdf' else 'page ' || n || '.pdf' end,
       case when n % 10 = 0 then 'draft' else 'final' end,
       date_trunc('second', now()) - interval '2 days' - n / 25 * interval '1 minute',
       case when n % 50 = 1 then null else decode(repeat(md5('attachment ' || n), n % 128), 'hex') end
from generate_series(1, {rows}) n;
analyze attachments;
"""
_MIGRATED_ATTACHMENTS = "kind <> 'draft'"
_COPY_ATTACHMENTS = f"""
copy (select document, name, encode(content, 'hex') from attachments
      where {_MIGRATED_ATTACHMENTS} and content is not null) to stdout
"""  # noqa: S608 -- names of ours


@dataclass(frozen=True, slots=True)
class Expected:
    """An object that the migration owes: where it must be, and every byte of it."""

    bucket: str
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Filled:
    """What the tables hold; `bytes` are those of the values."""

    rows: int
    bytes: int


def buckets() -> list[str]:
    """Return every bucket that the demo's configuration names."""
    return [ATTACHMENT_BUCKET, *map(_bucket, TABLES)]


def fill(postgres: EmbeddedPostgres) -> Filled:
    """Make the nine tables and count what is in them.

    Raises:
        BackfillError: the server refused a statement.
    """
    rows = values = 0
    for cache, number in CACHE_ROWS.items():
        large = LARGE_VALUES.get(cache, 0)
        found = postgres.sql(
            _CACHE.format(table=TABLES[cache], rows=number, large=large) + _count(TABLES[cache], "value")
        )
        rows, values = _added(found, rows, values)
    found = postgres.sql(_ATTACHMENTS.format(rows=ATTACHMENT_ROWS) + _count("attachments", "content"))
    return Filled(*_added(found, rows, values))


def _count(table: str, value: str) -> str:
    return f"select count(*), sum(octet_length({value})) from {table}"  # noqa: S608 -- names of ours


def _added(found: str, rows: int, values: int) -> tuple[int, int]:
    more_rows, more_bytes = found.split("|")
    return rows + int(more_rows), values + int(more_bytes)


def objects_before(postgres: EmbeddedPostgres) -> tuple[list[Expected], Expected]:
    """Return what somebody copied before: some objects as they must be, and one that was cut short."""
    found = _cache_objects(
        postgres, "cas", f"where octet_length(value) > 1000 order by key limit {PRESENT_BEFORE + 1}"
    )
    *whole, last = found
    return whole, Expected(last.bucket, last.key, last.value[: len(last.value) // 2])


def expected_objects(postgres: EmbeddedPostgres) -> Iterator[list[Expected]]:
    """Yield what the bucket must hold in the end, table by table, read through psql.

    Names and values are worked out here from the rows alone, not by the code under demonstration.
    """
    for cache in TABLES:
        yield _cache_objects(postgres, cache, "")
    found = postgres.sql(_COPY_ATTACHMENTS)
    yield [
        Expected(
            ATTACHMENT_BUCKET, f"{ATTACHMENT_PREFIX}{document}/{quote(name, safe='')}", bytes.fromhex(content)
        )
        for document, name, content in _fields(found)
    ]


def _cache_objects(postgres: EmbeddedPostgres, cache: str, clause: str) -> list[Expected]:
    found = postgres.sql(
        f"copy (select key, encode(value, 'hex') from {TABLES[cache]} {clause}) to stdout"  # noqa: S608 -- names of ours
    )
    return [
        Expected(_bucket(cache), f"{key[:2]}/{key[2:4]}/{key[4:6]}/{key}", bytes.fromhex(value))
        for key, value in _fields(found)
    ]


def _fields(copied: str) -> list[list[str]]:
    return [line.split("\t") for line in copied.split("\n")]


def _bucket(cache: str) -> str:
    return f"{BUCKET_PREFIX}-{TABLES[cache]}".replace("_", "-")


def configuration(*, postgres_port: int, endpoint: str, existing: str) -> str:
    """Return the configuration of the migration; passwords and keys are left to the environment."""
    caches = ",\n          ".join(f'"{cache}"' for cache in TABLES)
    return f"""\
[migration]
name = "demo"
journal = "journal.db"
[postgres]
dsn = "postgresql://postgres@127.0.0.1:{postgres_port}/postgres?sslmode=disable"
[s3]
endpoint = "{endpoint}"
bucket = "{ATTACHMENT_BUCKET}"
existing = "{existing}"
[layer_cache]
bucket_prefix = "{BUCKET_PREFIX}"
caches = [{caches}]
[[source]]
name = "attachments"
table = "public.attachments"
key = ["document", "name"]
created_at = "created_at"
value = "content"
where = "{_MIGRATED_ATTACHMENTS}"
null_value = "exclude"
prefix = "{ATTACHMENT_PREFIX}"
metadata = ["kind"]
"""
