"""Run `backfillctl plan` in this process and print, as the last line, when its steps ended.

    python -m benchmarks.planning_probe CONFIG

The journal has no event between reading and sealing, so the two calls at their seam are watched.
"""

from __future__ import annotations

import json
import sys
import time
from functools import wraps
from typing import TYPE_CHECKING, Any

from daemon.cli import cli
from daemon.passes import PassRunner
from journal.log import Journal
from journal.staging import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

moments: dict[str, float] = {}


def watched(owner: type, name: str, *, before: str = "", after: str = "") -> None:
    """Note the first time that a method of `owner` was entered and left."""
    original: Callable[..., Any] = getattr(owner, name)

    @wraps(original)
    def watching(*given: Any, **named: Any) -> Any:
        if before:
            moments.setdefault(before, time.perf_counter())
        result = original(*given, **named)
        if after:
            moments.setdefault(after, time.perf_counter())
        return result

    setattr(owner, name, watching)


def main() -> int:
    watched(PassRunner, "run", before="begun")
    watched(Stage, "sort", before="staged", after="sorted")
    watched(Journal, "seal_segment", after="sealed")
    watched(Journal, "build_key_index", after="indexed")
    code = cli.main(["plan", "-c", sys.argv[1]], standalone_mode=False)
    print(json.dumps({name: at - moments["begun"] for name, at in moments.items()}))
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
