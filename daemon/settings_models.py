"""The configuration as frozen values: what the program counts in, every limit checked.

`*Section` models mirror the TOML file; `*Config` models are what the program reads. They share their
fields through a base wherever the two agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from daemon import settings_fields as fields
from daemon import settings_values as values
from daemon.settings_metrics import MetricsConfig
from daemon.settings_throttle import ThrottleConfig
from journal.checkpoint import Order


class MaxFailures(BaseModel):
    """How many keys may be parked in one session: a count, or a share of the planned rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int | None = None
    fraction: float | None = None

    def exceeded(self, parked: int, planned: int) -> bool:
        """Say whether `parked` keys of this session are too many, of `planned` rows in the whole plan."""
        if self.fraction is not None:
            return parked > self.fraction * planned
        return self.count is not None and parked > self.count

    def __str__(self) -> str:
        return f"{self.fraction * 100:g}%" if self.fraction is not None else str(self.count)


def _max_failures(value: object) -> object:
    if isinstance(value, MaxFailures):
        return value
    count, fraction = values.count_or_fraction(value)
    return MaxFailures(count=count, fraction=fraction)


def _order(value: object) -> Order:
    if isinstance(value, str) and value in {order.value for order in Order}:
        return Order(value)
    raise ValueError('"newest-first" or "oldest-first"')


