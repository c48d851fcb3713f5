"""`python -m daemon` is `backfillctl`."""

from __future__ import annotations

from daemon.cli import main

main()
