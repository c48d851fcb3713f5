"""Configuration: any file, variable and flag is a valid Config or one error that names every problem and no secret."""

from __future__ import annotations

import json
import tempfile
from datetime import date, datetime, time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from daemon.cli import cli
from daemon.config import Config, free_settings, load
from daemon.conninfo import connection_target
from daemon.error_text import error_text
from daemon.errors import ConfigError
from daemon.settings_layers import FLAGS, SECTIONS
from daemon.settings_models import SourceSection
from daemon.settings_sample import SAMPLE
from tests.fuzzing.hostile import DIGITS, FUZZED, TEXTS, mutated

SECRET = "dsn-canary-51c3"
DSN = f"postgresql://reader:{SECRET}@db/app"
NOW_US = 1_790_000_000_000_000
UNITS = st.sampled_from(["", "s", "d", "KiB", "GiB", "%", ",20M", "Z"])
NUMBERS = st.sampled_from([0, -1, 1, 7, 2**31, 2**63, 10**400, 1e308, float("inf"), float("nan"), 0.5])
VALUES = st.recursive(
    st.one_of(
        TEXTS,
        st.builds(lambda digits, unit: digits + unit, DIGITS, UNITS),
        st.sampled_from(
            ["id", "off", "auto", "rds-iam", "UTC", "a//b", "public.t", 'public."T"', "08:00,1M", DSN]
        ),
        st.booleans(),
        NUMBERS,
        st.datetimes() | st.dates() | st.times(),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)
KEYS = {
    **{name: list(model.model_fields) for name, model in SECTIONS.items()},
    "source": list(SourceSection.model_fields),
}


@st.composite
def trees(draw) -> dict:
    """A document whose sections and keys are mostly ours and whose values are anything."""
    tree: dict = {}
    for section, keys in KEYS.items():
        if draw(st.integers(0, 3)):
            continue
        names = st.sampled_from(keys) | st.text(min_size=1, max_size=8)
        content = draw(st.dictionaries(names, VALUES, max_size=4) | VALUES)
        tree[section] = [content] if section == "source" and draw(st.booleans()) else content
    tree |= draw(st.dictionaries(st.text(min_size=1, max_size=8), VALUES, max_size=1))
    return tree


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(name)} = {toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool | int | float) else quoted(str(value))


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


SAMPLE_WITH_SECRET = SAMPLE.replace("postgresql://reader@localhost/app", DSN)
FILES = st.one_of(
    trees().map(
        lambda tree: "\n".join(f"{quoted(name)} = {toml(value)}" for name, value in tree.items()).encode()
    ),
    mutated(SAMPLE_WITH_SECRET.encode()),
    mutated(
        "".join(line.removeprefix("# ") for line in SAMPLE_WITH_SECRET.splitlines(keepends=True)).encode()
    ),
    st.binary(max_size=60),
)
VARIABLES = [
    *sorted(
        f"BACKFILL_{section}_{key}".upper()
        for section, keys in KEYS.items()
        if section != "source"
        for key in keys
    ),
    "BACKFILL_JOURNAL",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "BACKFILL_UPLOAD_NONE",
]
"""As the environment has them: no NUL, perhaps bytes that are no UTF-8."""
ENVIRONMENTS = st.dictionaries(
    st.sampled_from(VARIABLES),
    (TEXTS | DIGITS | st.sampled_from([DSN, "\udcff", "a\udc80b"])).map(lambda text: text.replace("\0", "")),
    max_size=3,
)
OVERRIDES = st.dictionaries(
    st.sampled_from(sorted(FLAGS)), st.none() | TEXTS | DIGITS | st.booleans(), max_size=2
)


