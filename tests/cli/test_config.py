from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.config import Config, MaxFailures, Order, free_settings, identity, load
from daemon.errors import ConfigError, ExitCode
from daemon.settings_sample import SAMPLE

from .conftest import SMALLEST, WriteConfig

NOW_US = 1_768_500_000_000_000  # 2026-01-15T18:00:00Z
CACHES = 'caches = ["cas", "workspace_snapshot"]\nbucket_prefix = "si"\n'


def problems(path: Path, env: dict[str, str] | None = None, **overrides: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(
            path,
            env or {},
            {key.replace("__", "."): value for key, value in overrides.items()},
            now_us=NOW_US,
        )
    assert caught.value.exit_code is ExitCode.USAGE
    return caught.value.problems


def loaded(path: Path, env: dict[str, str] | None = None, **overrides: object) -> Config:
    return load(
        path, env or {}, {key.replace("__", "."): value for key, value in overrides.items()}, now_us=NOW_US
    )


def test_defaults_are_those_of_the_design(smallest: Path) -> None:
    config = loaded(smallest)
    assert config.migration.order is Order.NEWEST_FIRST
    assert config.migration.cutoff_us is None
    assert (config.postgres.connections, config.postgres.statement_timeout, config.postgres.lock_timeout) == (
        4,
        30.0,
        1.0,
    )
    assert (config.s3.region, config.s3.existing, config.s3.addressing) == ("us-east-1", "compare", "auto")
    upload = config.upload
    assert (upload.concurrency, upload.max_in_flight, upload.max_attempts) == (64, 256 * 2**20, 8)
    assert upload.adaptive
    assert (upload.max_failures, upload.key_batch_size, upload.checkpoint_interval_secs) == (
        MaxFailures(count=100),
        1000,
        30,
    )
    source = config.sources[0]
    assert (source.schema_name, source.table_name, source.key, source.bucket) == (
        "public",
        "attachments",
        ("id",),
        "blobs",
    )
    assert (source.layout, source.reverse_key, source.content_type) == (
        "flat",
        False,
        "application/octet-stream",
    )


def test_a_config_is_immutable(smallest: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        loaded(smallest).upload.concurrency = 3  # type: ignore[misc]


def test_a_relative_journal_is_relative_to_the_file(smallest: Path) -> None:
    assert loaded(smallest).migration.journal == smallest.parent / "journal.db"


def test_the_sample_loads_as_it_is_and_with_every_line_uncommented(write_config: WriteConfig) -> None:
    loaded(write_config(SAMPLE))
    head, _, rest = SAMPLE.partition("[migration]")
    assert all(line.startswith("#") or not line for line in head.splitlines())
    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") else line
        for line in ("[migration]" + rest).splitlines()
    )
    config = loaded(write_config(uncommented))
    assert [source.name for source in config.sources] == ["attachments", "cas", "workspace_snapshot"]
    assert config.s3.tags == {"origin": "backfill"}


def test_every_problem_of_every_section_is_reported_at_once(write_config: WriteConfig) -> None:
    found = problems(
        write_config(
            """
            [migration]
            name = "a b"
            order = "newest"
            cutoff = 2026-01-14T15:30:45
            [postgres]
            dsn = "host=db password=hunter2"
            conections = 4
            [s3]
            region = "us-east-1"
            bucket = "Blobs"
            existing = "overwrit"
            [upload]
            concurrency = 0
            max_in_flight = "12Q"
            max_failures = "101%"
            max_attempts = "8"
            [[source]]
            name = "attachments"
            table = "Attachments"
            key = []
            value = "data"
            reverse_key = "no"
            [layer_cache]
            bucket_prefix = "si"
            [uplaod]
            """
        )
    )
    places = [line.split(":")[0].split(" (from")[0] for line in found]
    assert sorted(places) == sorted(
        [
            "uplaod",
            "migration.name",
            "migration.journal",
            "migration.order",
            "migration.cutoff",
            "postgres.dsn",
            "postgres.conections",
            "s3.bucket",
            "s3.existing",
            "upload.concurrency",
            "upload.max_in_flight",
            "upload.max_failures",
            "upload.max_attempts",
            'source "attachments".table',
            'source "attachments".key',
            'source "attachments".reverse_key',
            "layer_cache.caches",
        ]
    )
    assert "hunter2" not in "\n".join(found)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('key = "id"', 'key = "id"\ncolour = "red"', 'source "attachments".colour: unknown'),
        ("[[source]]", "[source]", "[[source]]"),
        ("[[source]]", "[upload]\nconcurency = 3\n[[source]]", 'did you mean "concurrency"?'),
        (
            "[[source]]",
            "[upload]\nconcurrency = true\n[[source]]",
            "found true; expected a whole number from 1 to 1024",
        ),
        (
            "[[source]]",
            "[upload]\nconcurrency = 1025\n[[source]]",
            "found 1025; expected a whole number from 1 to 1024",
        ),
        (
            "[[source]]",
            '[upload]\ndrain_deadline = "5 weeks"\n[[source]]',
            'found "5 weeks"; expected a duration',
        ),
        ("[[source]]", '[upload]\ngive_up_after = "30s"\n[[source]]', "expected at least s3.io_timeout"),
        (
            "[[source]]",
            '[postgres]\nlock_timeout = "1m"\n[[source]]',
            "expected at most postgres.statement_timeout",
        ),
        (
            'name = "blobs"',
            'name = "blobs"\ncutoff = 2026-01-15T18:00:01Z',
            "expected a time that has passed",
        ),
        (
            'name = "blobs"',
            'name = "blobs"\ncutoff = 2026-01-14',
            "migration.cutoff: found 2026-01-14; expected a time with its zone",
        ),
        ('name = "blobs"', 'name = "blobs"\ncutoff = "2026-01-14 15:30:45"', "a time with its zone"),
        ('name = "blobs"', 'name = "blobs"\ncutoff = "yesterday"', "a time with its zone"),
        ('endpoint = "http://127.0.0.1:9"\n', "", "s3.region: missing"),
        ('endpoint = "http://127.0.0.1:9"', 'endpoint = "127.0.0.1:9"', "s3.endpoint"),
        ('endpoint = "http://127.0.0.1:9"', 'endpoint = "http://127.0.0.1:9/blobs"', "s3.endpoint"),
        ('bucket = "blobs"\n', "", 'source "attachments".bucket: missing'),
        ('bucket = "blobs"', 'bucket = "blobs"\nkms_key_id = "x"', "s3.kms_key_id: set without KMS"),
        ('bucket = "blobs"', 'bucket = "a.b"\naddressing = "virtual"', "expected no dot in it"),
        ('bucket = "blobs"', 'bucket = "blobs"\nexpected_bucket_owner = 123456789012', "12 digits in quotes"),
        ('table = "public.attachments"', 'table = "attachments"', "schema and table"),
        ('table = "public.attachments"', 'table = "db.public.attachments"', "schema and table"),
        ('table = "public.attachments"', 'table = "public.Attachments"', "in double quotes"),
        ('table = "public.attachments"', "table = 'public.a; drop table b'", "schema and table"),
        ('value = "data"', 'value = "id"', "a key column; expected the column of the bytes"),
        (
            'value = "data"',
            'value = "data"\nnull_created_at = "include"',
            "null_created_at: set without created_at",
        ),
        ('value = "data"', 'value = "data"\nprefix = "/a"', 'found "/a"; expected a prefix'),
        ('value = "data"', 'value = "data"\nprefix = "a//b"', "expected a prefix"),
        ('value = "data"', 'value = "data"\nprefix = "a/../b"', "expected a prefix"),
        ('value = "data"', 'value = "data"\nmetadata = ["created-at"]', "none of backfill-md5"),
        ('value = "data"', 'value = "data"\nmetadata = ["a b"]', "can stand in a header"),
        ('value = "data"', 'value = "data"\nmetadata = ["Kind", "kind"]', "without regard to case"),
        ('value = "data"', 'value = "data"\nwhere = "  "', "a text that is not empty"),
        ('value = "data"\n', "", 'source "attachments".value: missing'),
        *(
            ("[[source]]", f"[throttle]\n{lines}\n[[source]]", expected)
            for lines, expected in [
                ("rows_per_second = 0", 'found 0; expected rows per second from 1 to 10000000, or "off"'),
                ('bytes_per_second = "20Q"', 'found "20Q"; expected bytes per second from "1K"'),
                ('timetable = "08:00,20M 25:00,off"', "expected a time from 00:00 to 23:59 in slot 2"),
                (
                    'timetable = "08:00,20M"\ntimetable_zone = "Berlin"',
                    'timetable_zone: found "Berlin"; expected a zone',
                ),
                ('timetable_zone = "UTC"', "timetable_zone: set without throttle.timetable"),
                ('replica_lag = "soon"', 'throttle.replica_lag: found "soon"; expected a duration'),
                (
                    'replica_lag = "10s"\nreplica_lag_hibernate = "10s"',
                    'replica_lag_hibernate: found "10s"; expected more than throttle.replica_lag, "10s"',
                ),
                (
                    "active_sessions_hibernate = 3",
                    "active_sessions_hibernate: set without throttle.active_sessions",
                ),
                ('query = "select 1"', "throttle.query: set without throttle.query_threshold"),
                ("query_threshold = 1", "throttle.query_threshold: set without throttle.query"),
                ('query = ""\nquery_threshold = 1', "expected a query of one row, one number"),
                ('query = "select 1"\nquery_threshold = nan', "expected a number"),
                (
                    "active_sessions = 3\n[postgres]\nconnections = 2",
                    "postgres.connections: found 2; expected at least 3 with readings in [throttle]",
                ),
            ]
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(
    write_config: WriteConfig, old: str, new: str, expected: str
) -> None:
    assert old in SMALLEST
    found = problems(write_config(SMALLEST.replace(old, new, 1)))
    assert len(found) == 1, found
    assert expected in found[0]


def test_no_source_at_all_is_a_problem(write_config: WriteConfig) -> None:
    assert "none; expected a [[source]]" in problems(write_config(SMALLEST.partition("[[source]]")[0]))[0]


@pytest.mark.parametrize(("one", "other"), [("a/", "a/"), ("", "b/"), ("a", "ab/"), ("a/", "a/b/")])
def test_prefixes_of_one_bucket_may_not_nest(write_config: WriteConfig, one: str, other: str) -> None:
    second = SMALLEST.partition("[[source]]")[2].replace("attachments", "others")
    text = f'{SMALLEST}prefix = "{one}"\n[[source]]{second}prefix = "{other}"\n'
    assert "overlap" in problems(write_config(text))[0]
    loaded(write_config(text + 'bucket = "another"\n'))


def test_two_sources_may_not_share_a_name(write_config: WriteConfig) -> None:
    second = SMALLEST.partition("[[source]]")[2]
    text = f'{SMALLEST}prefix = "a/"\n[[source]]{second}prefix = "b/"\n'
    assert problems(write_config(text)) == ['source "attachments": 2 sources have this name; expected one']


def test_a_variable_wins_over_the_file_and_a_flag_over_both(write_config: WriteConfig) -> None:
    path = write_config(SMALLEST + "[upload]\nkey_batch_size = 10\n")
    env = {"BACKFILL_UPLOAD_KEY_BATCH_SIZE": "20"}
    assert loaded(path).upload.key_batch_size == 10
    assert loaded(path, env).upload.key_batch_size == 20
    assert loaded(path, env, upload__key_batch_size="30").upload.key_batch_size == 30


def test_a_wrong_variable_is_named_by_its_name(smallest: Path) -> None:
    found = problems(smallest, {"BACKFILL_UPLOAD_CONCURRENCY": "many"})
    assert found == [
        'upload.concurrency (from BACKFILL_UPLOAD_CONCURRENCY): found "many"; expected a whole number from 1 to 1024'
    ]


@pytest.mark.parametrize(
    ("path", "flag"),
    [
        ("upload__key_batch_size", "--key-batch-size"),
        ("upload__checkpoint_interval_secs", "--checkpoint-interval-secs"),
    ],
)
@pytest.mark.parametrize("value", ["", "1k", "-1", "1.5", "99999999999999999999"])
def test_d5_a_malformed_option_is_an_error_and_never_a_default(
    smallest: Path, path: str, flag: str, value: str
) -> None:
    found = problems(smallest, **{path: value})
    assert flag in found[0]
    assert "expected a whole number" in found[0]


@pytest.mark.parametrize(
    "value", ["", "2026-01-14", "2026-01-14T15:30:45", "14.01.2026 15:30:45 Z", "2026-13-01T00:00:00Z"]
)
def test_d5_a_malformed_cutoff_is_an_error_and_never_the_present(smallest: Path, value: str) -> None:
    assert "--cutoff-timestamp" in problems(smallest, migration__cutoff=value)[0]


def test_a_misspelt_variable_of_a_section_is_an_error(smallest: Path) -> None:
    found = problems(smallest, {"BACKFILL_UPLOAD_CONCURENCY": "3", "BACKFILL_ELSEWHERE": "ignored"})
    assert found == ['BACKFILL_UPLOAD_CONCURENCY: unknown; did you mean "BACKFILL_UPLOAD_CONCURRENCY"?']


def test_the_journal_comes_from_its_variable_or_flag_relative_to_the_working_directory(
    smallest: Path,
) -> None:
    assert loaded(smallest, {"BACKFILL_JOURNAL": "/x/j.db"}).migration.journal == Path("/x/j.db")
    assert loaded(smallest, {"BACKFILL_JOURNAL": "j.db"}).migration.journal == Path.cwd() / "j.db"


def test_endpoint_and_region_come_from_aws_variables_where_the_file_has_none(
    write_config: WriteConfig,
) -> None:
    path = write_config(SMALLEST.replace('endpoint = "http://127.0.0.1:9"\n', ""))
    env = {"AWS_ENDPOINT_URL": "https://all.example", "AWS_REGION": "eu-west-1"}
    assert loaded(path, env).s3.endpoint == "https://all.example"
    assert loaded(path, env).s3.region == "eu-west-1"
    assert (
        loaded(path, {**env, "AWS_ENDPOINT_URL_S3": "https://s3.example"}).s3.endpoint == "https://s3.example"
    )
    assert loaded(path, {**env, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}).s3.endpoint is None


def test_aws_variables_do_not_override_the_file(smallest: Path) -> None:
    assert loaded(smallest, {"AWS_ENDPOINT_URL_S3": "https://elsewhere"}).s3.endpoint == "http://127.0.0.1:9"


def test_without_an_endpoint_the_region_decides_the_host(write_config: WriteConfig) -> None:
    text = SMALLEST.replace('endpoint = "http://127.0.0.1:9"', 'region = "cn-north-1"')
    assert loaded(write_config(text)).s3.endpoint_url == "https://s3.cn-north-1.amazonaws.com.cn"
    text = SMALLEST.replace('endpoint = "http://127.0.0.1:9"', 'region = "eu-west-1"')
    assert loaded(write_config(text)).s3.endpoint_host == "s3.eu-west-1.amazonaws.com"


def test_a_file_that_others_can_write_is_refused(smallest: Path) -> None:
    smallest.chmod(0o602)
    assert "mode 0602 lets others write it" in problems(smallest)[0]


def test_a_file_that_a_shared_group_can_write_is_refused(smallest: Path) -> None:
    smallest.chmod(0o660)
    if os.geteuid() == 0:
        os.chown(smallest, 0, 1)
        assert "lets others write it" in problems(smallest)[0]


def test_a_file_that_is_missing_is_named_with_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.toml", {}, {}, now_us=NOW_US)
    assert "no such file" in caught.value.problem
    assert "backfillctl init" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"[migration\n", b"a = \n", b"\xff\xfe", b"a = 1\na = 2\n", b"a" * (2 << 20)]
)
def test_a_file_that_is_no_toml_is_a_config_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    path.chmod(0o600)
    assert str(path) in problems(path)[0]


