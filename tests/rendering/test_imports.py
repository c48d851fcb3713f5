from __future__ import annotations

import subprocess
import sys


def test_rendering_imports_nothing_slow():
    program = (
        "import sys, daemon.rendering, daemon.rendering_bars, daemon.rendering_verification, daemon.rendering_view;"
        "slow = {'trio', 'httpx', 'asyncpg', 'botocore', 'pydantic', 'rich', 'sqlite_utils'};"
        "print(sorted(slow & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
