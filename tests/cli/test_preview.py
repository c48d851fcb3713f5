from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.errors import ExitCode

from .migrations import Migration, refused

if TYPE_CHECKING:
    from .conftest import Invoke


def test_without_a_journal_a_dry_run_points_to_the_one_that_counts(invoke: Invoke, smallest: Path) -> None:
    text = invoke("run", "--dry-run", "-c", smallest)
    assert text.exit_code == 0
    assert "there is no journal at " in text.output
    assert "`plan --dry-run` counts" in text.output
    document = json.loads(invoke("run", "--dry-run", "--json", "-c", smallest).output)
    assert document == {"schema_version": 1, "journal": None, "sources_added": ["attachments"]}
    assert [path.name for path in smallest.parent.iterdir()] == ["backfill.toml"]


def test_json_is_of_a_dry_run_only(invoke: Invoke, smallest: Path) -> None:
    result = invoke("run", "--json", "-c", smallest)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert "--json without --dry-run" in result.stderr


def test_a_wrong_configuration_is_refused_as_run_refuses_it(invoke: Invoke, smallest: Path) -> None:
    smallest.write_text(smallest.read_text().replace('key = "id"', "key = 7"))
    assert invoke("run", "--dry-run", "-c", smallest).exit_code == ExitCode.USAGE


def test_a_dry_run_needs_neither_end_and_changes_nothing(migration: Migration) -> None:
    assert migration("run").returncode == 0
    migration.changes["dsn"] = "postgresql://127.0.0.1:9/none"
    migration.changes["endpoint"] = "http://127.0.0.1:9"
    with migration.untouched():
        done = migration("run --dry-run")
    assert done.returncode == 0
    assert "`run` would drive 0 keys, and upload none of the settled ones again" in done.stdout
    assert "every key is settled (event " in done.stdout


def test_another_migrations_journal_is_refused_as_run_refuses_it(migration: Migration) -> None:
    assert migration("run").returncode == 0
    migration.changes["prefix"] = "elsewhere/"
    with migration.untouched():
        said = refused(migration("run --dry-run"), ExitCode.USAGE)
    assert 'attachments.prefix: journal has "' in said
    assert 'config has "elsewhere/"' in said


def test_what_the_configuration_changes_is_told_with_both_values(migration: Migration) -> None:
    assert migration("run").returncode == 0
    migration.sections["upload"] = "concurrency = 3"
    assert "upload.concurrency: 64, now 3" in migration("run --dry-run").stdout
    assert "limits.limit = 5" in migration("run --dry-run --limit 5").stdout
