"""Logging in by IAM token: the token AWS would make, one for each connection, over TLS or not at all."""

from __future__ import annotations

import datetime as dt
import functools
import ssl
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, parse_qsl

import botocore.auth
import botocore.credentials
import botocore.session
import pytest
import trio
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.config import PostgresConfig
from daemon.conninfo import Login, connection_target
from daemon.credentials import CredentialSource
from daemon.demo.postgres import EmbeddedPostgres
from daemon.errors import ConfigError, RefusedError, UnreachableError
from daemon.iam_login import IamLogin, connect_token
from daemon.retrying import Failure
from daemon.signing import Credentials
from daemon.source import open_source
from tests.source.auth_proxy import door_to
from tests.source.sources import TABLE, spec

NOW_US = 1_768_404_645_000_000
NOW = dt.datetime.fromtimestamp(NOW_US / 1e6, dt.UTC)
FIXED = Credentials("AKIDEXAMPLE", "c4n4ry/secret")
HOME = Path("/nonexistent")

HOSTS = st.from_regex(r"[a-zA-Z][a-zA-Z0-9-]{0,20}(\.[a-z]{2,5}){1,3}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


def by_botocore(login: Login, region: str, credentials: Credentials) -> str:
    client = rds_client(region)
    client._request_signer._credentials = botocore.credentials.Credentials(
        credentials.access_key, credentials.secret_key, credentials.token
    )
    now = NOW.replace(tzinfo=None)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=now):
        return client.generate_db_auth_token(login.host, login.port, login.user)


@functools.cache
def rds_client(region: str) -> Any:
    """Making one takes longer than a hundred signatures."""
    session = botocore.session.Session()
    session.set_credentials(FIXED.access_key, FIXED.secret_key)
    return session.create_client("rds", region_name=region)


@settings(deadline=None)
@given(
    HOSTS,
    st.integers(1, 65535),
    TEXT,
    st.sampled_from(["us-east-1", "eu-west-1", "cn-north-1"]),
    st.one_of(st.none(), VISIBLE),
)
def test_a_token_is_what_botocore_makes(host, port, user, region, session_token):
    credentials = Credentials(FIXED.access_key, FIXED.secret_key, session_token)
    login = Login(host, port, user)
    place, _, query = connect_token(login, region, credentials, now_us=NOW_US).partition("?")
    expected_place, _, expected_query = by_botocore(login, region, credentials).partition("?")
    assert place == expected_place == f"{host}:{port}/"
    assert sorted(parse_qsl(query, strict_parsing=True)) == sorted(
        parse_qsl(expected_query, strict_parsing=True)
    )


def test_a_token_lasts_fifteen_minutes_and_names_the_user():
    token = connect_token(Login("db.test", 5432, "reader"), "eu-west-1", FIXED, now_us=NOW_US)
    query = parse_qs(token.partition("?")[2])
    assert (query["X-Amz-Expires"], query["DBUser"], query["Action"]) == (["900"], ["reader"], ["connect"])
    assert "rds-db/aws4_request" in query["X-Amz-Credential"][0]


class Chain:
    """Credentials that change with every look, as temporary ones do."""

    def __init__(self) -> None:
        self.looks = 0

    def get_frozen_credentials(self) -> Credentials:
        self.looks += 1
        return Credentials(f"AKID{self.looks}", FIXED.secret_key)

    def refresh_needed(self, refresh_in: int | None = None) -> bool:
        return True


async def test_each_password_is_made_at_its_own_time():
    times = iter([NOW_US, NOW_US + 1_000_000])
    made = IamLogin(
        Login("db.test", 5432, "u"), "eu-west-1", CredentialSource(resolve=Chain), lambda: next(times)
    )
    first, second = await made.password(), await made.password()
    assert "X-Amz-Date=20260114T153045Z" in first
    assert "X-Amz-Date=20260114T153046Z" in second
    assert "c4n4ry" not in first + repr(made)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting_server() -> Iterator[EmbeddedPostgres]:
    """A server that lets in whoever comes from this machine; the door before it asks for the password."""
    with EmbeddedPostgres(files={"pg_hba.conf": b"host all all 127.0.0.1/32 trust\n"}) as server:
        server.sql(TABLE)
        yield server


