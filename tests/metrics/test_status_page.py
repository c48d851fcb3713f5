from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from daemon import rendering_units as units
from daemon.causes import Cause
from daemon.page_parts import escaped
from daemon.page_sections import FAULTS_SHOWN_MAX
from daemon.rendering_view import view
from daemon.status_page import Phase, bare_page, content_security_policy, page, script, style
from journal.control_status import SlowDown
from journal.status import FailureStatus, MigrationState, NoteStatus, ParkedStatus
from tests.rendering.courses import Course
from tests.rendering.statuses import ALL, NOW_US, OWNER, running

SECOND_US = 1_000_000
HOSTILE = "<script>pwned=1</script>\x1b[2J\u202egnp.exe\"'&`<img src=x onerror=pwned=1>\n"
LAG = NoteStatus(NOW_US - 90 * SECOND_US, {"cause": "replica_lag", "detail": HOSTILE})
ELEMENTS = {
    "html", "head", "meta", "noscript", "link", "title", "style", "body", "svg", "defs", "pattern",
    "rect", "path", "main", "section", "div", "h1", "h2", "p", "time", "span", "small", "b", "code",
    "bdi", "ul", "ol", "li", "dl", "dt", "dd", "i", "table", "thead", "tbody", "tr", "th", "td", "a",
    "footer", "script", "wbr"
}  # fmt: skip


