from __future__ import annotations

import logging
import traceback
from random import Random

import pytest
import trio

from daemon.config import PostgresConfig
from daemon.conninfo import connection_target
from daemon.demo.processes import free_ports
from daemon.errors import BackfillError
from daemon.retrying import Failure
from daemon.rows import Wanted
from daemon.source import open_source
from tests.source.sources import TABLE, spec

CANARY = "c4n4ry-p4ssw0rd"


@pytest.fixture
def canary_dsn(database):
    role = f"{database.name}_canary"
    database.sql(f"create role {role} login password '{CANARY}'; " + TABLE + f"grant select on t to {role}")
    yield database.dsn_of(role, CANARY)
    database.sql(f"drop owned by {role}; drop role {role}")


def everything_said(error, caplog):
    """All that an operator or a log could come to see of an error, its causes and locals' reprs left out."""
    texts = traceback.format_exception(error)
    while error is not None:
        texts += [str(error), repr(error), repr(error.args)]
        error = error.__cause__ or error.__context__
    texts += [record.getMessage() for record in caplog.records]
    return "\n".join(texts)


def ports():
    return free_ports(1)[0]


async def failing(dsn, **settings):
    with pytest.raises((BackfillError, Failure)) as caught:
        async with open_source(
            PostgresConfig(dsn=dsn, **settings), migration="test", give_up_after=0.0, random=Random(1)
        ) as source:
            await source.fetch(spec(), await source.describe(spec("missing")), [Wanted("a", 1)])
    return caught.value


MALFORMED = {
    "host without port": lambda dsn: dsn.replace("@127.0.0.1", "@@127.0.0.1"),
    "wrong password": lambda dsn: dsn.replace("_canary:", "_canary:x"),
    "wrong user": lambda dsn: dsn.replace("postgresql://", "postgresql://x"),
    "wrong database": lambda dsn: dsn + "x",
    "missing table": lambda dsn: dsn,
    "nobody listens": lambda dsn: f"postgresql://u:{CANARY}@127.0.0.1:{ports()}/app",
    "unknown host": lambda dsn: f"postgresql://u:{CANARY}@no.such.host.invalid/app",
    "tls demanded": lambda dsn: dsn + "?sslmode=require",
    "tls verified": lambda dsn: dsn + "?sslmode=verify-full",
    "bad sslmode": lambda dsn: dsn + "?sslmode=x",
    "bad parameter": lambda dsn: dsn + f"?sslpasswort={CANARY}",
    "bad timeout": lambda dsn: dsn + f"?connect_timeout={CANARY}",
    "password as port": lambda dsn: f"postgresql://u:{CANARY}/x@127.0.0.1/app",
    "server refuses a setting": lambda dsn: dsn + "?options=-c%20geqo%3Dmaybe",
}


@pytest.mark.parametrize("mistake", MALFORMED)
async def test_no_failure_to_connect_shows_the_password(mistake, canary_dsn, caplog):
    caplog.set_level(logging.DEBUG)
    error = await failing(MALFORMED[mistake](canary_dsn))
    assert CANARY not in everything_said(error, caplog)


async def test_no_failure_of_a_working_source_shows_the_password(canary_dsn, database, caplog):
    caplog.set_level(logging.DEBUG)
    config = PostgresConfig(dsn=canary_dsn)
    async with open_source(config, migration="test", give_up_after=0.0, random=Random(1)) as source:
        facts = await source.describe(spec())
        assert await source.fetch(spec(), facts, [Wanted("a", 1)]) == []
        shown = repr(source) + repr(source._planning) + repr(source._fetching) + repr(config) + str(config)
        database.sql(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'backfillctl test'"
        )
        with pytest.raises(Failure) as caught:
            await source.fetch(spec(), facts, [Wanted("a", 1)])
        with trio.CancelScope() as scope:
            scope.cancel()
            await source.fetch(spec(), facts, [Wanted("a", 1)])
    assert CANARY not in everything_said(caught.value, caplog) + shown


def test_the_parsed_target_shows_no_password_in_its_repr(tmp_path):
    services = tmp_path / "services"
    services.write_text(f"[app]\nhost=db\npassword={CANARY}\n")
    target = connection_target("postgresql://?service=app", {"PGSERVICEFILE": str(services)}, tmp_path)
    assert CANARY in target.dsn
    assert CANARY not in repr(target)
