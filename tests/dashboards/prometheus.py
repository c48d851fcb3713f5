"""A real Prometheus on loopback, and its HTTP API."""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.parse import urlencode

import pytest

from daemon.demo.processes import ChildProcess, free_ports, scrubbed
from tests.faults.waiting import eventually

START_SECONDS_MAX = 30.0
CONFIGURATION = """\
global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: backfillctl
    static_configs: [{{ targets: ["127.0.0.1:{target}"] }}]
"""


class Prometheus:
    """Scrapes 127.0.0.1:`target` every second and evaluates `rules`, until it is left."""

    def __init__(self, directory: Path, *, target: int, rules: Path) -> None:
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("NOT TESTED: dashboard and alerts on a real Prometheus, apt package prometheus")
        (self._port,) = free_ports(1)
        configuration = directory / "prometheus.yml"
        configuration.write_text(CONFIGURATION.format(target=target, rules=rules), encoding="utf-8")
        self._process = ChildProcess(
            [
                program,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
                "--log.level=warn",
            ],
            log=directory / "prometheus.log",
            env=scrubbed(os.environ),
            cwd=directory,
        )

    def __enter__(self) -> Self:
        try:
            eventually(self._ready, "Prometheus is ready", seconds=START_SECONDS_MAX)
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def _ready(self) -> bool:
        log = self._process.log
        assert self._process.returncode is None, log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
                return True
        except URLError:
            return False

    def api(self, path: str, **parameters: object) -> Any:
        """The data of an answer of the API; a refused query fails the test with what Prometheus says."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as refusal:
            pytest.fail(f"{parameters}: {refusal.read().decode()}")
        assert document["status"] == "success"
        return document["data"]

    def now(self, expression: str) -> list[float]:
        """The values of an expression at this moment."""
        return [float(one["value"][1]) for one in self.api("query", query=expression)["result"]]

    def over(self, expression: str, begin: float, end: float) -> list[list[float]]:
        """The values of each series of an expression, second by second, where they are numbers."""
        found = self.api("query_range", query=expression, start=begin, end=end, step=1)["result"]
        series = ([float(value) for _, value in one["values"]] for one in found)
        return [numbers for one in series if (numbers := [value for value in one if value == value])]

    def until(self, expression: str, what: str) -> None:
        """Wait until an expression has a value."""
        eventually(lambda: self.now(expression), what)
