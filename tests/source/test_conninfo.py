from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from daemon.conninfo import Login, connection_target
from daemon.errors import ConfigError


def target(dsn, tmp_path, **env):
    return connection_target(dsn, env, tmp_path)


def query(found):
    return {name: values[0] for name, values in parse_qs(urlsplit(found.dsn).query).items()}


def test_a_plain_uri_passes_unchanged(tmp_path):
    found = target("postgresql://reader:s%40crt@db:5433/app", tmp_path)
    assert found.dsn == "postgresql://reader:s%40crt@db:5433/app"
    assert (found.where, found.timeout, found.application_name) == ("db:5433/app", 10.0, None)


def test_where_comes_from_the_variables_when_the_dsn_is_bare(tmp_path):
    assert target("postgresql://", tmp_path, PGHOST="h", PGPORT="5", PGDATABASE="d").where == "h:5/d"
    assert target("postgresql://", tmp_path).where == "local socket"


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), ("1", 2.0), ("0", 10.0), ("-1", 10.0)])
def test_connect_timeout_is_read_as_libpq_does(text, seconds, tmp_path):
    assert target(f"postgresql://db/app?connect_timeout={text}", tmp_path).timeout == seconds
    assert target("postgresql://db/app", tmp_path, PGCONNECT_TIMEOUT=text).timeout == seconds


def test_options_and_application_name_come_from_the_dsn_before_the_variables(tmp_path):
    env = {"PGOPTIONS": "-c geqo=off", "PGAPPNAME": "env"}
    found = target("postgresql://db/app?application_name=mine&options=-c%20jit%3Doff", tmp_path, **env)
    assert (found.application_name, found.server_settings) == ("mine", {"options": "-c jit=off"})
    fallen_back = target("postgresql://db/app", tmp_path, **env)
    assert (fallen_back.application_name, fallen_back.server_settings) == ("env", {"options": "-c geqo=off"})


SERVICES = "# comment\n[other]\nhost=wrong\n[app]\n host = db7 \nport=5439\npassword=p%a=b#c\nuser=from_service\n[app]\nhost=second\n"


@pytest.mark.parametrize("how", ["dsn", "variable", "system file"])
def test_a_service_fills_what_the_dsn_leaves_out(how, tmp_path):
    system = tmp_path / "system"
    system.mkdir()
    folder = system if how == "system file" else tmp_path
    (folder / (".pg_service.conf" if folder is tmp_path else "pg_service.conf")).write_text(SERVICES)
    dsn = "postgresql://?service=app&user=mine" if how == "dsn" else "postgresql://?user=mine"
    env = {} if how == "dsn" else {"PGSERVICE": "app", "PGSYSCONFDIR": str(system)}
    assert query(target(dsn, tmp_path, **env)) == {
        "host": "db7",
        "port": "5439",
        "password": "p%a=b#c",
        "user": "mine",
    }


def test_an_unknown_service_is_an_error_and_not_ignored(tmp_path):
    (tmp_path / "services").write_text("[app]\nhost=db\n")
    with pytest.raises(ConfigError, match="service 'ap' is defined in none of"):
        target("postgresql://?service=ap", tmp_path, PGSERVICEFILE=str(tmp_path / "services"))


def test_demands_that_can_not_be_honoured_are_all_named(tmp_path):
    env = {
        "PGHOSTADDR": "1.2.3.4",
        "PGCHANNELBINDING": "require",
        "PGGSSENCMODE": "prefer",
        "PGSSLROOTCERT": "/no/such",
    }
    with pytest.raises(ConfigError) as caught:
        target("postgresql://db/app?keepalives=1&zzz=2&connect_timeout=soon", tmp_path, **env)
    text = str(caught.value)
    assert len(caught.value.problems) == 6
    for part in ("keepalives", "zzz", "PGHOSTADDR", "PGCHANNELBINDING", "/no/such", "connect_timeout"):
        assert part in text
    assert "PGGSSENCMODE" not in text


def test_the_systems_root_certificates_can_be_named(tmp_path):
    found = target("postgresql://db/app?sslrootcert=system&sslmode=verify-full", tmp_path)
    assert found.system_roots
    assert query(found) == {"sslmode": "verify-full"}


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:canary@x@db/app",
        "postgresql://u:canary/x@db/app",
        "postgresql://u:canary#x@db/app",
        "postgresql://u:canary?x@db/app",
        "postgresql://db:canary/app",
        "postgresql://db/app?canary",
        "postgresql://[::1/app?canary=1",
        "postgresql://u:8461/canary@db/app",
        "postgresql://u:8461?canary=1@db/app",
        "postgresql://u:p@canary:99999999/app",
    ],
)
def test_a_malformed_uri_is_refused_without_being_quoted(dsn, tmp_path):
    with pytest.raises(ConfigError) as caught:
        target(dsn, tmp_path)
    assert "percent-encode" in caught.value.hint
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_repr_shows_no_password(tmp_path):
    assert "canary" not in repr(target("postgresql://u:canary@db/app?password=canary", tmp_path))


TLS = "sslmode=verify-full"


@pytest.mark.parametrize(
    ("dsn", "env", "login"),
    [
        (f"postgresql://me@db:5433/app?{TLS}", {}, Login("db", 5433, "me")),
        (f"postgresql://db/app?{TLS}&user=me", {}, Login("db", 5432, "me")),
        (f"postgresql://m%40e@[::1]:5/app?{TLS}", {}, Login("::1", 5, "m@e")),
        (f"postgresql://me@[fe80::1]/app?{TLS}", {}, Login("fe80::1", 5432, "me")),
        ("postgresql://?sslmode=require", {"PGHOST": "h", "PGPORT": "7", "PGUSER": "u"}, Login("h", 7, "u")),
        (f"postgresql://?{TLS}&host=h&port=8&user=u", {"PGHOST": "x", "PGPORT": "9"}, Login("h", 8, "u")),
        ("postgresql://me@db?sslrootcert=system", {}, Login("db", 5432, "me")),
        ("postgresql://me@db", {"PGSSLMODE": "verify-ca"}, Login("db", 5432, "me")),
    ],
)
def test_a_token_is_for_one_user_at_one_host(dsn, env, login, tmp_path):
    assert connection_target(dsn, env, tmp_path, iam=True).login == login
    assert connection_target(dsn, env, tmp_path).login is None


@pytest.mark.parametrize(
    ("dsn", "problem"),
    [
        (f"postgresql://me:secret@db?{TLS}", "postgres.dsn holds a password"),
        (f"postgresql://me@db?{TLS}&password=secret", "postgres.dsn holds a password"),
        ("postgresql://me@db", "found sslmode prefer;"),
        ("postgresql://me@db?sslmode=disable", "found sslmode disable;"),
        (f"postgresql://me@?{TLS}", "found no host;"),
        (f"postgresql://me@a,b?{TLS}", "found a,b;"),
        (f"postgresql://me@a:1,b:2?{TLS}", "found a;"),
        (f"postgresql://me@?{TLS}&host=/run/postgresql", "found /run/postgresql;"),
        (f"postgresql://me@db?{TLS}&port=5,6", "expected one port, a number"),
        (f"postgresql://db?{TLS}", "no user named;"),
    ],
)
def test_what_no_token_can_be_made_for_is_refused_alone_and_without_the_password(dsn, problem, tmp_path):
    with pytest.raises(ConfigError) as caught:
        connection_target(dsn, {}, tmp_path, iam=True)
    assert caught.value.problem.count("rds-iam") == 1 + (problem == "found a;")
    assert problem in caught.value.problem
    assert "secret" not in str(caught.value)