def test_a_password_in_the_dsn_is_in_no_repr(write_config: WriteConfig) -> None:
    path = write_config(SMALLEST + '[postgres]\ndsn = "postgresql://u:hunter2@h/d"\n')
    config = loaded(path)
    assert config.postgres.dsn == "postgresql://u:hunter2@h/d"
    assert "hunter2" not in f"{config!r} {config} {config.postgres!r} {free_settings(config)}"


def test_credentials_in_the_endpoint_are_refused_without_showing_them(write_config: WriteConfig) -> None:
    found = problems(write_config(SMALLEST.replace("http://127", "http://user:hunter2@127")))
    assert "hunter2" not in found[0]


def test_identity_holds_what_decides_which_rows_go_where(write_config: WriteConfig) -> None:
    path = write_config(SMALLEST + '[postgres]\ndsn = "postgresql://u:p@h/d"\n')
    config = loaded(path, migration__cutoff="2026-01-14 15:30:45.123456+00")
    assert identity(config, config.sources[0], "app") == {
        "database": "app",
        "table": "public.attachments",
        "key": ["id"],
        "created_at": None,
        "value": "data",
        "where": None,
        "cutoff": "2026-01-14T15:30:45.123456Z",
        "bucket": "blobs",
        "endpoint_host": "127.0.0.1",
        "prefix": "",
        "layout": "flat",
        "reverse_key": False,
    }


