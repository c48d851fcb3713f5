"""What a configuration read anew may change in mid-run, and what it may not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from daemon.config import Config, load
from daemon.errors import ConfigError
from daemon.reloading import needing_restart, reloaded
from tests.control.test_commands import events, live, started
from tests.faults.waiting import eventually
from tests.faults.worlds import World

SMALLEST = """\
[migration]
name = "blobs"
journal = "journal.db"
[postgres]
dsn = "postgresql://reader:hunter2@db/app"
[s3]
endpoint = "http://127.0.0.1:9"
bucket = "blobs"
[upload]
concurrency = 8
[[source]]
name = "attachments"
table = "public.attachments"
key = "id"
value = "data"
"""


def config_of(tmp_path: Path, *changes: tuple[str, str]) -> Config:
    text = SMALLEST
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "backfill.toml"
    path.write_text(text)
    path.chmod(0o600)
    return load(path, {}, {}, now_us=2**50)


def test_concurrency_and_the_throttle_are_taken_over_and_need_no_restart(tmp_path: Path) -> None:
    before = config_of(tmp_path)
    after = config_of(
        tmp_path, ("concurrency = 8", "concurrency = 9\n[throttle]\nrows_per_second = 5\nreplica_lag = '3s'")
    )
    found = reloaded(before, after, cutoff_us=None)
    assert (found.upload.concurrency, found.throttle.rows_per_second, found.throttle.replica_lag) == (9, 5, 3)
    assert needing_restart(before, after) == []


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("concurrency = 8", "concurrency = 8\nmax_attempts = 3", "upload.max_attempts"),
        ("reader:hunter2", "reader:hunter3", "postgres.dsn"),
        ('bucket = "blobs"', 'bucket = "blobs"\nsse = "AES256"', "s3.sse"),
        ('value = "data"', 'value = "data"\ncontent_type = "a/b"', 'source "attachments".content_type'),
        ("concurrency = 8", "concurrency = 8\n[control]\nsocket = '/a'", "control.socket"),
    ],
)
def test_what_waits_for_a_restart_is_named_without_its_value(
    tmp_path: Path, old: str, new: str, key: str
) -> None:
    before, after = config_of(tmp_path), config_of(tmp_path, (old, new))
    assert needing_restart(before, after) == [key]
    assert reloaded(before, after, cutoff_us=None) == before


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("public.attachments", "public.others", "table: found public.others; expected public.attachments"),
        ('key = "id"', 'key = "uid"', "key: found ['uid']; expected ['id']"),
        ('bucket = "blobs"', 'bucket = "blobs2"', "bucket: found blobs2; expected blobs"),
        ("127.0.0.1:9", "127.0.0.2:9", "endpoint_host"),
        ('name = "blobs"', 'name = "other"', "migration.name: found other; expected blobs"),
        ("journal.db", "other.db", "migration.journal"),
        ('name = "blobs"', 'name = "blobs"\norder = "oldest-first"', "migration.order"),
        ('name = "attachments"', 'name = "new"', 'source "new": new; it begins with the next session'),
    ],
)
def test_another_migration_is_refused_with_the_difference(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        reloaded(config_of(tmp_path), config_of(tmp_path, (old, new)), cutoff_us=None)
    assert told in refused.value.problem
    assert "hunter2" not in str(refused.value)


def test_every_difference_is_told_at_once(tmp_path: Path) -> None:
    other = config_of(tmp_path, ("public.attachments", "public.others"), ('key = "id"', 'key = "uid"'))
    with pytest.raises(ConfigError) as refused:
        reloaded(config_of(tmp_path), other, cutoff_us=None)
    assert len(refused.value.problems) == 2


def test_a_cutoff_written_down_after_the_journal_fixed_it_is_no_difference(tmp_path: Path) -> None:
    before = config_of(tmp_path)
    dated = config_of(tmp_path, ('name = "blobs"', 'name = "blobs"\ncutoff = 1970-01-01T00:00:05Z'))
    assert reloaded(before, dated, cutoff_us=5_000_000).upload == before.upload
    with pytest.raises(ConfigError, match="cutoff"):
        reloaded(before, dated, cutoff_us=6_000_000)


def test_sighup_puts_the_files_tunables_in_force_and_a_wrong_file_changes_nothing(paused: World) -> None:
    with started(paused) as daemon:
        paused.upload = {"concurrency": 5, "max_attempts": 3}
        paused.configure()
        daemon.send(signal.SIGHUP)
        told = "heeded from the next session on: upload.max_attempts"
        eventually(lambda: told in daemon.output(), "the new configuration")
        assert live(paused)["concurrency"] == 5
        assert events(paused, "settings_changed")[-1]["cause"] == "SIGHUP"

        path = paused.configure()
        text = path.read_text()
        path.write_text(text.replace("public.rows", "public.others").replace("= 5", "= 6"))
        daemon.send(signal.SIGHUP)
        eventually(lambda: "expected public.rows" in daemon.output(), "the refusal")
        path.write_text("no TOML")
        daemon.send(signal.SIGHUP)
        eventually(lambda: "not valid TOML" in daemon.output(), "the other refusal")
        assert live(paused)["concurrency"] == 5
        assert daemon.running()
        path.write_text(text)
        assert paused.command("resume").returncode == 0
        assert daemon.exit_code() == 0
    paused.assert_copied()


def test_sighup_during_start_up_does_no_harm(paused: World) -> None:
    with paused.daemon() as daemon:
        eventually(lambda: catches_sighup(daemon.pid), "its handler")
        for _ in range(20):
            daemon.send(signal.SIGHUP)
        paused.until_recorded(daemon, "session_started", count=2)
        assert live(paused)["concurrency"] == 64
        assert paused.command("drain").returncode == 0
        assert daemon.exit_code() == 8


def catches_sighup(pid: int) -> bool:
    """Whether the process has a handler: SigCgt of proc(5), a bit per signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGHUP - 1) & 1)
