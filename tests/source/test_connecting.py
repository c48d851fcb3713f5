from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
import trio
import trustme

from daemon.demo.postgres import EmbeddedPostgres
from daemon.demo.processes import ChildProcess, free_ports, scrubbed
from daemon.errors import ConfigError, ExitCode, RefusedError, SourceUnfitError, UnreachableError
from tests.source.sources import Opening


async def refused(dsn, kind=RefusedError):
    with pytest.raises(kind) as caught:
        async with Opening(dsn)():
            pass
    return caught.value


async def test_a_wrong_password_is_a_refusal_that_does_not_repeat_it(database):
    error = await refused(database.dsn_of("postgres", "canary"))
    assert error.exit_code == ExitCode.REFUSED
    assert 'password authentication failed for user "postgres"' in error.problem
    assert "canary" not in str(error)


async def test_an_unknown_database_is_a_refusal(postgres_server):
    assert 'database "nowhere" does not exist' in (await refused(postgres_server.dsn("nowhere"))).problem


async def test_a_port_that_nobody_listens_on_is_unreachable_at_once():
    (port,) = free_ports(1)
    with trio.fail_after(5):
        error = await refused(f"postgresql://reader:canary@127.0.0.1:{port}/app", UnreachableError)
    assert error.exit_code == ExitCode.UNREACHABLE
    assert f"127.0.0.1:{port}/app" in error.problem
    assert "canary" not in str(error)


async def test_a_port_that_never_answers_is_unreachable_after_the_connect_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent, trio.fail_after(8):
        port = silent.getsockname()[1]
        error = await refused(
            f"postgresql://r@127.0.0.1:{port}/app?connect_timeout=2&sslmode=disable", UnreachableError
        )
    assert "no answer in time" in error.problem


async def test_a_malformed_sslmode_is_a_configuration_error(postgres_server):
    assert "sslmode" in (await refused(postgres_server.dsn() + "?sslmode=maybe", ConfigError)).problem


async def test_pg_variables_say_what_the_dsn_leaves_out(postgres_server, monkeypatch):
    for name, value in postgres_server.client_environment().items():
        if name.startswith("PG"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("PGDATABASE", "postgres")
    async with Opening("postgresql://")() as source:
        assert (await source.server()).database == "postgres"


async def test_the_password_file_is_read_as_psql_does(postgres_server, monkeypatch, tmp_path):
    passfile = tmp_path / "pgpass"
    passfile.touch(mode=0o600)
    passfile.write_text(f"127.0.0.1:{postgres_server.port}:*:postgres:{postgres_server.password}\n")
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    async with Opening(f"postgresql://postgres@127.0.0.1:{postgres_server.port}/postgres")() as source:
        assert await source.server()


@pytest.mark.parametrize("granted", [True, False], ids=["credential", "elsewhere"])
async def test_the_groups_bit_is_no_leak_where_systemd_put_the_password_file(
    granted, postgres_server, monkeypatch, tmp_path
):
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"*:*:*:*:{postgres_server.password}\n")
    passfile.chmod(0o440)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path if granted else tmp_path / "other"))
    opening = Opening(f"postgresql://postgres@127.0.0.1:{postgres_server.port}/postgres")
    if granted:
        async with opening() as source:
            assert await source.server()
    else:
        with pytest.warns(UserWarning, match="group or world access"), pytest.raises(RefusedError):
            async with opening():
                pass


async def test_a_service_file_is_read_as_psql_does(postgres_server, monkeypatch, tmp_path):
    services = tmp_path / "services"
    services.write_text(
        f"[mine]\nhost=127.0.0.1\nport={postgres_server.port}\nuser=postgres\n"
        f"password={postgres_server.password}\ndbname=postgres\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    async with Opening("postgresql://?service=mine")() as source:
        assert await source.server()


async def test_an_old_server_is_refused_before_it_meets_a_setting_that_it_does_not_know(
    postgres_server, monkeypatch
):
    monkeypatch.setattr("daemon.catalogue.VERSION_MIN", 990000)
    monkeypatch.setattr("daemon.session_settings._ALWAYS", {"unknown_yet": "on"})
    error = await refused(postgres_server.dsn(), SourceUnfitError)
    assert "is version 18; expected 99 or later" in error.problem


POOLER = """
[databases]
app = host=127.0.0.1 port={port} dbname=postgres user=postgres password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {pool}
"""


@pytest.fixture
def pooler(postgres_server, tmp_path_factory):
    """Start pgbouncer in a mode; returns the DSN through it."""
    binary = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if binary is None:
        pytest.skip("NOT TESTED: pgbouncer, apt package pgbouncer")
    started = []

    def start(mode, pool):
        # pgbouncer refuses to run as root, and its user must reach its files.
        folder = postgres_server.directory / f"pooler-{mode}-{pool}"
        folder.mkdir(mode=0o755)
        (own_port,) = free_ports(1)
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            POOLER.format(
                port=postgres_server.port,
                password=postgres_server.password,
                own_port=own_port,
                mode=mode,
                pool=pool,
            )
        )
        process = ChildProcess(
            [Path(binary), settings], log=folder / "log", env=scrubbed({}), user=postgres_server.user
        )
        started.append(process)
        while b"process up" not in (folder / "log").read_bytes():
            assert process.wait(0.01) is None, process.log_tail()
        return f"postgresql://postgres@127.0.0.1:{own_port}/app?sslmode=disable"

    yield start
    for process in started:
        process.stop()


@pytest.mark.parametrize("pool", [1, 5])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_in_transaction_mode_is_refused(mode, pool, pooler):
    error = await refused(pooler(mode, pool))
    assert "a pooler in transaction mode" in error.problem
    assert "session mode" in error.hint


async def test_a_pooler_in_session_mode_serves(pooler, postgres_server):
    async with Opening(pooler("session", 5))() as source:
        assert (await source.server()).address == f"127.0.0.1:{postgres_server.port}"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_server(debian_binaries, authority):
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    files = {
        "server.key": certificate.private_key_pem.bytes(),
        "server.crt": b"".join(blob.bytes() for blob in certificate.cert_chain_pems),
    }
    with EmbeddedPostgres(binaries=debian_binaries, settings={"ssl": "on"}, files=files) as server:
        yield server


async def encrypted(dsn):
    async with Opening(dsn)() as source:
        return (await source.server()).version


async def test_tls_is_verified_as_sslmode_and_sslrootcert_say(tls_server, authority, tmp_path):
    roots = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(str(roots))
    for options in ("?sslmode=require", f"?sslmode=verify-full&sslrootcert={roots}"):
        assert await encrypted(tls_server.dsn() + options) // 10000 == 15


async def test_an_unknown_authority_is_a_refusal(tls_server, tmp_path):
    roots = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(roots))
    error = await refused(tls_server.dsn() + f"?sslmode=verify-full&sslrootcert={roots}")
    assert "TLS failed: " in error.problem
    assert "sslrootcert" in error.hint


async def test_the_systems_authorities_do_not_know_a_private_one(tls_server):
    assert "TLS failed: " in (await refused(tls_server.dsn() + "?sslrootcert=system")).problem


async def test_a_server_without_tls_is_refused_when_tls_is_demanded(postgres_server):
    error = await refused(postgres_server.dsn() + "?sslmode=require")
    assert "TLS failed: the server does not offer it" in error.problem