def test_identity_takes_the_cutoff_in_force_where_the_file_names_none(smallest: Path) -> None:
    config = loaded(smallest)
    assert identity(config, config.sources[0], "app")["cutoff"] is None
    assert identity(config, config.sources[0], "app", cutoff_us=0)["cutoff"] == "1970-01-01T00:00:00.000000Z"


def test_settings_free_to_change_are_not_part_of_identity(smallest: Path) -> None:
    one, other = loaded(smallest), loaded(smallest, upload__key_batch_size="7")
    assert identity(one, one.sources[0], "app") == identity(other, other.sources[0], "app")
    assert free_settings(one) != free_settings(other)


def test_max_failures_is_a_count_or_a_share_of_the_plan() -> None:
    assert not MaxFailures(count=2).exceeded(2, 1_000_000)
    assert MaxFailures(count=2).exceeded(3, 1_000_000)
    assert MaxFailures(count=0).exceeded(1, 1)
    assert not MaxFailures(fraction=0.001).exceeded(10, 10_000)
    assert MaxFailures(fraction=0.001).exceeded(11, 10_000)


def test_uploads_per_cache_become_that_many_times_the_caches(write_config: WriteConfig) -> None:
    path = write_config(
        f'[migration]\nname = "c"\njournal = "j"\n[s3]\nregion = "us-east-1"\n[layer_cache]\n{CACHES}'
    )
    assert loaded(path, upload__concurrency_per_cache="5").upload.concurrency == 10
    assert (
        loaded(path, upload__concurrency_per_cache="5", layer_cache__caches=["cas"]).upload.concurrency == 5
    )
    assert "--max-concurrent-uploads" in problems(path, upload__concurrency_per_cache="0")[0]
    assert "--max-concurrent-uploads times 2 caches" in problems(path, upload__concurrency_per_cache="600")[0]


