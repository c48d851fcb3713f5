"""A command's cost is that of all its processes, and a wrong exit code is told with what was printed."""

import os
import sys

import pytest

from benchmarks.measuring import CommandFailed, run


def python(code, *arguments):
    return [sys.executable, "-c", code, *arguments]


def test_output_and_cpu_are_told():
    cost = run(python("print(sum(range(3_000_000)))"), env=os.environ)
    assert cost.output == "4499998500000\n"
    assert cost.cpu_seconds > 0
    assert cost.seconds > 0


def test_another_exit_code_than_expected_is_a_failure_that_quotes():
    with pytest.raises(CommandFailed, match=r"exit code 3\n.*on both"):
        run(python("import sys; print('said on both', file=sys.stderr); sys.exit(3)"), env=os.environ)
    assert run(python("raise SystemExit(3)"), env=os.environ, ended=3).output == ""
