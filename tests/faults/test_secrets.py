"""Two canaries, one password and one secret key: after runs that fail in every way they are nowhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from daemon.demo.seaweed import EmbeddedSeaweed, Identity
from tests.conftest import Database
from tests.faults.worlds import Table, World
from tests.s3_servers import ACCESS_KEY, BUCKET, Capabilities, S3Server

PASSWORD = "pg-canary-0f7d5c1e"
WRONG_PASSWORD = "pg-canary-wrong-77aa"
SECRET_KEY = "s3-canary-5e21b90d"
WRONG_SECRET_KEY = "s3-canary-wrong-19cd"
CANARIES = (PASSWORD, WRONG_PASSWORD, SECRET_KEY, WRONG_SECRET_KEY)


@pytest.fixture
def guarded(database: Database, tmp_path: Path) -> World:
    """A migration by a role of its own, whose password stands in the DSN."""
    role = f"reader_{database.name}"
    world = World(
        tmp_path,
        database.dsn_of(role, PASSWORD),
        database.sql,
        S3Server("weed", "", Capabilities()),
        [Table("rows")],
    )
    world.fill(world.tables[0], 600)
    world.sql(
        f"create role {role} login password '{PASSWORD}'; grant select on all tables in schema public to {role}"
    )
    return world


class Said:
    """Everything that was printed and everything that lies in the journal's directory, but for the config file."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.artefacts: dict[str, bytes] = {}

    def note(self, name: str, text: str | bytes) -> None:
        self.artefacts[f"{len(self.artefacts)} {name}"] = text if isinstance(text, bytes) else text.encode()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = self._world.command(*arguments)
        self.note(" ".join(arguments), done.stdout + done.stderr)
        return done

    def files(self, moment: str) -> None:
        for path in self._world.directory.iterdir():
            if path.is_file() and path.name != "backfill.toml":
                self.note(f"{path.name} {moment}", path.read_bytes())

    def assert_silent(self) -> None:
        assert sum(map(len, self.artefacts.values())) > 100_000
        leaks = [
            (name, canary)
            for name, content in self.artefacts.items()
            for canary in CANARIES
            if canary.encode() in content
        ]
        assert not leaks


def test_no_secret_is_anywhere_after_runs_that_failed_in_every_way(guarded: World) -> None:
    world, said = guarded, Said(guarded)
    right = world.dsn
    with EmbeddedSeaweed([Identity(ACCESS_KEY, SECRET_KEY)], buckets=[BUCKET]) as weed:
        world.server = S3Server("weed", weed.endpoint, Capabilities(), secret_key=SECRET_KEY, port=weed.port)
        world.upload = {"concurrency": 2, "give_up_after": "2s"}
        world.s3 = {"io_timeout": "2s"}

        world.dsn = right.replace(PASSWORD, WRONG_PASSWORD)
        assert said.command("run").returncode == 6
        said.command("check")
        world.dsn = right

        world.secret_key = WRONG_SECRET_KEY
        assert said.command("run").returncode == 6
        said.command("check")
        world.secret_key = None

        with world.daemon() as daemon:
            world.until_settled(daemon, 20)
            said.note("cmdline", Path(f"/proc/{daemon.pid}/cmdline").read_bytes())
            assert daemon.kill()
            said.note("killed", daemon.output())
        said.files("after the kill")

        # A row that fails its attempts, and a server that goes away in the middle of the rest.
        with world.daemon() as daemon:
            world.until_settled(daemon, 40)
            weed.kill()
            assert daemon.exit_code() == 5
            said.note("weed down", daemon.output())
        said.files("after weed went")

        weed.start()
        with world.daemon("--verify") as daemon:
            assert daemon.exit_code() == 0
            said.note("completed", daemon.output())
    for arguments in (
        ["status"],
        ["status", "--json"],
        ["events"],
        ["events", "--json"],
        ["explain", "7-row"],
        ["explain", "7-row", "--json"],
        ["journal", "export"],
        ["journal", "check"],
    ):
        assert said.command(*arguments).returncode == 0, arguments
    said.files("in the end")
    said.assert_silent()


def test_no_process_of_a_migration_has_a_secret_in_its_arguments_or_may_dump_core(world: World) -> None:
    world.upload = {"processes": 2, "concurrency": 2}
    world.throttle = {"rows_per_second": 50}
    world.fill(world.tables[0], 600)
    with world.daemon() as daemon:
        world.until_settled(daemon, 1)
        tasks = Path(f"/proc/{daemon.pid}/task").iterdir()
        children = [pid for task in tasks for pid in (task / "children").read_text().split()]
        processes = [f"/proc/{pid}" for pid in (daemon.pid, *children)]
        uploaders = [path for path in processes if b"upload_process" in Path(path, "cmdline").read_bytes()]
        assert len(uploaders) == 2
        for path in processes:
            arguments = Path(path, "cmdline").read_bytes()
            assert world.server.secret_key.encode() not in arguments
            assert world.dsn.encode() not in arguments
            limits = Path(path, "limits").read_text().splitlines()
            (core,) = [line.split()[4] for line in limits if line.startswith("Max core file size")]
            assert core == "0"


def test_the_search_finds_a_canary_where_there_is_one(guarded: World) -> None:
    said = Said(guarded)
    said.note("padding", b" " * 100_001)
    said.assert_silent()
    said.note("leak", f"connect to {guarded.dsn}")
    with pytest.raises(AssertionError, match=PASSWORD):
        said.assert_silent()