class Document(HTMLParser):
    """What a browser would make of a page: elements, attributes, text, and what was left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "wbr"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.text.append(data)


def rendered(status, phase=Phase.WORKING) -> str:
    return page(status, view(status, now_us=NOW_US), phase=phase)


def words(text: str) -> str:
    return " ".join(" ".join(Document(text).text).split())


def at_work(**changed):
    return dataclasses.replace(
        Course("cas", "rebase").session().work(900, 10).status(), owner=OWNER, **changed
    )


def hostile():
    found = running()
    worst = dataclasses.replace(
        found.sources[0],
        name=HOSTILE,
        parked=(ParkedStatus(HOSTILE, 2, HOSTILE, HOSTILE),),
        failures=(FailureStatus("PUT", HOSTILE, 3, HOSTILE, NOW_US, HOSTILE),),
    )
    slow = SlowDown("replica_lag", 3, 9000, NOW_US, HOSTILE)
    return dataclasses.replace(
        found,
        sources=(worst, found.sources[1]),
        throttle=LAG,
        pause=NoteStatus(NOW_US, {"who": HOSTILE}),
        tunables=NoteStatus(NOW_US, {"who": HOSTILE, "changes": {}, "overrides": {"concurrency": 4}}),
        concurrency=NoteStatus(NOW_US, {"from": 2, "to": 1, "cause": HOSTILE, "ceiling": 4, "cuts": 1}),
        slow_downs=(slow,),
        spent_ms={"replica_lag": 9000, HOSTILE: 1000},
        session=dataclasses.replace(found.session, facts={"host": HOSTILE}),
    )


@pytest.mark.parametrize("name", ALL)
def test_every_situation_is_a_well_formed_page_of_known_elements(name):
    document = Document(rendered(ALL[name]))
    assert document.open == []
    assert {tag for tag, _ in document.elements} <= ELEMENTS


def test_nothing_foreign_becomes_markup_or_reaches_the_eye_unescaped():
    text = rendered(hostile())
    document = Document(text)
    assert document.open == []
    assert {tag for tag, _ in document.elements} <= ELEMENTS
    assert [tag for tag, _ in document.elements].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in document.elements for name in attributes)
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text) == []
    assert r"<script>pwned=1</script>\x1b[2J\u202egnp.exe" in "".join(document.text)


def test_the_page_asks_for_nothing_but_itself():
    document = Document(rendered(hostile()))
    outward = [
        (name, value)
        for _, attributes in document.elements
        for name, value in attributes.items()
        if name in {"src", "href", "action", "srcset", "data"}
    ]
    assert sorted(outward) == [("href", "/metrics"), ("href", "/status.json"), ("href", "data:,")]
    assert not any("style" in attributes for _, attributes in document.elements)
    assert re.findall(r"url\((?!#)|@import|https?:", style()) == []
    assert re.findall(r"https?:|innerHTML|eval\(|document\.write", script()) == []


def test_the_policy_lets_nothing_run_but_the_pages_own_script_and_style():
    policy = content_security_policy()
    text = rendered(ALL["running"])
    for element in ("style", "script"):
        [content] = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_a_source_has_its_share_counts_rates_eta_and_checkpoint():
    status = at_work()
    line = view(status, now_us=NOW_US).sources[0]
    text = words(rendered(status))
    assert "cas 9.0 % 9,000 of 100,000" in text
    assert line.speed.rows_1m == 10
    assert "10 obj/s 15 min: 10 obj/s" in text
    assert "2h31m" in text
    assert "total 9.0 % 18,000 of 200,000" in text


def test_the_bars_segments_are_shares_of_the_planned_keys():
    [bar, *_] = re.findall(r'<svg class="bar[^>]*>(.*?)</svg>', rendered(ALL["running"]))
    segments = re.findall(r'class="(\w+)" x="([\d.]+)%" width="([\d.]+)%"', bar)
    assert [name for name, *_ in segments] == ["stored", "found", "flight", "parked"]
    for (_, x, width), (_, after, _) in pairwise(segments):
        assert float(x) + float(width) == pytest.approx(float(after), abs=0.002)


def test_a_pause_tells_who_since_when_and_how_to_end_it_and_is_no_throttle_too():
    paused = at_work(
        state=MigrationState.PAUSED,
        pause=NoteStatus(NOW_US - 3600 * SECOND_US, {"who": "alice (uid 1000)"}),
        throttle=NoteStatus(NOW_US - 3600 * SECOND_US, {"cause": "operator", "detail": ""}),
    )
    text = words(rendered(paused))
    assert "Paused by alice (uid 1000), 1h00m ago" in text
    assert "backfillctl resume ends the pause" in text
    assert "Slowed down" not in text
    assert "of copying, once it goes on" in text


def test_the_throttle_in_force_tells_its_cause_detail_and_how_long():
    lag = NoteStatus(NOW_US - 90 * SECOND_US, {"cause": "replica_lag", "detail": "12.4 s, limit 10 s"})
    text = words(rendered(at_work(throttle=lag)))
    assert "Nothing new begins: replica lag (12.4 s, limit 10 s) for 1m30s" in text
    slower = NoteStatus(lag.ts_us, {"cause": "rate_limit", "detail": ""})
    assert "Slowed down: rate limit for 1m30s" in words(rendered(at_work(throttle=slower)))


def test_fewer_uploads_at_once_than_configured_are_told_with_their_cause_and_a_recovery_is_not():
    cut = {"from": 47, "to": 23, "cause": "s3_slow_down", "ceiling": 64, "cuts": 1}
    text = words(rendered(at_work(concurrency=NoteStatus(NOW_US - SECOND_US, cut))))
    assert "Fewer uploads at once: 23 of 64, halved by S3 503, 1s ago" in text
    recovered = {"from": 23, "to": 45, "cause": "recovered", "ceiling": 64, "cuts": 0}
    assert "Fewer uploads" not in words(rendered(at_work(concurrency=NoteStatus(NOW_US, recovered))))


def test_what_an_operator_has_set_is_told():
    data = {"who": "bob", "changes": {}, "overrides": {"concurrency": 16}}
    text = words(rendered(at_work(tunables=NoteStatus(NOW_US - SECOND_US, data))))
    assert "Set: concurrency=16, by bob, 1s ago, instead of what the configuration says" in text


@pytest.mark.parametrize(
    ("deadline_us", "told"),
    [
        (None, ""),
        (NOW_US + 10 * 3600 * SECOND_US, ""),
        (NOW_US + 3600 * SECOND_US, "It will miss its deadline by 1h31m as things go"),
        (NOW_US - SECOND_US, "It misses its deadline, which has passed, by 2h31m as things go"),
    ],
)
def test_a_deadline_that_will_be_missed_is_told_in_time(deadline_us, told):
    deadline = None if deadline_us is None else units.moment(deadline_us)
    settings = NoteStatus(NOW_US, {"deadline": deadline})
    text = words(rendered(at_work(settings=settings)))
    assert told in text
    assert ("as things go" in text) == bool(told)


def test_where_the_time_went_adds_up_and_names_every_cause():
    status = at_work(spent_ms=dict.fromkeys([*Cause], 60_000), slow_downs=())
    text = rendered(status)
    assert f"Where the time went, of {len(Cause)}m00s" in words(text)
    widths = re.findall(r'width="([\d.]+)%"', re.search(r'class="bar time".*?</svg>', text).group())
    assert len(widths) == len(Cause)
    assert sum(map(float, widths)) == pytest.approx(100, abs=0.1)


def test_a_verification_is_told_whatever_it_found():
    assert "Verified by list 1h00m ago: no mismatch in 40,000 keys" in words(
        rendered(ALL["complete_verified"])
    )
    found = "Verification by list found a mismatch 1h00m ago: 3 missing, 7 extra, of 40,000 keys"
    assert found in words(rendered(ALL["complete_mismatch"]))
    assert "erifi" not in words(rendered(at_work()))


def test_many_classes_of_errors_are_cut_and_counted():
    failures = tuple(FailureStatus("PUT", f"f{n}", 9, "k", NOW_US, "") for n in range(FAULTS_SHOWN_MAX + 3))
    base = at_work()
    status = dataclasses.replace(base, sources=(dataclasses.replace(base.sources[0], failures=failures),))
    text = words(rendered(status))
    assert text.count("such as k") == FAULTS_SHOWN_MAX
    assert "3 more: backfillctl status" in text


def test_the_title_tells_share_and_state():
    assert "<title>9.0 % running: layer-cache</title>" in rendered(at_work())


def test_a_page_without_a_journal_says_why():
    assert (
        words(bare_page("blobs", "starting: <no> journal", now_us=NOW_US)).count("starting: <no> journal")
        == 2
    )


def test_what_stands_between_backquotes_is_code_and_an_odd_one_is_itself():
    assert escaped("`run` & go") == "<code>run</code> &amp; go"
    assert escaped("a ` b") == "a ` b"


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of #rgb or #rrggbb."""
    digits = colour.removeprefix("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground", "least"),
    [
        ("ink", "paper", 7),
        ("ink", "sheet", 7),
        ("dim", "paper", 4.5),
        ("dim", "sheet", 4.5),
        ("note-ink", "note", 4.5),
        ("note-ink", "sheet", 4.5),
        ("alarm-ink", "alarm", 4.5),
        ("alarm-ink", "sheet", 4.5),
        ("good-ink", "good", 4.5),
        ("good-ink", "sheet", 4.5),
        ("stored", "track", 3),
        ("flight", "track", 3),
        ("parked", "track", 3),
    ],
)
def test_text_and_bars_stand_out_as_wcag_asks(theme, ink, ground, least):
    themes = re.findall(r":root \{(.*?)\}", style(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", themes[theme]))
    assert contrast(colours[ink], colours[ground]) >= least


def test_a_process_that_starts_or_lingers_says_so():
    assert "Starting: PostgreSQL and S3 have not both answered" in words(rendered(at_work(), Phase.STARTING))
    assert "The session has ended." in words(rendered(ALL["drained"], Phase.LINGERING))
    assert "tarting" not in words(rendered(at_work()))
