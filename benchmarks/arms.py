"""The arms: each moves the same rows to a sink once and says how long that took and what it cost."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measuring import Cost, python, run
from benchmarks.quietness import machine_cpu_seconds, others_cores, process_cpu_seconds
from benchmarks.servers import BUCKET, Sink, Table, client_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.peers_environment import Peers
    from daemon.demo.postgres import EmbeddedPostgres


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one arm.

    Attributes:
        objects: moved.
        seconds: what the rate is made of; `arms` says per arm from when to when.
        wall_seconds: of the whole process, start and end included.
        cpu_seconds: of the whole process and its children, the sink's and PostgreSQL's not included.
        peak_mb: 10^6 bytes, resident.
        further: by name: `sink_cpu_seconds`, `postgres_cpu_seconds`, `others_cores` (that were busy with something
            else), `plan_seconds` of ours.
    """

    objects: int
    seconds: float
    wall_seconds: float
    cpu_seconds: float
    peak_mb: float
    further: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Objects per second."""
        return self.objects / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per object."""
        return self.cpu_seconds / self.objects * 1e3


@dataclass(frozen=True)
class Bench:
    """What all arms share: PostgreSQL, the peers' programs, a directory for what is written.

    Every measurement puts its objects under a prefix of its own, since a real sink keeps them.
    """

    postgres: EmbeddedPostgres
    peers: Peers
    directory: Path
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def fresh(self) -> str:
        """Return a name that was not used before."""
        return f"m{next(self._numbers)}"

    def reader_environment(self) -> dict[str, str]:
        """Return the environment of the peers' scripts, which read PostgreSQL: the password is in no argument."""
        return {**client_environment(), "BENCHMARK_DSN": self.postgres.dsn()}


def configuration(
    bench: Bench, place: Path, table: Table, sink: Sink, *, rows: int, connections: int, processes: int = 1
) -> Path:
    """Write the configuration of one migration of the first `rows` rows, its journal beside it."""
    lines = [
        "[migration]",
        'name = "benchmark"',
        f'journal = "{place / "journal.db"}"',
        "[postgres]",
        f'dsn = "{bench.postgres.dsn()}?sslmode=disable"',
        "[s3]",
        f'endpoint = "{sink.endpoint}"',
        f'bucket = "{BUCKET}"',
        'addressing = "path"',
        "[upload]",
        f"concurrency = {connections}",
        *([f"processes = {processes}"] if processes > 1 else []),
        "[[source]]",
        'name = "rows"',
        f'table = "public.{table.name}"',
        'key = "id"',
        'created_at = "created_at"',
        'value = "value"',
        f'prefix = "{place.name}/"',
        *([f'where = "n <= {rows}"'] if rows < table.rows else []),
    ]
    path = place / "migration.toml"
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return path


def backfillctl(command: str, path: Path, sink: Sink, *options: str, ended: int = 0) -> Cost:
    """Run one of our commands; `sink` says whose certificate to trust, `ended` with which exit code it must end."""
    env = client_environment()
    if sink.certificate is not None:
        env["AWS_CA_BUNDLE"] = str(sink.certificate / "authority.pem")
    return run([*python(), "daemon", command, "-c", path, *options], env=env, ended=ended)


def ours(
    bench: Bench, table: Table, sink: Sink, *, rows: int, connections: int, processes: int = 1
) -> Sample:
    """The real command line on a plan made before.

    From the first claim to the last outcome by the journal's own clock; the whole process is in `wall_seconds`, the
    plan in `plan_seconds`. CPU is the whole process's: start, probe, closing pass.
    """
    place = bench.directory / bench.fresh()
    place.mkdir()
    path = configuration(bench, place, table, sink, rows=rows, connections=connections, processes=processes)
    planned = backfillctl("plan", path, sink)
    cost, further = beside(bench, sink, lambda: backfillctl("run", path, sink))
    seconds, settled = copied(place / "journal.db")
    if settled != rows:
        raise AssertionError(f"expected {rows} objects stored, found {settled}")
    shutil.rmtree(place)
    further["plan_seconds"] = planned.seconds
    return Sample(rows, seconds, cost.seconds, cost.cpu_seconds, cost.peak_mb, further)