@pytest.fixture
def certificate(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


def config(port: int, **options: str) -> PostgresConfig:
    query = "&".join(f"{name}={value}" for name, value in {"sslmode": "require", **options}.items())
    dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres?{query}"
    return PostgresConfig(dsn=dsn, auth="rds-iam", region="eu-west-1", connections=3)


async def test_a_real_server_is_given_a_token_of_its_own_by_each_connection(
    trusting_server, certificate, authority, tmp_path
):
    roots = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    chain = Chain()
    async with (
        door_to(trusting_server.port, certificate) as door,
        open_source(
            config(door.port, sslmode="verify-full", sslrootcert=str(roots)),
            migration="test",
            give_up_after=0.0,
            random=Random(1),
            credentials=CredentialSource(resolve=lambda: chain),
        ) as source,
    ):
        assert (await source.describe(spec())).unique is not None
        made_before = len(door.passwords)
        assert made_before >= 1
        trusting_server.sql(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = 'backfillctl test'"
        )
        with trio.fail_after(30):
            while len(door.passwords) == made_before:
                try:
                    await source.fetch(spec(), await source.describe(spec()), [])
                    await source.server()
                except (Failure, UnreachableError):
                    await trio.lowlevel.checkpoint()
    queries = [parse_qs(password.partition("?")[2]) for password in door.passwords]
    assert all(password.startswith(f"127.0.0.1:{door.port}/?") for password in door.passwords)
    assert all(query["DBUser"] == ["postgres"] for query in queries)
    made = [query["X-Amz-Credential"][0].partition("/")[0] for query in queries]
    assert made == [f"AKID{number}" for number in range(1, len(made) + 1)]


async def test_no_credentials_are_a_refusal_before_anything_is_said(trusting_server, certificate):
    async with door_to(trusting_server.port, certificate) as door:
        with pytest.raises(RefusedError) as refused:
            async with open_source(
                config(door.port),
                migration="test",
                give_up_after=0.0,
                random=Random(1),
                credentials=CredentialSource(resolve=lambda: None),
            ):
                raise AssertionError
    assert "credentials" in refused.value.problem
    assert door.passwords == []


async def test_a_token_that_is_refused_is_told_with_what_to_check(trusting_server, certificate):
    async with door_to(trusting_server.port, certificate) as door:
        door.closed = True
        with pytest.raises(RefusedError) as refused:
            async with open_source(
                config(door.port),
                migration="test",
                give_up_after=0.0,
                random=Random(1),
                credentials=CredentialSource(resolve=Chain),
            ):
                raise AssertionError
    assert "PAM authentication failed" in refused.value.problem
    assert "check --grants" in refused.value.hint
    assert door.passwords[0] not in str(refused.value)


GOOD = "postgresql://reader@db.test:5433/app?sslmode=verify-full"


@pytest.mark.parametrize(
    ("dsn", "env", "expected"),
    [
        (GOOD, {}, Login("db.test", 5433, "reader")),
        ("postgresql://r%40x@db.test/app?sslmode=require", {}, Login("db.test", 5432, "r@x")),
        (
            "postgresql:///app",
            {"PGHOST": "db.test", "PGPORT": "6000", "PGUSER": "u", "PGSSLMODE": "verify-ca"},
            Login("db.test", 6000, "u"),
        ),
        ("postgresql://?host=h.test&user=u&port=7&sslmode=require", {}, Login("h.test", 7, "u")),
        ("postgresql://u@h.test?sslrootcert=system", {}, Login("h.test", 5432, "u")),
    ],
)
def test_the_login_is_found_where_libpq_would_find_it(dsn, env, expected):
    assert connection_target(dsn, env, HOME, iam=True).login == expected


def test_without_iam_there_is_no_login():
    assert connection_target(GOOD, {}, HOME).login is None


@pytest.mark.parametrize(
    ("dsn", "named"),
    [
        (GOOD.replace("verify-full", "prefer"), "found sslmode prefer; expected verify-full"),
        (GOOD.replace("verify-full", "disable"), "found sslmode disable"),
        (GOOD.replace("?sslmode=verify-full", ""), "found sslmode prefer"),
        (GOOD.replace("reader@", "reader:c4n4ry@"), "holds a password"),
        (GOOD + "&password=c4n4ry", "holds a password"),
        (GOOD.replace("reader@", ""), "no user named"),
        (GOOD.replace("db.test:5433", "a.test,b.test"), "expected the name of one host"),
        (GOOD.replace("db.test:5433", ""), "expected the name of one host"),
        (GOOD.replace("db.test:5433", "") + "&host=/run/postgresql", "expected the name of one host"),
    ],
)
def test_what_a_token_cannot_be_made_for_or_must_not_be_sent_to_is_refused(dsn, named):
    with pytest.raises(ConfigError) as refused:
        connection_target(dsn, {}, HOME, iam=True)
    assert any(named in problem for problem in refused.value.problems)
    assert "c4n4ry" not in str(refused.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as refused:
        connection_target("postgresql:///app", {}, HOME, iam=True)
    assert len(refused.value.problems) == 3
