"""The status page: `status` for a browser, one HTML document that asks for nothing but itself; pure.

The server renders all of it; the script fetches the page again and changes what differs, so that there is one
renderer and the page without scripts is the same page. Foreign text is escaped twice: `shown` for what would mislead
an eye, HTML for what would mislead a browser.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
from enum import StrEnum
from importlib import resources
from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.page_parts import (
    banner,
    duration_or_dash,
    escaped,
    figure,
    rate_pair,
    segments_of,
    swatches,
)
from daemon.page_sections import faults, spent, steps, table
from daemon.rendering_verified import checked_words, found_words
from journal.status import MigrationState

if TYPE_CHECKING:
    from daemon.rendering_verified import Verified
    from daemon.rendering_view import View
    from journal.status import MigrationStatus


class Phase(StrEnum):
    """Where the process that serves the page is in its life."""

    STARTING = "starting"
    WORKING = "working"
    LINGERING = "lingering"


_MARKS = {
    "go": '<path d="M5 3v14l12-7z"/>',
    "wait": '<path d="M4 3h4v14H4zM12 3h4v14h-4z"/>',
    "done": '<path d="M8.2 16.4 2 10.2l2.4-2.4 3.8 3.8 7.6-7.6L18.2 6.4z"/>',
    "stop": '<path d="M4 4h12v12H4z"/>',
    "broken": '<path d="m10 1 9.5 17H.5zM9 7v5h2V7zm0 6.5v2h2v-2z" fill-rule="evenodd"/>',
}
"""Drawings of 20 by 20, so that a state is told by its shape too."""
_STATES: dict[str, tuple[str, str]] = {
    MigrationState.PLANNING: ("go", "plain"),
    MigrationState.RUNNING: ("go", "plain"),
    MigrationState.PAUSED: ("wait", "warn"),
    MigrationState.DRAINING: ("wait", "warn"),
    MigrationState.STOPPED: ("stop", "warn"),
    MigrationState.HALTED: ("broken", "bad"),
    MigrationState.KILLED: ("broken", "bad"),
    MigrationState.COMPLETE: ("done", "good"),
    MigrationState.COMPLETE_WITH_PARKED: ("done", "bad"),
}
_HATCH = (
    '<svg width="0" height="0" aria-hidden="true" focusable="false"><defs><pattern id="hatch" width="6" height="6"'
    ' patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6"/>'
    '<path d="M0 0v6"/></pattern></defs></svg>'
)


def page(status: MigrationStatus, view: View, *, phase: Phase) -> str:
    """Return the page of a migration.

    Args:
        status: from the journal.
        view: the same moment of the same journal.
        phase: of the process that shows it.
    """
    share = f"{view.total.permille // 10}.{view.total.permille % 10} %"
    word = view.state.replace("_", " ")
    body = "".join(
        [
            f'<div class="top"><h1>{escaped(view.name)}</h1>{_asof(view.now_us)}</div>',
            *_banners(view, phase),
            *(_verified(one, view.now_us) for one in view.verified),
            _hero(view, word),
            _figures(view),
            steps(view),
            table(view, status),
            f'<div class="pair">{spent(view)}{faults(view)}</div>',
        ]
    )
    return document(f"{share} {word}: {view.name}", body, _footer(status, view))


def bare_page(name: str, text: str, *, now_us: int) -> str:
    """Return the page of a migration of which nothing can be read, and why."""
    body = (
        f'<div class="top"><h1>{escaped(name)}</h1>{_asof(now_us)}</div>'
        f'<section class="sheet"><p class="state warn">{_mark("wait")}{escaped(text)}</p></section>'
    )
    return document(f"{name}: {text}", body, "")


def document(title: str, body: str, footer: str) -> str:
    """Return a whole document around what is rendered already; `title` is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<noscript><meta http-equiv="refresh" content="15"></noscript>'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{style()}</style></head>\n<body>'
        '<p id="stale" role="alert" hidden>The daemon has not answered since <time></time>, <span></span> ago:'
        " what is below is from then. <code>backfillctl status</code> tells from the journal what has become of it.</p>"
        f"{_HATCH}<main>{body}</main><footer>{footer}</footer><script>{script()}</script></body></html>\n"
    )


@functools.cache
def style() -> str:
    """Return the page's one style sheet."""
    return _part("status_page.css")


@functools.cache
def script() -> str:
    """Return the page's one script."""
    return _part("status_page.js")


