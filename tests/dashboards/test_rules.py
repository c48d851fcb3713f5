"""The alert rules by Prometheus' own tool: they parse, and each fires and is silent when it should."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DASHBOARDS = ROOT / "dashboards"


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


def test_an_installation_has_the_dashboard_and_the_rules():
    described = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = described["tool"]["setuptools"]["data-files"]["share/backfillctl/dashboards"]
    found = {path.name for pattern in shipped for path in ROOT.glob(pattern)}
    assert found == {
        "README.md", "backfillctl.json", "backfillctl.rules.yml", "backfillctl.rules.test.yml",
    }  # fmt: skip
