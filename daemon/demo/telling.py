"""What the demo says: numbered steps, commands and their output, within 80 columns of plain ASCII."""

from __future__ import annotations

import sys
import textwrap

COLUMNS = 80
OUTPUT_INDENT = "  | "
OUTPUT_COLUMNS = COLUMNS - len(OUTPUT_INDENT)
"""What is left for the output of a command."""
_ASCII = str.maketrans({"·": "|", "…": "~"})  # one for one, so that columns stay columns


class Telling:
    """The story so far; every line is flushed, so that a pipe shows it as it happens."""

    def __init__(self) -> None:
        self._step = 0

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._step += 1
        self.line(f"\n{self._step}. {title}")

    def say(self, text: str) -> None:
        """Tell what happens and why, as one paragraph."""
        self.line(textwrap.fill(text, COLUMNS, initial_indent="   ", subsequent_indent="   "))

    def command(self, words: str) -> None:
        """Show what a user would type."""
        self.line(f"   $ {words}")

    def output(self, text: str) -> None:
        """Show what a command printed; lines that are too long are wrapped."""
        for line in text.rstrip("\n").split("\n"):
            parts = textwrap.wrap(
                _plain(line), OUTPUT_COLUMNS, subsequent_indent="    ", break_on_hyphens=False
            )
            for part in parts or [""]:
                self.line((OUTPUT_INDENT + part).rstrip())

    def line(self, text: str) -> None:
        """Write one line as it is."""
        sys.stdout.write(_plain(text) + "\n")
        sys.stdout.flush()


def _plain(text: str) -> str:
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode()