NAME_ALLOWED = "a name of 1 to 48 letters, digits, '-', '_' or '.', beginning with a letter or digit"
_Name = Annotated[str, BeforeValidator(fields.matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}", NAME_ALLOWED))]
_Text = Annotated[
    str, BeforeValidator(fields.matching(r"(?s)[^\x00]*\S[^\x00]*", "a text that is not empty"))
]
_Command = Annotated[tuple[str, ...] | None, BeforeValidator(fields.command)]
_Region = Annotated[
    str, BeforeValidator(fields.matching(r"[A-Za-z0-9-]{1,64}", 'a region such as "eu-west-1"'))
]
_Switch = Annotated[bool, BeforeValidator(fields.true_or_false)]
Bucket = Annotated[str, BeforeValidator(values.bucket_name)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=False
    )


class _Migration(_Model):
    name: _Name = Field(description=NAME_ALLOWED)
    journal: Annotated[Path, BeforeValidator(fields.file_path)] = Field(
        description="the path of the journal, a file on a local disk"
    )
    order: Annotated[Order, BeforeValidator(_order)] = Order.NEWEST_FIRST
    disk_reserve: Annotated[int, BeforeValidator(fields.size(0, 2**50))] | None = None


class MigrationSection(_Migration):
    """`[migration]` as the file has it."""

    cutoff: Annotated[int, BeforeValidator(values.timestamp_us)] | None = None
    deadline: Annotated[int, BeforeValidator(values.timestamp_us)] | None = None


class MigrationConfig(_Migration):
    """The migration as a whole.

    Attributes:
        cutoff_us: rows with created_at strictly before it are copied; None: the server's clock at the
            first planning, which the journal then records.
        deadline_us: when it should be done; nothing depends on it but what status and alerts say.
        disk_reserve: bytes that the journal's disk must have free; 0: none; None: daemon/disk_reserve.py decides.
    """

    cutoff_us: int | None = None
    deadline_us: int | None = None


class PostgresConfig(_Model):
    """How to reach the source's server and how long a statement may take.

    Attributes:
        dsn: libpq URI; may hold a password, so it stays out of repr, logs and the journal.
        connections: of all kinds together.
        statement_timeout, lock_timeout: seconds, set in every session.
        late_grace: seconds to wait for transactions that can't be seen for want of pg_read_all_stats.
        auth: "rds-iam": an IAM token takes the password's place.
        region: of the database, for the token; s3.region where the file names none.
    """

    dsn: Annotated[str, BeforeValidator(values.postgres_uri)] = Field("postgresql://", repr=False)
    connections: Annotated[int, BeforeValidator(fields.whole(2, 64))] = 4
    statement_timeout: Annotated[float, BeforeValidator(fields.seconds(0.1, 3600))] = 30.0
    lock_timeout: Annotated[float, BeforeValidator(fields.seconds(0.01, 600))] = 1.0
    late_grace: Annotated[float, BeforeValidator(fields.seconds(0, 86400))] = 300.0
    auth: Literal["password", "rds-iam"] = "password"
    region: _Region | None = None


class _S3(_Model):
    endpoint: Annotated[str, BeforeValidator(values.endpoint_url)] | None = None
    bucket: Bucket | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    existing: Literal["compare", "overwrite", "skip"] = "compare"
    sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    kms_key_id: (
        Annotated[str, BeforeValidator(fields.matching(r"[!-~]{1,2048}", "a key id, alias or ARN"))] | None
    ) = None
    storage_class: (
        Annotated[
            str, BeforeValidator(fields.matching(r"[A-Z][A-Z0-9_]{0,63}", 'a class such as "STANDARD_IA"'))
        ]
        | None
    ) = None
    tags: Annotated[dict[str, str], BeforeValidator(fields.tags)] = Field(default_factory=dict)
    expected_bucket_owner: (
        Annotated[str, BeforeValidator(fields.matching(r"\d{12}", "an AWS account id, 12 digits in quotes"))]
        | None
    ) = None
    connect_timeout: Annotated[float, BeforeValidator(fields.seconds(0.1, 300))] = 10.0
    io_timeout: Annotated[float, BeforeValidator(fields.seconds(0.1, 3600))] = 60.0


class S3Section(_S3):
    """`[s3]` as the file has it."""

    region: _Region | None = None


class S3Config(_S3):
    """The target: where objects go and how they are stored.

    Attributes:
        endpoint: `http(s)://host[:port]`; None is AWS itself in `region`.
        bucket: of every source that names none; None if each names its own.
        connect_timeout, io_timeout: seconds.
    """

    region: _Region

    @property
    def endpoint_url(self) -> str:
        """The endpoint, AWS's own for the region where none is configured."""
        if self.endpoint is not None:
            return self.endpoint
        suffix = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        return f"https://s3.{self.region}.{suffix}"

    @property
    def endpoint_host(self) -> str:
        """The endpoint's host without port, part of a migration's identity."""
        return urlsplit(self.endpoint_url).hostname or ""


class UploadConfig(_Model):
    """How hard to push and when to give up.

    Attributes:
        concurrency: uploads at once over all sources; a ceiling where it is `adaptive`.
        adaptive: begin with few at once, more as long as the endpoint takes them, half when it refuses or is silent.
        processes: that upload; "auto": one less than there are cores, with a connection each.
        max_in_flight: bytes of values held in memory.
        max_attempts: answered attempts per key before it is parked.
        give_up_after, drain_deadline: seconds.
        key_batch_size: keys per claim.
        checkpoint_interval_secs: seconds between progress lines.
    """

    concurrency: Annotated[int, BeforeValidator(fields.whole(1, 1024))] = 64
    processes: Annotated[int | Literal["auto"], BeforeValidator(fields.whole_or("auto", 1, 64))] = 1
    adaptive: _Switch = True
    max_in_flight: Annotated[int, BeforeValidator(fields.size(2**20, 2**36))] = 256 * 2**20
    max_attempts: Annotated[int, BeforeValidator(fields.whole(1, 100))] = 8
    max_failures: Annotated[MaxFailures, BeforeValidator(_max_failures)] = MaxFailures(count=100)
    give_up_after: Annotated[float, BeforeValidator(fields.seconds(1, 604800))] = 900.0
    drain_deadline: Annotated[float, BeforeValidator(fields.seconds(0, 3600))] = 30.0
    key_batch_size: Annotated[int, BeforeValidator(fields.whole(1, 10_000))] = 1000
    checkpoint_interval_secs: Annotated[int, BeforeValidator(fields.whole(1, 86400))] = 30


class LimitsConfig(_Model):
    """Where a session of `run` ends by itself, to be resumed by the next; each off while None.

    Attributes:
        max_duration: seconds after its start, when it drains.
        max_bytes: planned bytes that it claims; one key, however large.
        limit: keys that it claims.
    """

    max_duration: Annotated[float, BeforeValidator(fields.seconds(1, 366 * 86400))] | None = None
    max_bytes: Annotated[int, BeforeValidator(fields.size(1, 2**60))] | None = None
    limit: Annotated[int | None, BeforeValidator(fields.whole(1, 10**12))] = None


class HooksConfig(_Model):
    """Commands that `run` runs at its end, each a program and its arguments; None: nothing.

    Attributes:
        on_complete: every key is settled.
        on_parked: it ended with parked keys.
        on_halt: an error ended it, or a mismatch was found.
        timeout: seconds that a command may take.
    """

    on_complete: _Command = None
    on_parked: _Command = None
    on_halt: _Command = None
    timeout: Annotated[float, BeforeValidator(fields.seconds(0.1, 3600))] = 60.0


class LogConfig(_Model):
    """How `run`, `plan` and `verify` log.

    Attributes:
        format: "text", or "json": one object a line.
        redact_keys: row and object keys appear only as a hash.
    """

    format: Literal["text", "json"] = "text"
    redact_keys: _Switch = False


class ControlConfig(_Model):
    """Where a running migration is steered.

    Attributes:
        socket: None: in $RUNTIME_DIRECTORY where systemd gives one, else beside the journal.
    """

    socket: Annotated[Path, BeforeValidator(fields.file_path)] | None = None


class _Source(_Model):
    name: _Name = Field(description=NAME_ALLOWED)
    key: Annotated[tuple[str, ...], BeforeValidator(fields.key_columns)] = Field(
        description="the column, or the list of columns, that identifies a row"
    )
    created_at: Annotated[str, BeforeValidator(values.column)] | None = None
    created_at_zone: (
        Annotated[
            str, BeforeValidator(fields.matching(r"[A-Za-z0-9_+:/-]{1,64}", 'a zone such as "Europe/Berlin"'))
        ]
        | None
    ) = None
    value: Annotated[str, BeforeValidator(values.column)] = Field(
        description="the column whose bytes become the object"
    )
    where: _Text | None = None
    null_created_at: Literal["include", "exclude"] | None = None
    null_value: Literal["exclude", "empty"] | None = None
    prefix: Annotated[str, BeforeValidator(values.object_prefix)] = ""
    layout: Literal["flat", "tiered"] = "flat"
    reverse_key: _Switch = False
    content_type: Annotated[
        str,
        BeforeValidator(
            fields.matching(r"[!-~]+/[!-~]+(; ?[ -~]+)?", 'a type such as "application/octet-stream"')
        ),
    ] = "application/octet-stream"
    metadata: Annotated[tuple[str, ...], BeforeValidator(fields.metadata_columns)] = ()


class SourceSection(_Source):
    """`[[source]]` as the file has it."""

    table: Annotated[tuple[str, str], BeforeValidator(values.table_name)] = Field(
        description='schema and table, such as "public.attachments"'
    )
    bucket: Bucket | None = None

    def resolve(self, bucket: str) -> SourceConfig:
        """Return the source with its own bucket, else with `bucket`."""
        fields: dict[str, Any] = self.model_dump(exclude={"table", "bucket"})
        schema, table = self.table
        return SourceConfig(schema_name=schema, table_name=table, bucket=self.bucket or bucket, **fields)


class SourceConfig(_Source):
    """One table and where its rows go.

    Attributes:
        key: columns, in the order in which they form the row key.
        where: the one trusted SQL fragment.
        null_created_at, null_value: what becomes of such rows; None: planning asks once it meets one.
        bucket: resolved, never empty.
    """

    schema_name: str
    table_name: str
    bucket: Bucket


class LayerCacheSection(_Model):
    """`[layer_cache]` as the file has it; daemon/layer_cache.py turns it into sources."""

    caches: Annotated[list[str], BeforeValidator(fields.cache_list)] = Field(default_factory=list)
    bucket_prefix: Annotated[
        str, BeforeValidator(fields.matching(r"[a-z0-9][a-z0-9-]*", "lower-case letters, digits and '-'"))
    ] = Field(description='how bucket names begin, such as "si-layer-cache"')
    bucket_suffix: (
        Annotated[
            str, BeforeValidator(fields.matching(r"[a-z0-9-]*[a-z0-9]", "lower-case letters, digits and '-'"))
        ]
        | None
    ) = None
    null_created_at: Literal["include", "exclude"] | None = None
    null_value: Literal["exclude", "empty"] | None = None


def _not_empty(sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
    if not sources:
        raise ValueError("at least one source")
    return sources


class Config(_Model):
    """Everything a session needs to know; immutable for its lifetime."""

    migration: MigrationConfig
    postgres: PostgresConfig
    s3: S3Config
    upload: UploadConfig
    throttle: ThrottleConfig = ThrottleConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    hooks: HooksConfig = HooksConfig()
    metrics: MetricsConfig = MetricsConfig()
    control: ControlConfig = ControlConfig()
    sources: Annotated[tuple[SourceConfig, ...], AfterValidator(_not_empty)]

    @property
    def fetch_connections(self) -> int:
        """How many of `postgres.connections` fetch."""
        return self.throttle.fetch_connections(self.postgres.connections)
