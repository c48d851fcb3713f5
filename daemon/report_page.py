"""`report.html`: one page that needs nothing but itself, for a screen and for paper; pure.

It shows the report's document (`report_document`) and computes no figure of its own. Foreign text is made safe for the
eye (`rendering_units.shown`), then for HTML.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
from importlib import resources
from typing import TYPE_CHECKING, Any

from daemon import rendering_units as units
from daemon.causes import cause_words
from daemon.page_parts import foreign
from daemon.report_document import PARTS
from daemon.report_parts import section, table
from daemon.report_plots import Mark, bars, timeline
from daemon.report_sections import actions, failures, parked, sessions, verifications

if TYPE_CHECKING:
    from collections.abc import Mapping

_PART_WORDS = {"in_flight": "in flight"}


def report_page(document: Mapping[str, Any]) -> str:
    """Return the page of a report."""
    sections = [
        _outcome(document),
        _sources(document),
        _estimate(document),
        _course(document),
        _histograms(document),
        failures(document),
        parked(document),
        verifications(document),
        actions(document),
        sessions(document),
        _environment(document),
    ]
    style = _style()
    policy = f"default-src 'none'; style-src 'sha256-{_hash(style)}'; base-uri 'none'; form-action 'none'"
    title = f"{units.shown(document['name'])}: migration report"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body><main>"
        f'<header class="top"><h1>Migration {foreign(document["name"])}</h1>'
        f"<span>report of {units.moment_seconds(document['made_us'])}</span>"
        f'<span class="asof">as of event {units.count(document["journal"]["head_seq"])},'
        f" {units.moment_seconds(document['last_event_us'])}</span></header>"
        f"{''.join(sections)}</main>{_footer(document)}</body></html>\n"
    )


@functools.cache
def _style() -> str:
    folder = resources.files("daemon")
    return "".join(
        (folder / name).read_text(encoding="utf-8") for name in ("status_page.css", "report.css")
    ).replace("url(#hatch)", "var(--parked)")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _outcome(document: Mapping[str, Any]) -> str:
    outcome = document["outcome"]
    settled, planned = units.count(outcome["settled"]), units.plural(outcome["planned"], "planned key")
    if outcome["mismatch"]:
        tone, verdict = "bad", "A verification found a mismatch."
    elif outcome["verified"]:
        tone, verdict = "good", "Complete, and verified since."
    elif outcome["complete"]:
        tone, verdict = "warn", "Complete, and not verified since."
    else:
        tone, verdict = "warn", "Not complete."
    code = outcome["session_exit_code"]
    ended = "" if code is None else f" The last session ended with exit code {code}."
    return (
        '<section class="sheet" aria-label="Outcome">'
        f'<p class="verdict {tone}">{verdict} {settled} of {planned} settled.</p>'
        f'<p class="lede">{foreign(outcome["text"])}.{ended} <code>backfillctl attest</code> says whether the source may'
        " be dropped.</p></section>"
    )


def _sources(document: Mapping[str, Any]) -> str:
    rows = []
    total: dict[str, int] = dict.fromkeys(PARTS, 0)
    for source in document["sources"]:
        parts = source["parts"]
        for part in PARTS:
            total[part] += parts[part]
        sums = units.count(sum(parts.values()))
        rows.append(
            [
                foreign(source["name"]).replace("_", "_<wbr>"),
                *(units.count(parts[part]) for part in PARTS),
                f'<span class="sum">= {sums}</span>',
                units.count(source["planned"]),
                units.size(source["planned_bytes"]),
                units.size(source["stored_bytes"]),
            ]
        )
    if len(rows) > 1:
        planned = sum(source["planned"] for source in document["sources"])
        rows.append(
            [
                "total",
                *(units.count(total[part]) for part in PARTS),
                f'<span class="sum">= {units.count(sum(total.values()))}</span>',
                units.count(planned),
                units.size(sum(source["planned_bytes"] for source in document["sources"])),
                units.size(sum(source["stored_bytes"] for source in document["sources"])),
            ]
        )
    heads = [
        "Source",
        *(_PART_WORDS.get(part, part) for part in PARTS),
        "sum",
        "planned",
        "bytes planned",
        "bytes stored",
    ]
    sums = table(heads, rows, texts=(0,), last="total" if len(document["sources"]) > 1 else "")
    places = table(
        ["Source", "from", "to", "left out by the plan", "planning"],
        [
            [
                foreign(source["name"]).replace("_", "_<wbr>"),
                foreign(source["table"]),
                foreign(f"s3://{source['bucket']}/{source['prefix']}"),
                _excluded(source),
                foreign(_closed(source)),
            ]
            for source in document["sources"]
        ],
        texts=(0, 1, 2, 3, 4),
    )
    return section("Every planned key", sums + places)


def _excluded(source: Mapping[str, Any]) -> str:
    told = [
        f"{units.count(number)} {reason.replace('_', ' ')}"
        for reason, number in source["excluded"].items()
        if number
    ]
    if source["unusable"]:
        told.append(f"{units.count(source['unusable'])} whose keys can't be objects (parked)")
    return html.escape(", ".join(told) or "nothing")


def _closed(source: Mapping[str, Any]) -> str:
    if not source["closed"]:
        return "not closed"
    return f"closed, {'proven' if source['proven'] else 'unproven'}: {source['closing_proof']}"


def _estimate(document: Mapping[str, Any]) -> str:
    planned, actual = document["estimate"]["planned"], document["estimate"]["actual"]
    rows = [
        ["objects", units.count(planned["rows"]), units.count(actual["rows"])],
        ["bytes", units.size(planned["bytes"]), units.size(actual["bytes"])],
        [
            "PUT requests",
            units.count(planned["puts"]),
            f"{units.count(actual['puts'])}<small>{units.count(actual['failed_puts'])} of them failed</small>",
        ],
        ["PUTs at list price", f"${planned['put_dollars']:,.2f}", f"${actual['put_dollars']:,.2f}"],
        ["time of all sessions", "", units.duration(actual["session_seconds"])],
    ]
    return section("As planned, and as it went", table(["", "planned", "actual"], rows))


def _course(document: Mapping[str, Any]) -> str:
    marks = [
        Mark(one["time_us"], "action", f"{one['kind'].replace('_', ' ')} {one['who']}")
        for one in document["actions"]["newest"]
    ] + [
        Mark(one["finished_us"], "verification", f"verified by {one['tier']}: {one['text']}")
        for one in document["verifications"]
    ]
    plot = timeline(document["timeline"], document["sessions"]["newest"], marks)
    legend = (
        '<p class="legend"><span><i class="objects"></i>objects/s</span><span><i class="bytes"></i>bytes/s</span>'
        '<span><i class="slow"></i>slowed down on purpose</span><span><i class="trouble"></i>trouble</span>'
        '<span><i class="operator"></i>paused</span><span><i class="action"></i>somebody acted</span>'
        '<span><i class="verification"></i>verified</span><span>time without a session is cut out</span></p>'
    )
    spent = document["time"]["spent_ms"]
    hours = bars(
        [
            (f"{cause_words(cause)} ({units.duration(ms / 1000)})", ms // 1000)
            for cause, ms in spent.items()
            if ms >= 1000
        ],
        "where the seconds went",
    )
    slow = table(
        ["slowed down by", "times", "in all", "last", "found"],
        [
            [
                html.escape(cause_words(one["cause"])),
                units.count(one["episodes"]),
                units.duration(one["ms"] / 1000),
                units.moment_seconds(one["last_us"]),
                foreign(one["last_detail"]),
            ]
            for one in document["time"]["slow_downs"]
        ],
        texts=(4,),
    )
    body = plot + legend if plot else '<p class="none">No session has put a sample on record.</p>'
    body += f"<h3>Where the time went, in seconds</h3>{hours}" if hours else ""
    return section("Course", body + (f"<h3>Slow-downs</h3>{slow}" if slow else ""))


def _histograms(document: Mapping[str, Any]) -> str:
    sizes = bars(
        [(f"below {units.size(one['below_bytes'])}", one["keys"]) for one in document["sizes"]],
        "keys by size",
    )
    puts = document["put_seconds"]
    if puts is None:
        latency = '<p class="none">Not recorded by the sessions so far.</p>'
    else:
        ordered = sorted(puts.items(), key=lambda item: float(item[0].replace("+Inf", "inf")))
        latency = bars(
            [(f"up to {bound} s" if bound != "+Inf" else "longer", number) for bound, number in ordered],
            "PUTs by duration",
        )
    body = f"<div><h3>Keys by size</h3>{sizes}</div><div><h3>PUTs by how long S3 took to answer</h3>{latency}</div>"
    return section("Sizes and latencies", f'<div class="pair">{body}</div>') if sizes or puts else ""


def _environment(document: Mapping[str, Any]) -> str:
    journal = document["journal"]
    facts = [
        ("migration", foreign(journal["migration_id"])),
        ("journal", f"event {units.count(journal['head_seq'])}, chain <code>{journal['chain']}</code>"),
        ("cutoff", "none" if document["cutoff_us"] is None else units.moment(document["cutoff_us"])),
        ("order", html.escape(document["order"])),
        *(
            (html.escape(one["kind"].replace("_", " ")), foreign(one["text"]))
            for one in document["environment"]
        ),
        *((foreign(name), foreign(str(value))) for name, value in document["settings"].items()),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return section("Environment and settings", f'<dl class="facts">{listed}</dl>')


def _footer(document: Mapping[str, Any]) -> str:
    return (
        f"<footer><span>backfillctl {html.escape(document['program_version'])}</span>"
        "<span>The same figures: report.json. Every key: keys.csv.gz. Hashes of all: manifest.json.</span></footer>"
    )
