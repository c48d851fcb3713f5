"""The long runs work: for a fraction of a minute, on the real servers, with real deaths on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.endurance.schedule import Kind

ROOT = Path(__file__).parents[2]
SEED = 42
"""Among the faults that it draws for so short a time are SIGKILLs, and no server that is slow to come back before."""


def ended(module, out, *words):
    command = [sys.executable, "-m", f"benchmarks.{module}", *words, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_soak_proves_what_it_copied_and_writes_every_sample(tmp_path):
    words = ("--minutes", "0.3", "--rows", "2000", "--seed", str(SEED), "--no-plot")
    assert ended("soak", tmp_path, *words).endswith("all is well\n")
    found = json.loads((tmp_path / "soak.json").read_text())
    assert Kind.KILL in {fault["kind"] for fault in found["faults"]}
    assert found["sessions"] >= 2
    assert found["proof"]["rows"] > 1000
    assert found["problems"] == []
    assert len({sample["pid"] for sample in found["samples"]}) >= 2
    assert found["samples"][-1]["progress"]["planned"] > 1000


def test_many_kills_repeat_no_more_than_they_may(tmp_path):
    ended("million", tmp_path, "--rows", "6000", "--kills", "2", "--processes", "1")
    found = json.loads((tmp_path / "million.json").read_text())
    assert len(found["kills"]) == 2
    assert all(kill["repeated"] <= kill["in_flight"] <= found["window"] for kill in found["kills"])
    assert any(kill["in_flight"] for kill in found["kills"])
    assert found["proof"]["objects"] == 6000
