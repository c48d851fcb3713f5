from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from daemon.demo.postgres import EmbeddedPostgres
from daemon.demo.seaweed import EmbeddedSeaweed, Identity
from tests.faults.counting_proxy import CountingProxy
from tests.faults.worlds import Table
from tests.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, Capabilities, S3Server
from tests.systemd.instances import HELD, Instance, ServedWorld, installation
from tests.systemd.machine import CGROUPS, SHARE, Machine

ROOT = Path(__file__).parents[2]
NOT_SHIPPED = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "tests", "benchmarks"
)
NEEDED = ["unshare", "nsenter", "setpriv", "systemctl", "/usr/bin/python3"]

MakeInstance = Callable[..., Instance]


class Servers(NamedTuple):
    """On the machine's loopback."""

    postgres: EmbeddedPostgres
    weed: EmbeddedSeaweed


def _missing() -> str:
    """Why a systemd can't be booted here; empty where it can."""
    if os.geteuid() != 0:
        return "root"
    absent = [name for name in NEEDED if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    if absent:
        return ", ".join(absent)
    if not any((one / "cgroup.procs").exists() for one in CGROUPS):
        return "the unified cgroup hierarchy"
    tried = subprocess.run(
        [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--net",
            "--cgroup",
            "mount",
            "-t",
            "tmpfs",
            "tmpfs",
            "/mnt",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        return f"the right to make namespaces and mounts ({tried.stderr.strip()})"
    python = subprocess.run(
        [
            "/usr/bin/python3",
            "-c",
            "import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))",
        ],
        capture_output=True,
        check=False,
    )
    return (
        ""
        if python.returncode == 0
        else "a supported /usr/bin/python3 with its venv, apt package python3-venv"
    )


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A booted systemd with backfillctl installed by all of README's commands but the last, which starts it."""
    missing = _missing()
    if missing:
        pytest.skip(f"NOT TESTED: the service under a real systemd needs {missing}")
    with Machine() as booted:
        shutil.copytree(ROOT, booted.directory / "source", ignore=NOT_SHIPPED)
        for line in installation()[:-1]:
            booted.shell(line, cwd=str(SHARE / "source"))
        yield booted


@pytest.fixture(scope="session")
def servers(machine: Machine) -> Iterator[Servers]:
    with ExitStack() as stack:
        with machine.network():
            postgres = stack.enter_context(EmbeddedPostgres())
            identities = [Identity(ACCESS_KEY, SECRET_KEY)]
            weed = stack.enter_context(EmbeddedSeaweed(identities, buckets=[BUCKET]))
        yield Servers(postgres, weed)


@pytest.fixture(autouse=True)
def on_its_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put a test that uses the machine's servers on the machine's network, and only that test."""
    if "servers" not in request.fixturenames:
        yield
        return
    with request.getfixturevalue("machine").network():
        yield


@pytest.fixture
def proxy(servers: Servers, on_its_network: None) -> Iterator[CountingProxy]:
    """Between the service and the bucket."""
    with CountingProxy(servers.weed.port) as proxy:
        yield proxy


@pytest.fixture
def make_instance(
    machine: Machine, servers: Servers, proxy: CountingProxy, tmp_path: Path
) -> Iterator[MakeInstance]:
    """Make an instance with rows of its own; stopped and forgotten after the test."""
    made: list[Instance] = []

    def make(name: str, rows: int = 200) -> Instance:
        table = Table(f"rows_{name}")
        server = S3Server("weed", servers.weed.endpoint, Capabilities(), port=servers.weed.port)
        directory = tmp_path / name
        directory.mkdir()
        world = ServedWorld(
            directory,
            servers.postgres.dsn(),
            servers.postgres.sql,
            server,
            [table],
            proxy=proxy,
            upload={"concurrency": HELD},
            machine=machine,
            name=name,
        )
        world.fill(table, rows)
        instance = Instance(machine, name, world)
        instance.configure()
        made.append(instance)
        return instance

    yield make
    proxy.release()
    for instance in made:
        machine.run("systemctl", "stop", instance.unit)
