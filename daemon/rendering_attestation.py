"""A verdict on whether the source may be dropped, for people and for programs; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon import __version__
from daemon import rendering_units as units
from daemon.drop_sql import CopiedTable, drop_statements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.rows import ServerFacts
    from daemon.verdict import Facts
    from daemon.verified_conditions import Condition
    from journal.attestation import SourceDigest

SCHEMA_VERSION = 1
"""Version of `attestation_json`: fields may be added under the same one."""


@dataclass(frozen=True, slots=True)
class Attestation:
    """A verdict and all that it rests on.

    Attributes:
        server: which PostgreSQL was asked.
        digests: by source name.
        tables: by source name; what the printed SQL is about.
        now_us: when, microseconds since 1970-01-01 UTC.
        who: by whom.
    """

    facts: Facts
    conditions: Sequence[Condition]
    digests: Mapping[str, SourceDigest]
    tables: Mapping[str, CopiedTable]
    server: ServerFacts
    now_us: int
    who: str

    @property
    def go(self) -> bool:
        """Whether every condition holds."""
        return all(condition.met for condition in self.conditions)


def attestation_text(attestation: Attestation, *, width: int) -> str:
    """Return the verdict on one page: the verdict first, every condition, the digests, and on GO the SQL."""
    anchor = attestation.facts.journal.anchor
    failed = [condition for condition in attestation.conditions if not condition.met]
    if attestation.go:
        lines = ["GO: every row in scope is copied, and its copy was verified."]
    else:
        lines = [f"NO-GO: {units.plural(len(failed), 'condition')} of {len(attestation.conditions)} not met."]
    lines += units.wrap(
        f"migration {units.shown(anchor.migration_id)}, attested {units.moment_seconds(attestation.now_us)} by"
        f" {units.shown(attestation.who)}",
        width,
        rest="  ",
    )
    lines += ["", *_conditions(attestation.conditions, width), ""]
    for name, digest in attestation.digests.items():
        lines += units.wrap(
            f"{units.shown(name)}: {units.plural(digest.objects, 'object')}, {units.size(digest.size)}",
            width,
            rest="  ",
        )
        lines += units.fold(f"sha256 {digest.sha256}", width, first="  ", rest="    ")
    lines += [
        f"journal: event {units.count(anchor.head_seq)}",
        *units.fold(f"chain {anchor.chain}", width, first="  ", rest="    "),
    ]
    if attestation.go:
        lines += ["", "-- For you to run; nothing was dropped. It stops by itself if a table has changed."]
        lines += [_shown_sql(sql) + "\n" for sql in drop_statements(attestation.tables).values()]
    return "\n".join(lines).rstrip()


def _conditions(conditions: Sequence[Condition], width: int) -> list[str]:
    column = max(units.cells(condition.subject) for condition in conditions)
    column = min(column, width // 3)
    lines = []
    for condition in conditions:
        subject = units.pad(units.clip(units.shown(condition.subject), column), column, left=False)
        indent = " " * (6 + column + 2)
        mark = "ok" if condition.met else "NO-GO"
        lines += units.wrap(condition.text, width, first=f"{mark:<5} {subject}  ", rest=indent)
        if not condition.met and condition.hint:
            lines += units.wrap(f"hint: {condition.hint}", width, first=indent, rest=indent)
    return lines


def _shown_sql(text: str) -> str:
    """Return SQL line by line as a terminal may show it."""
    return "\n".join(units.shown(line) for line in text.splitlines())


def attestation_word(attestation: Attestation) -> str:
    """Return the verdict in one clause, as the last line of the log has it."""
    if attestation.go:
        return "GO"
    failed = [condition.subject for condition in attestation.conditions if not condition.met]
    return f"NO-GO: {', '.join(units.shown(subject) for subject in failed)}"


def attestation_json(attestation: Attestation) -> dict[str, Any]:
    """Return the verdict for programs; `attestation.schema.json` documents every field."""
    facts, anchor = attestation.facts, attestation.facts.journal.anchor
    server = attestation.server
    sql = drop_statements(attestation.tables) if attestation.go else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": "GO" if attestation.go else "NO-GO",
        "attested_us": attestation.now_us,
        "attested": units.moment(attestation.now_us),
        "who": attestation.who,
        "program_version": __version__,
        "migration_id": anchor.migration_id,
        "journal": {"head_seq": anchor.head_seq, "chain": anchor.chain},
        "server": {
            "system_identifier": server.system_identifier,
            "timeline": server.timeline,
            "version": server.version,
            "database": server.database,
            "in_recovery": server.in_recovery,
        },
        "demands": {
            "tier": None if facts.demands.tier is None else facts.demands.tier.value,
            "accept_unproven": facts.demands.accept_unproven,
            "excused": {name: sorted(keys) for name, keys in facts.demands.excused.items()},
        },
        "conditions": [
            {"subject": each.subject, "met": each.met, "text": each.text, "hint": each.hint}
            for each in attestation.conditions
        ],
        "sources": [
            {
                "name": source.name,
                "planned": source.planned,
                "stored": source.stored,
                "present": source.present,
                "skipped": source.skipped,
                "vanished": source.vanished,
                "parked": source.parked,
                "unsettled": source.unsettled,
                "closed": source.closed,
                "proven": source.proven,
                "closing_proof": source.closing_proof,
                "objects": attestation.digests[source.name].objects,
                "bytes": attestation.digests[source.name].size,
                "sha256": attestation.digests[source.name].sha256,
                "scan": _scan(attestation, source.name),
                "sql": sql.get(source.name),
            }
            for source in facts.journal.sources
        ],
        "verifications": [
            {
                "run": run.seq,
                "tier": run.tier,
                "finished_us": run.finished_us,
                "until_seq": run.until_seq,
                "sample": None if run.sample is None else {"keys": run.sample.keys, "of": run.sample.of},
                "checked": int(run.data.get("checked", 0)),
                "found": run.data.get("counts", {}),
                "bound": run.data.get("bound"),
                "exit_code": run.exit_code,
            }
            for run in facts.journal.runs
        ],
    }


def _scan(attestation: Attestation, name: str) -> dict[str, Any] | None:
    scanned = attestation.facts.scanned.get(name)
    if scanned is None:
        return None
    return {
        "seen": scanned.seen,
        "excluded": dict(scanned.excluded),
        "new": scanned.new,
        "reappeared": scanned.reappeared,
        "changed": scanned.changed,
        "examples": list(scanned.examples),
    }