def beside(bench: Bench, sink: Sink, command: Callable[[], Cost]) -> tuple[Cost, dict[str, float]]:
    """Run `command`; return its cost, and what the servers and others took of the machine meanwhile."""
    pids = {"sink": sink.pid, "postgres": bench.postgres.pid}
    machine = machine_cpu_seconds()
    before = {name: process_cpu_seconds(pid) for name, pid in pids.items()}
    cost = command()
    used = {name: process_cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    others = others_cores(machine_cpu_seconds() - machine, cost.cpu_seconds, sum(used.values()), cost.seconds)
    return cost, {
        **{f"{name}_cpu_seconds": seconds for name, seconds in used.items()},
        "others_cores": others,
    }


def copied(journal: Path) -> tuple[float, int]:
    """Return the seconds from the first claim to the last outcome, and how many keys are stored."""
    connection = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
    try:
        (first,) = connection.execute("select min(ts) from event where kind = 'keys_claimed'").fetchone()
        (last,) = connection.execute("select max(ts) from event where kind = 'outcomes_recorded'").fetchone()
        (stored,) = connection.execute("select sum(stored) from tally").fetchone()
        probes = connection.execute("select data from event where kind = 'probe_recorded'").fetchall()
    finally:
        connection.close()
    # Where conditions don't hold, every PUT costs a HEAD before it: another arm than the one meant.
    if any(json.loads(data)["conditional"] != "atomic" for (data,) in probes):
        raise AssertionError(f"expected conditional PUTs to be found atomic, found {probes}")
    return (last - first) / 1e6, stored


def scripted(
    bench: Bench, script: str, table: Table, sink: Sink, *, rows: int, connections: int, head: bool = False
) -> Sample:
    """One of `benchmarks/peers`: from the first fetch to the last answer by its own clock, keys listed before."""
    words = [
        *bench.peers.script(script),
        *("--table", table.name, "--rows", str(rows)),
        *("--endpoint", sink.endpoint, "--bucket", BUCKET, "--prefix", f"{bench.fresh()}/"),
        *("--connections", str(connections), *(["--head"] if head else [])),
    ]
    cost, further = beside(bench, sink, lambda: run(words, env=bench.reader_environment()))
    told = json.loads(cost.output.splitlines()[-1])
    return Sample(told["objects"], told["seconds"], cost.seconds, cost.cpu_seconds, cost.peak_mb, further)


def export(bench: Bench, table: Table, *, rows: int) -> tuple[Path, Sample]:
    """Write every value to a file; the directory is the caller's to remove."""
    place = bench.directory / bench.fresh()
    place.mkdir()
    words = [
        *bench.peers.script("export"),
        *("--table", table.name, "--rows", str(rows), "--directory", str(place)),
    ]
    cost = run(words, env=bench.reader_environment())
    told = json.loads(cost.output.splitlines()[-1])
    return place, Sample(told["objects"], told["seconds"], cost.seconds, cost.cpu_seconds, cost.peak_mb)


def s5cmd(bench: Bench, files: Path, sink: Sink, *, rows: int, connections: int) -> Sample:
    """The files of `export`; the whole process counts."""
    words: list[str | Path] = [
        *(bench.peers.s5cmd, "--endpoint-url", sink.endpoint, "--numworkers", str(connections)),
        *("--log", "error", "cp", f"{files}/", f"s3://{BUCKET}/{bench.fresh()}/"),
    ]
    return _copier(bench, words, sink, rows)


def rclone(bench: Bench, files: Path, sink: Sink, *, rows: int, connections: int) -> Sample:
    """The files of `export`; the whole process counts.

    Without the HEAD that it makes after each PUT, which a null sink can't answer; it compares the ETag of the PUT.
    """
    remote = f":s3,provider=Other,env_auth=true,region=us-east-1,endpoint='{sink.endpoint}':"
    words: list[str | Path] = [
        *(bench.peers.rclone, "copy", "--config", "/dev/null", "--retries", "1"),
        *("--s3-no-check-bucket", "--s3-no-head", "--transfers", str(connections)),
        *("--checkers", str(connections), files, f"{remote}{BUCKET}/{bench.fresh()}"),
    ]
    return _copier(bench, words, sink, rows)


def _copier(bench: Bench, words: list[str | Path], sink: Sink, rows: int) -> Sample:
    cost, further = beside(bench, sink, lambda: run(words, env=client_environment()))
    return Sample(rows, cost.seconds, cost.seconds, cost.cpu_seconds, cost.peak_mb, further)


def exported_before(copied_files: Sample, exported: Sample) -> Sample:
    """Return a file copier's sample with the export's time and CPU added: what the whole way takes."""
    return replace(
        copied_files,
        seconds=copied_files.seconds + exported.seconds,
        wall_seconds=copied_files.wall_seconds + exported.wall_seconds,
        cpu_seconds=copied_files.cpu_seconds + exported.cpu_seconds,
        peak_mb=max(copied_files.peak_mb, exported.peak_mb),
    )