@functools.cache
def content_security_policy() -> str:
    """Return the policy (W3C CSP 3) under which nothing runs, loads or is sent but what is in the page itself."""
    return (
        f"default-src 'none'; style-src {_source(style())}; script-src {_source(script())}; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _part(name: str) -> str:
    return resources.files("daemon").joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _asof(now_us: int) -> str:
    moment = units.moment_seconds(now_us)
    return f'<p class="asof">as of <time datetime="{moment}">{moment}</time></p>'


def _mark(name: str) -> str:
    return f'<svg viewBox="0 0 20 20" aria-hidden="true" focusable="false">{_MARKS[name]}</svg>'


def _banners(view: View, phase: Phase) -> list[str]:
    now_us = view.now_us
    found = []
    if phase is Phase.STARTING:
        found.append(banner("warn", "Starting:", "PostgreSQL and S3 have not both answered yet"))
    if phase is Phase.LINGERING:
        found.append(
            banner(
                "good" if view.state == MigrationState.COMPLETE else "warn",
                "The session has ended.",
                "This page stays a while longer, then it is gone.",
            )
        )
    if view.pause is not None:
        since = units.ago(view.pause.since_us, now_us)
        found.append(banner("warn", "Paused", f"by {units.shown(view.pause.who)}, {since}"))
    if view.throttle is not None:
        held = "Nothing new begins" if view.throttle.holds else "Slowed down"
        detail = f" ({units.shown(view.throttle.detail)})" if view.throttle.detail else ""
        lasted = units.duration((now_us - view.throttle.since_us) / 1e6)
        found.append(
            banner("warn", f"{held}: {units.shown(view.throttle.words)}", f"{detail} for {lasted}".lstrip())
        )
    if view.concurrency is not None and view.concurrency.cuts:
        one = view.concurrency
        since = units.ago(one.since_us, now_us)
        text = f"{one.limit} of {one.ceiling}, {units.shown(one.words)}, {since}"
        found.append(banner("warn", "Fewer uploads at once:", text))
    if view.tunables is not None:
        words = " ".join(view.tunables.words)
        since = units.ago(view.tunables.since_us, now_us)
        text = (
            f"{words}, by {units.shown(view.tunables.who)}, {since}, instead of what the configuration says"
        )
        found.append(banner("warn", "Set:", text))
    late = view.late_seconds
    if late is not None and late > 0:
        passed = view.deadline_us is not None and view.deadline_us < now_us
        word = "It misses its deadline, which has passed," if passed else "It will miss its deadline"
        found.append(banner("bad", word, f"by {units.duration(late)} as things go"))
    return found


def _verified(one: Verified, now_us: int) -> str:
    ago = units.ago(one.finished_us, now_us)
    if not one.failed:
        return banner("good", f"Verified by {one.tier}", f"{ago}: no mismatch in {checked_words(one)}")
    text = f"{ago}: {found_words(one)}, of {checked_words(one)}"
    return banner("bad", f"Verification by {one.tier} found a mismatch", text)


def _hero(view: View, word: str) -> str:
    mark, tone = _STATES[view.state]
    if view.standing and tone == "plain":
        mark, tone = "wait", "warn"
    standing = f", {escaped(view.standing)}" if view.standing and view.standing != view.state else ""
    bar = segments_of(view.total)
    permille = view.total.permille
    return (
        '<section class="sheet hero" aria-label="Progress">'
        f'<p class="share">{permille // 10}<small>.{permille % 10} %</small></p>'
        f'<div><p class="state {tone}">{_mark(mark)}<span>{escaped(word.capitalize())}{standing}</span></p>'
        f'<p class="reason">{escaped(view.reason)}</p><p class="reason">{_settled(view)}</p></div>'
        f"{bar.svg(_settled(view))}{swatches(view.total.counts)}</section>"
    )


def _settled(view: View) -> str:
    counts = view.total.counts
    so_far = "" if view.total.planned else " planned so far"
    return (
        f"{units.count(counts.settled)} of {units.plural(counts.planned_rows, 'row')}{so_far} settled,"
        f" {units.size(counts.settled_bytes)} of {units.size(counts.planned_bytes)}"
    )


def _figures(view: View) -> str:
    total, speed = view.total, view.total.speed
    eta = speed.eta_seconds if total.counts.planned_rows else None
    shown = [
        figure("ETA", "done" if eta == 0 else duration_or_dash(eta), _eta_note(view)),
        figure(
            "Keys settled", *rate_pair(speed.rows_1m, speed.rows_15m, lambda rate: units.rate(rate, "obj"))
        ),
        figure("Uploaded", *rate_pair(speed.bytes_1m, speed.bytes_15m, units.byte_rate)),
        figure("In flight", units.count(total.counts.in_flight), f"{_waiting(view)} waiting"),
        figure(
            "Parked",
            units.count(total.counts.parked),
            "wait for you" if total.counts.parked else "",
            bad=bool(total.counts.parked),
        ),
    ]
    if view.deadline_us is not None:
        left = (view.deadline_us - view.now_us) / 1e6
        text = f"in {units.duration(left)}" if left >= 0 else f"{units.duration(-left)} ago"
        late = view.late_seconds is not None and view.late_seconds > 0
        shown.append(figure("Deadline", text, units.moment_seconds(view.deadline_us), bad=late))
    return f'<dl class="sheet figures">{"".join(shown)}</dl>'


def _eta_note(view: View) -> str:
    eta = view.total.speed.eta_seconds
    if eta is None:
        return "nothing to judge by" if view.working else ""
    if view.standing:
        return "of copying, once it goes on"
    return f"at {units.moment_seconds(view.now_us + round(eta * 1e6))}" if eta else ""


def _waiting(view: View) -> str:
    return units.count(view.total.counts.pending + view.total.counts.unclaimed)


def _footer(status: MigrationStatus, view: View) -> str:
    parts = [f"event {units.count(view.head_seq)}, {units.ago(view.last_event_us, view.now_us)}"]
    session = status.session
    if session is not None:
        facts = ", ".join(
            f"{name} {units.shown(str(session.facts[name]))}"
            for name in ("pid", "host", "version")
            if name in session.facts
        )
        began = units.moment_seconds(session.started_us)
        parts.append(f"session {session.number} since {began}" + (f" ({facts})" if facts else ""))
    links = '<a href="/status.json">status.json</a>', '<a href="/metrics">metrics</a>'
    return "".join(f"<span>{part}</span>" for part in (*map(escaped, parts), *links))