def test_uploads_per_cache_need_caches(smallest: Path) -> None:
    assert problems(smallest, upload__concurrency_per_cache="5") == [
        "--max-concurrent-uploads: counts per layer cache; set upload.concurrency instead"
    ]


def test_nothing_throttles_unless_it_is_asked_for(smallest: Path) -> None:
    throttle = loaded(smallest).throttle
    off = {"timetable_zone", "check_interval", "reading_timeout", "hibernate"}
    assert set(throttle.model_dump(exclude=off).values()) == {None}
    assert (throttle.timetable_zone, throttle.check_interval, throttle.hibernate) == ("UTC", 5.0, 60.0)
    assert not throttle.reads


def test_a_throttle_is_read_from_variables_in_the_units_of_the_file(smallest: Path) -> None:
    env = {
        "BACKFILL_THROTTLE_ROWS_PER_SECOND": "500",
        "BACKFILL_THROTTLE_BYTES_PER_SECOND": "20M",
        "BACKFILL_THROTTLE_TIMETABLE": "08:00,1.5M 19:00,off",
        "BACKFILL_THROTTLE_REPLICA_LAG": "2m",
        "BACKFILL_THROTTLE_ACTIVE_SESSIONS": "40",
        "BACKFILL_THROTTLE_QUERY": "select 1",
        "BACKFILL_THROTTLE_QUERY_THRESHOLD": "0.5",
    }
    throttle = loaded(smallest, env).throttle
    assert (throttle.rows_per_second, throttle.bytes_per_second) == (500, 20 * 2**20)
    assert throttle.timetable is not None
    assert [slot.limit for slot in throttle.timetable.slots[:2]] == [3 * 2**19, None]
    assert (throttle.replica_lag, throttle.active_sessions, throttle.query_threshold) == (120.0, 40, 0.5)
    off = loaded(smallest, env | {"BACKFILL_THROTTLE_ROWS_PER_SECOND": "off"})
    assert off.throttle.rows_per_second is None