def loaded(content: bytes, env: dict[str, str], overrides: dict[str, object]) -> Config | ConfigError:
    """What the configuration is, or the one error that it is allowed to be."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "backfill.toml"
        path.write_bytes(content)
        path.chmod(0o600)
        try:
            return load(path, env, overrides, now_us=NOW_US)
        except ConfigError as error:
            return error


@FUZZED
@given(FILES, ENVIRONMENTS, OVERRIDES)
def test_any_configuration_is_valid_or_one_error_in_printable_lines_without_a_secret(
    content, env, overrides
) -> None:
    found = loaded(content, env, overrides)
    if isinstance(found, ConfigError):
        assert found.problems
        text = error_text(found)
        assert all(line.isprintable() for line in text.split("\n"))
        assert all(len(line) < 2000 for line in text.split("\n"))
    else:
        json.dumps(free_settings(found), allow_nan=False)
        text = repr(found.postgres) + str(free_settings(found)["postgres"])
    assert SECRET not in text


WRONG = {
    "migration": ("order", '"sideways"'),
    "postgres": ("connections", "1000"),
    "s3": ("bucket", '"No"'),
    "upload": ("concurrency", "0"),
    "throttle": ("rows_per_second", '"many"'),
    "limits": ("limit", "-1"),
    "log": ("format", '"xml"'),
    "metrics": ("port", "99999999"),
}


@FUZZED
@given(st.sets(st.sampled_from(sorted(WRONG)), min_size=1))
def test_every_wrong_section_is_named_in_one_error(sections: set[str]) -> None:
    lines = [f"[{section}]\n{WRONG[section][0]} = {WRONG[section][1]}" for section in sorted(sections)]
    error = loaded("\n".join(lines).encode(), {}, {})
    assert isinstance(error, ConfigError)
    for section in sections:
        place = f"{section}.{WRONG[section][0]}: found"
        assert sum(problem.startswith(place) for problem in error.problems) == 1


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (f"x = {'9' * 5000}".encode(), "not valid TOML"),
        (b"x = " + b"[" * 5000, "not valid TOML"),
        (b"[upload]\nmax_in_flight = '" + b"9" * 400 + b"KiB'", "upload.max_in_flight"),
        (b"[upload]\nmax_in_flight = '" + b"9" * 5000 + b"'", "upload.max_in_flight"),
        (b"[upload]\nmax_failures = '" + b"9" * 5000 + b"'", "upload.max_failures"),
        (b"[upload]\ngive_up_after = " + b"9" * 400, "upload.give_up_after"),
        (b"[throttle]\nquery_threshold = " + b"9" * 400, "throttle.query_threshold"),
        (b"[migration]\njournal = '~nobody-here/j.db'", "migration.journal"),
        (b"[control]\nsocket = '~nobody-here/s'", "control.socket"),
        (b"postgres = '" + DSN.encode() + b"'", "postgres: found a value not shown"),
        (b"[postgres]\nauth = '" + DSN.encode() + b"'", "postgres.auth: found a value not shown"),
        (b"[migration]\norder = '\xc2\x9b31m\xe2\x80\xae'", "migration.order"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_broke_the_reader_once_is_told_and_exits_with_2(
    content: bytes, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "backfill.toml"
    path.write_bytes(content)
    path.chmod(0o600)
    done = CliRunner().invoke(
        cli, ["status", "-c", str(path)] if "TOML" in named else ["plan", "-c", str(path)]
    )
    assert (done.exit_code, named in done.stderr) == (2, True), done.output
    assert SECRET not in done.output
    assert "\x9b" not in done.output


@pytest.mark.parametrize("name", ["BACKFILL_UPLOAD_CONCURRENCY", "BACKFILL_METRICS_PORT"])
def test_a_variable_longer_than_python_reads_is_named(name: str) -> None:
    found = loaded(SAMPLE.encode(), {name: "9" * 5000}, {})
    assert isinstance(found, ConfigError)
    assert name in str(found)


PARTS = ("8461", "canary", "3972")
"""Digits, since what follows a colon may be taken for a port."""
PASSWORDS = st.lists(st.sampled_from([*PARTS, *"/?#@:%&=[]+ '\\"]), min_size=1, max_size=6).map("".join)
PARAMETERS = st.dictionaries(
    st.sampled_from(
        [
            "host",
            "port",
            "dbname",
            "user",
            "sslmode",
            "connect_timeout",
            "service",
            "options",
            "passfile",
            "zzz",
            "sslcert",
        ]
    ),
    TEXTS | DIGITS,
    max_size=3,
)


@FUZZED
@given(
    st.sampled_from(["postgresql://", "postgres://"]),
    st.lists(
        st.sampled_from(
            [
                "u",
                ":",
                "p",
                "@",
                "/",
                "[",
                "]",
                "::1",
                ",",
                "5432",
                "9" * 400,
                "%",
                "%zz",
                "?",
                "#",
                "&",
                "=",
                "٣",
                "\t",
            ]
        )
        | TEXTS,
        max_size=8,
    ).map("".join),
    PARAMETERS,
    ENVIRONMENTS,
    st.booleans(),
)
def test_any_dsn_is_a_target_or_one_config_error(scheme, rest, parameters, env, iam) -> None:
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    env = {name.replace("BACKFILL_POSTGRES_", "PG"): value for name, value in env.items()}
    try:
        found = connection_target(f"{scheme}{rest}?{query}".replace("\0", ""), env, Path("/nowhere"), iam=iam)
    except ConfigError as error:
        assert error.problems  # noqa: PT017
    else:
        assert 0 < found.timeout < float("inf")


@FUZZED
@given(PASSWORDS, st.booleans())
def test_no_part_of_a_password_with_unescaped_characters_is_ever_told(password: str, iam: bool) -> None:
    dsn = f"postgresql://reader:{password}@db/app"
    try:
        told = connection_target(dsn, {}, Path("/nowhere"), iam=iam).where
    except ConfigError as error:
        told = str(error)
    assert not [part for part in PARTS if part in told]
