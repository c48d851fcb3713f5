"""The alert rules by Prometheus' own tool: they parse, and each fires and is silent when it should."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DASHBOARDS = ROOT / "dashboards"
MUTATIONS = {
    "paused migrations are looked at": (
        "          unless on (migration) max by (migration) (last_over_time(backfill_paused[1h])) == 1\n",
        "",
    ),
    "held migrations are looked at": (
        "          unless on (migration) migration:backfill_held:ratio_rate15m > 0.1\n",
        "",
    ),
    "finished migrations are looked at": ('backfill_state{state=~"running|draining"}', "backfill_state"),
}


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("NOT TESTED: the alert rules, apt package prometheus (promtool)")
    return found


def ran(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_rules_are_valid(promtool: str):
    done = ran(promtool, "check", "rules", "--lint=all", "--lint-fatal", DASHBOARDS / "backfillctl.rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_and_is_silent_when_it_should(promtool: str):
    done = ran(promtool, "test", "rules", DASHBOARDS / "backfillctl.rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_tests_of_the_rules_notice_when(promtool: str, tmp_path: Path, mutation: str):
    old, new = MUTATIONS[mutation]
    rules = (DASHBOARDS / "backfillctl.rules.yml").read_text(encoding="utf-8")
    assert old in rules
    (tmp_path / "backfillctl.rules.yml").write_text(rules.replace(old, new), encoding="utf-8")
    shutil.copy(DASHBOARDS / "backfillctl.rules.test.yml", tmp_path)
    assert ran(promtool, "check", "rules", tmp_path / "backfillctl.rules.yml").returncode == 0
    assert ran(promtool, "test", "rules", tmp_path / "backfillctl.rules.test.yml").returncode == 1


def test_an_installation_has_the_dashboard_and_the_rules():
    described = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = described["tool"]["setuptools"]["data-files"]["share/backfillctl/dashboards"]
    found = {path.name for pattern in shipped for path in ROOT.glob(pattern)}
    assert found == {
        "README.md", "backfillctl.json", "backfillctl.rules.yml", "backfillctl.rules.test.yml",
    }  # fmt: skip
