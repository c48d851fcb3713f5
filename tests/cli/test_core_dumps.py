"""A crash leaves no core file: it would hold passwords, keys and rows."""

from __future__ import annotations

import resource
import subprocess
import sys

SCRIPT = """
import resource, sys
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
sys.argv = ["backfillctl", "--version"]
from daemon.cli import main
try:
    main()
finally:
    print(*resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_every_command_forbids_core_files_and_leaves_the_operator_the_right_to_allow_them() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    assert done.stdout.splitlines()[-1] == f"0 {hard}"
