"""A session of psql, for statements one after another and for transactions that stay open."""

from __future__ import annotations

import subprocess
from typing import Self

from daemon.demo.postgres import EmbeddedPostgres


class Psql:
    """Runs statements as superuser in one connection."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._process = subprocess.Popen(
            [str(server.psql), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "postgres"],
            env=server.client_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def run(self, statement: str) -> None:
        """Run it to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{statement};\n\\echo done\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line == "done\n":
                return
        assert self._process.stderr is not None
        raise AssertionError(f"psql ended: {self._process.stderr.read()}")
