"""What rows, servers and configurations say never drives a terminal, a browser or a spreadsheet, wherever it is shown."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import re
import tempfile
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from daemon.error_text import error_text
from daemon.errors import BackfillError, ConfigError
from daemon.instruments import Instruments
from daemon.log_events import LogEvent, Told
from daemon.log_lines import Style, log_line
from daemon.metrics import Observed, Recorded, exposition
from daemon.rendering import (
    Explained,
    event_json,
    event_line,
    explain_json,
    explain_text,
    status_json,
    status_text,
)
from daemon.rendering_view import view
from daemon.rendering_watch import watch_rows
from daemon.report_cells import RUN_BY_SPREADSHEETS
from daemon.report_keys import Level
from daemon.reporting import write_report
from daemon.status_page import Phase, page
from journal.checkpoint import Order
from journal.entries import AttemptFailed, Parked
from journal.events import Kind
from journal.log import Journal
from journal.reader import Reader
from journal.sizes import sizes_of
from tests.fuzzing.hostile import FUZZED

NOW_US = 1_790_000_000_000_000
HOSTILE = st.text(
    st.sampled_from([*"\x1b\x07\r\n\t\x08\x7f\x85\x9b\u2028\u202e\u2066\ufeff\u200b<>&\"'`=+@-|\\ a7é日"]),
    min_size=1,
    max_size=12,
).map(lambda text: f"<b>\x1b[2J{text}")
"""Each with what drives a terminal and a browser; C1, bidi controls and what spreadsheets run among the rest."""
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\u200b\ufeff]")

FOR_PROGRAMS = {"keys.csv", "metrics"}
"""Whoever reads these wants the text as it is: there it only must not become another cell, formula or sample."""


def journal_of(path: Path, word: str) -> None:
    """A journal where everything that comes from outside is `word`."""
    journal = Journal.create(path, name="blobs", cutoff_us=NOW_US, order=Order.NEWEST_FIRST, now_us=NOW_US)
    now = {"now_us": NOW_US}
    journal.start_session(**now, facts={"host": word, "pid": 1, "user": word, "version": word})
    identity = {
        "database": word,
        "table": word,
        "key": [word],
        "bucket": word,
        "prefix": word,
        "layout": "flat",
    }
    source = journal.add_source(word, {**identity, "reverse_key": False}, **now)
    journal.begin_pass(source, kind="sweep", **now)
    journal.seal_chunk(source, [(word, NOW_US - 1, 100, None), (f"{word}2", None, 7, None)], **now)
    journal.seal_segment(source, excluded={"where": 1}, unusable=1, unusable_example=word, **now)
    journal.claim(source, limit=2, window=9, **now)
    journal.record(
        [AttemptFailed(1, "PUT", "server", word, 503, word, word, 1.0, 1), Parked(1, "rejected", word)], **now
    )
    journal.set_tunables({"concurrency": 3}, {"concurrency": 3}, who=word, **now)
    journal.begin_throttle("replica_lag", detail=word, **now)
    journal.pause(who=word, **now)
    journal.note(Kind.SERVER_RECORDED, {"system_identifier": word, "timeline": 1}, **now)
    journal.note(Kind.PROBE_RECORDED, {"bucket": word, "conditional": word, "key": word}, **now)
    journal.note(Kind.SETTINGS_CHANGED, {word: word}, **now)
    journal.note(Kind.HALTED, {"problem": word, "hint": word, "ordinal": 1}, **now)
    journal.end_session(reason=word, exit_code=5, message=word, **now)
    journal.close()


class Elements(HTMLParser):
    """The elements of a page, as a browser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.found.append((tag, dict(attrs)))


def shape(text: str) -> list[tuple[str, list[str]]]:
    """Elements and the names of their attributes: what must not depend on foreign text."""
    # A backquote in a message may begin <code>, which means nothing else than its look.
    return [(tag, sorted(names)) for tag, names in Elements(text).found if tag not in {"wbr", "code"}]


@cache
def rendered(word: str) -> dict[str, str]:
    """Everything that a migration shows where all that comes from outside is `word`, by its medium."""
    with tempfile.TemporaryDirectory() as directory:
        return rendered_in(Path(directory), word)


def rendered_in(directory: Path, word: str) -> dict[str, str]:
    path = directory / "journal.db"
    journal_of(path, word)
    with Reader.open(path) as reader:
        status = reader.status(now_us=NOW_US)
        seen = view(status, now_us=NOW_US)
        events = list(reader.events())
        found = Explained(word, reader.explain(word))
        write_report(reader, directory / "report", level=Level.ALL, force=False, now_us=NOW_US)
        attempts = reader.attempts()
    told = Told(LogEvent.KEY_PARKED, word, (word,), {"hint": word, "x": word})
    logged = {
        f"log {style}": log_line(
            style, told, word, level=logging.ERROR, now_us=NOW_US, migration=word, redactor=None
        )
        for style in Style
    }
    metrics, _ = exposition(
        Observed(word, Recorded(status, seen, attempts, sizes_of(path)), Instruments()), "text/plain"
    )
    return {
        **logged,
        "status": status_text(status, now_us=NOW_US, width=100),
        "status --watch": "\n".join(row.text for row in watch_rows(seen, width=100, height=40)),
        "events": "\n".join(event_line(event, names={}) for event in events),
        "explain": explain_text(found),
        "error": error_text(BackfillError(word, word)) + error_text(ConfigError([word, word], word)),
        "json": json.dumps(
            [
                status_json(status, now_us=NOW_US),
                explain_json(found),
                *(event_json(event) for event in events),
            ]
        ),
        "page": page(status, seen, phase=Phase.WORKING),
        "report.html": (directory / "report" / "report.html").read_text(),
        "keys.csv": gzip.decompress((directory / "report" / "keys.csv.gz").read_bytes()).decode(),
        "metrics": metrics.decode(),
    }


@settings(FUZZED, max_examples=FUZZED.max_examples // 20)
@given(HOSTILE)
def test_no_rendering_has_a_control_character_or_markup_that_came_from_data(word: str) -> None:
    shown, plain = rendered(word), rendered("harmless")
    for medium in shown.keys() - FOR_PROGRAMS:
        assert not CONTROLS.search(shown[medium]), medium
    for medium in ("page", "report.html"):
        assert shape(shown[medium]) == shape(plain[medium])
        assert not [
            attributes
            for _, attributes in Elements(shown[medium]).found
            if any(name.startswith("on") for name in attributes)
        ]
    for row in csv.reader(io.StringIO(shown["keys.csv"])):
        assert not [one for one in row if one[:1] in RUN_BY_SPREADSHEETS]
    samples = [
        sample for family in text_string_to_metric_families(shown["metrics"]) for sample in family.samples
    ]
    expected = [
        sample for family in text_string_to_metric_families(plain["metrics"]) for sample in family.samples
    ]
    assert [sample.name for sample in samples] == [sample.name for sample in expected]
