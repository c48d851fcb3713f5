"""Run `backfillctl plan` in this process and print, as the last line, when its steps ended, and how large it was by then.

    python -m benchmarks.planning_probe CONFIG

The journal has no event between reading and sealing, so the two calls at their seam are watched.
"""

from __future__ import annotations

import json
import sys
import time
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.cli import cli
from daemon.passes import PassRunner
from journal.log import Journal
from journal.staging import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

moments: dict[str, float] = {}
peaks: dict[str, float] = {}


def reached(name: str) -> None:
    """Note time and peak memory (10^6 bytes) the first time only: later passes are not what is measured."""
    if name not in moments:
        moments[name] = time.perf_counter()
        _, _, after = Path("/proc/self/status").read_text(encoding="ascii").partition("VmHWM:")
        peaks[f"{name}_mb"] = int(after.split(maxsplit=1)[0]) * 1024 / 1e6


def watched(owner: type, name: str, *, before: str = "", after: str = "") -> None:
    """Note the first time that a method of `owner` was entered and left."""
    original: Callable[..., Any] = getattr(owner, name)

    @wraps(original)
    def watching(*given: Any, **named: Any) -> Any:
        if before:
            reached(before)
        result = original(*given, **named)
        if after:
            reached(after)
        return result

    setattr(owner, name, watching)


def main() -> int:
    watched(PassRunner, "run", before="begun")
    watched(Stage, "sort", before="staged", after="sorted")
    watched(Journal, "seal_segment", after="sealed")
    watched(Journal, "build_key_index", after="indexed")
    code = cli.main(["plan", "-c", sys.argv[1]], standalone_mode=False)
    print(json.dumps({**{name: at - moments["begun"] for name, at in moments.items()}, **peaks}))
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
