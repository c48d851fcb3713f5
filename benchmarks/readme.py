"""Put a run's tables and plot where README shows them.

python -m benchmarks.readme benchmark-results
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- results -->\n", "<!-- /results -->\n"


def pasted(readme: str, results: str) -> str:
    """Return `readme` with `results` between its marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README: expected {BEGIN.strip()} and {END.strip()}, found no such pair")
    return f"{before}{BEGIN}{results}{END}{after}"


def main() -> int:
    run = Path(sys.argv[1])
    if json.loads((run / "results.json").read_text(encoding="utf-8"))["machine"]["is_quick"]:
        print("a smoke run's figures mean nothing", file=sys.stderr)
        return 1
    readme = ROOT / "README.md"
    results = (run / "results.md").read_text(encoding="utf-8")
    readme.write_text(pasted(readme.read_text(encoding="utf-8"), results), encoding="utf-8")
    shutil.copyfile(run / "throughput.png", ROOT / "benchmarks" / "throughput.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
