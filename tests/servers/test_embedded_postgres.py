from __future__ import annotations

import importlib.util
import os
import shutil

import pytest

from daemon.demo.postgres import EmbeddedPostgres, wheel_binaries
from daemon.errors import BackfillError, ExitCode


def test_a_killed_server_starts_again_on_its_port_with_its_data(disposable_postgres):
    server = disposable_postgres
    server.sql("create table t as select 42 as n")
    port = server.port
    server.kill()
    server.start()
    assert (server.port, server.sql("select n from t")) == (port, "42")


def test_a_frozen_server_stops(disposable_postgres):
    disposable_postgres.freeze()
    disposable_postgres.stop()
    with pytest.raises(BackfillError, match="not running"):
        _ = disposable_postgres.pid


def test_nothing_is_left_on_disk():
    with EmbeddedPostgres() as server:
        directory = server.directory
        assert directory.exists()
    assert not directory.exists()


def test_the_server_asks_for_the_password(postgres_server):
    environment = {**postgres_server.client_environment(), "PGPASSWORD": "wrong"}
    postgres_server.sql("select 1")
    original = postgres_server.client_environment
    postgres_server.client_environment = lambda: environment
    try:
        with pytest.raises(BackfillError, match="password authentication failed"):
            postgres_server.sql("select 1")
    finally:
        postgres_server.client_environment = original


def test_the_server_keeps_out_of_dev_shm(postgres_server):
    assert postgres_server.sql("show dynamic_shared_memory_type") == "mmap"


def test_a_failing_statement_is_an_error_with_the_servers_words(postgres_server):
    with pytest.raises(BackfillError, match='relation "missing" does not exist'):
        postgres_server.sql("select * from missing")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root drops to another user")
def test_root_copies_binaries_out_of_a_directory_that_nobody_else_may_enter(tmp_path):
    tmp_path.chmod(0o700)
    package = wheel_binaries().parent.parent
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), tmp_path / name, symlinks=True)
    with EmbeddedPostgres(binaries=tmp_path / package.name / "pginstall" / "bin") as server:
        assert server.psql.is_relative_to(server.directory)
        assert server.sql("select 1") == "1"


def test_a_platform_without_the_wheel_is_named_with_exit_code_2(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("platform.platform", lambda: "Plan9-mips")
    with pytest.raises(BackfillError, match="Plan9-mips") as caught:
        wheel_binaries()
    assert caught.value.exit_code == ExitCode.USAGE
