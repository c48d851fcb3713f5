"""The proof at the end of a long run: the bucket against the table without the product, then the product's own checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.endurance import comparing

if TYPE_CHECKING:
    from benchmarks.endurance.journal_facts import Facts
    from benchmarks.endurance.migration import Migration
    from daemon.demo.postgres import EmbeddedPostgres
    from daemon.demo.seaweed import EmbeddedSeaweed

CHECKS = (("verify",), ("journal", "check"))
QUOTED = 1500


@dataclass
class Proof:
    """What was compared, and what was found to be wrong.

    Attributes:
        rows: that the migration owes; `objects`: that there are, those of rows deleted meanwhile included.
        difference: in words; empty: none.
        bytes_read: objects that were read whole and compared byte for byte.
        wrong_bytes: keys of those that differ.
        unexplained: keys that were uploaded again though no process died with them and no attempt failed.
        failed_checks: of the product's own, by name, with what it printed.
    """

    rows: int = 0
    objects: int = 0
    bytes: int = 0
    difference: str = ""
    bytes_read: int = 0
    wrong_bytes: list[str] = field(default_factory=list)
    unexplained: list[int] = field(default_factory=list)
    failed_checks: dict[str, str] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Return what is wrong; empty: nothing."""
        problems = [f"the bucket differs from the table: {self.difference}"] if self.difference else []
        if not self.rows:
            problems.append("no row was compared")
        if self.wrong_bytes:
            problems.append(f"bytes differ from the row: {', '.join(self.wrong_bytes)}")
        if self.unexplained:
            problems.append(f"{len(self.unexplained)} uploads were repeated without a cause on record")
        problems += [f"{name} failed:\n{said}" for name, said in self.failed_checks.items()]
        return problems

    def lines(self) -> list[str]:
        """Return it in words, for people."""
        checks = ", ".join(
            f"{' '.join(words)} {'FAILED' if ' '.join(words) in self.failed_checks else 'ok'}"
            for words in CHECKS
        )
        return [
            f"{self.rows:,} rows ({self.bytes / 1e6:,.0f} MB) against {self.objects:,} objects, size and MD5: "
            + (self.difference or "no difference"),
            f"{self.bytes_read} objects read byte for byte: {len(self.wrong_bytes)} differ; {checks}",
        ]


def prove(
    migration: Migration,
    facts: Facts,
    postgres: EmbeddedPostgres,
    server: EmbeddedSeaweed,
    *,
    seed: int,
    churned: bool,
) -> Proof:
    """Compare everything once the migration is done; `churned`: rows were changed and deleted on the way."""
    rows = comparing.rows_before(postgres, facts.cutoff_us)
    objects = comparing.listing(server)
    found = comparing.compare(rows, objects, comparing.earlier_contents(postgres) if churned else {})
    proof = Proof(
        rows=len(rows),
        objects=len(objects),
        bytes=sum(content.size for content in rows.values()),
        difference=str(found),
        unexplained=sorted(facts.unexplained),
    )
    if not found.missing:
        proof.bytes_read = min(comparing.SAMPLE, len(rows))
        proof.wrong_bytes = comparing.wrong_bytes(postgres, server, rows, seed)
    for words in CHECKS:
        code, said = migration.command(*words)
        if code != 0:
            proof.failed_checks[" ".join(words)] = f"exit code {code}\n{said[-QUOTED:]}"
    return proof