def test_readings_take_a_connection_from_the_fetches(write_config: WriteConfig) -> None:
    assert loaded(write_config(SMALLEST)).fetch_connections == 3
    assert loaded(write_config(SMALLEST + "[throttle]\nactive_sessions = 3\n")).fetch_connections == 2


def test_the_throttle_is_among_the_settings_on_record(write_config: WriteConfig) -> None:
    lines = 'timetable = "08:00,1M  19:00,off"\nquery = "select 1"\nquery_threshold = 2\n'
    recorded = free_settings(loaded(write_config(f"{SMALLEST}[throttle]\n{lines}")))["throttle"]
    assert recorded["timetable"] == "08:00,1M 19:00,off"
    assert (recorded["query"], recorded["query_threshold"]) == ("select 1", 2.0)


@pytest.mark.parametrize("given", ["2", '"auto"'])
def test_processes_are_a_number_or_auto(write_config, given: str) -> None:
    found = loaded(write_config(SMALLEST + f"[upload]\nprocesses = {given}\n")).upload.processes
    assert found == (2 if given == "2" else "auto")
    assert loaded(write_config(SMALLEST), {"BACKFILL_UPLOAD_PROCESSES": "2"}).upload.processes == 2


def test_one_process_uploads_by_default(smallest: Path) -> None:
    assert loaded(smallest).upload.processes == 1


@pytest.mark.parametrize("given", ["0", "65", '"many"', "1.5", "true"])
def test_any_other_number_of_processes_is_refused(write_config, given: str) -> None:
    (problem,) = problems(write_config(SMALLEST + f"[upload]\nprocesses = {given}\n"))
    assert problem.startswith("upload.processes: found ")
    assert problem.endswith('expected a whole number from 1 to 64, or "auto"')


def test_each_process_needs_a_connection_to_fetch_over(write_config) -> None:
    (problem,) = problems(write_config(SMALLEST + "[upload]\nprocesses = 4\n"))
    assert problem == (
        "upload.processes: found 4, but only 3 of postgres.connections = 4 fetch; "
        "expected postgres.connections = 5 or more, one for each process"
    )
    more = SMALLEST + "[upload]\nprocesses = 4\n[postgres]\nconnections = 5\n"
    assert loaded(write_config(more)).upload.processes == 4
