from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from daemon import rendering_units as units
from daemon.errors import ExitCode
from tests.cli.chromium import PROGRAM, Page, chromium
from tests.cli.migrations import Migration
from tests.cli.test_metrics import Session, session

HOSTILE = "<script>pwned=1</script><img src=x onerror=pwned=1>\x1b[2J\u202egnp.exe"
SCREENS = ((360, 740), (1024, 768), (1280, 800), (1600, 1000))

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="NOT TESTED: the status page in a browser, apt package chromium"
)


@pytest.fixture
def ended(migration: Migration) -> Migration:
    """Twenty rows that can be copied, and one of a hostile key whose metadata is too large: it is parked."""
    literal = HOSTILE.replace("\x1b", r"\x1b").replace("\u202e", r"\u202e")
    migration.database.sql(
        f"insert into attachments values (E'{literal}', now() - interval '1 day', 'x', repeat('n', 3000))"
    )
    migration.changes = {"metadata": '["note"]'}
    return migration


def text_of(page: Page, selector: str = "main") -> str:
    return " ".join(page.run(f"document.querySelector({json.dumps(selector)}).innerText").split())


def same_numbers(page: Page, running: Session) -> None:
    """The page and `status --json` must agree."""
    status = json.loads(running.get("status.json")[1])
    totals = status["totals"]
    text = text_of(page).lower()
    assert f"{units.count(totals['settled'])} of {units.count(totals['planned_rows'])}" in text
    assert f"stored {units.count(totals['stored'])}" in text
    assert f"parked {units.count(totals['parked'])}" in text
    assert status["state"].replace("_", " ") in text
    for source in status["sources"]:
        assert source["name"] in text
        cutoff_us = source["checkpoint"]["cutoff_us"]
        assert cutoff_us is None or units.moment(cutoff_us).lower() in text


def test_the_page_shows_what_status_tells_in_both_themes_and_on_a_phone_and_asks_nobody_else(
    ended: Migration, tmp_path: Path
) -> None:
    with session(ended) as running, chromium(tmp_path / "profile") as page:
        running.until("1 parked key; status page")
        grounds = []
        for theme in ("light", "dark"):
            for width, height in SCREENS:
                page.show(running.url, width=width, height=height, theme=theme)
                same_numbers(page, running)
                assert page.run("document.documentElement.scrollWidth") == width
                assert (
                    page.run(
                        "(({scrollWidth, clientWidth}) => scrollWidth - clientWidth)(document.querySelector('.scroll'))"
                    )
                    == 0
                )
                picture = tmp_path / f"{theme}-{width}.png"
                page.picture(picture)
                assert picture.stat().st_size > 20_000
            grounds.append(page.run("getComputedStyle(document.body).backgroundColor"))
        light, dark = (sum(map(int, re.findall(r"\d+", ground)[:3])) for ground in grounds)
        assert light > 600
        assert dark < 150
        assert page.run("typeof pwned") == "undefined"
        assert r"<script>pwned=1</script>" in text_of(page)
        assert r"\x1b[2J\u202egnp.exe" in text_of(page)
        assert {url for url in page.requests if url != "data:,"} == {running.url}
        assert page.complaints == []
        page.without_scripts()
        page.show(running.url, width=1000, height=800, theme="light")
        same_numbers(page, running)
        assert page.run("document.querySelectorAll('noscript meta').length") == 1
        assert running.end() == ExitCode.PARKED


def test_the_page_follows_the_journal_and_says_when_the_daemon_answers_no_more(
    ended: Migration, tmp_path: Path
) -> None:
    with session(ended) as running, chromium(tmp_path / "profile") as page:
        running.until("1 parked key; status page")
        page.show(running.url, width=1000, height=800, theme="light")
        page.run("window.loadedOnce = true")
        assert not page.run("document.body.classList.contains('stale')")
        assert ended("requeue", "--all").returncode == 0
        page.until(r"/waiting\s+1/.test(document.querySelector('main').innerText)")
        same_numbers(page, running)
        running.end(signal.SIGKILL)
        page.until("document.body.classList.contains('stale')")
        assert "The daemon has not answered since 2" in text_of(page, "#stale")
        assert page.run("getComputedStyle(document.getElementById('stale')).display") == "block"
        assert "waiting 1" in text_of(page)
        assert page.run("window.loadedOnce") is True
