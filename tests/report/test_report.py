"""A report, through the command line, held against its journal; hostile keys are text everywhere."""

from __future__ import annotations

import csv
import gzip
import hashlib
import html
import json
import re
import shutil
import stat
from pathlib import Path
from urllib.parse import unquote

import jsonschema
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from daemon.cli import cli
from daemon.report_cells import RUN_BY_SPREADSHEETS, cell, key_cell, plain_cell
from journal import maintenance
from journal.checkpoint import Order
from journal.log import Journal
from journal.reader import Reader
from tests.cli import chromium
from tests.report.journals import HOSTILE, START_US, write_journal

GOLDEN = Path(__file__).parents[1] / "journal" / "golden"
SCHEMA = json.loads((Path(__file__).parents[2] / "daemon" / "report.schema.json").read_text())
FILES = ["keys.csv.gz", "manifest.json", "report.html", "report.json"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_journal(tmp_path / "journal.db").close()
    return tmp_path / "journal.db"


def report(path: Path, *flags: str) -> Result:
    directory = path.parent / "report"
    return CliRunner().invoke(cli, ["report", "-o", str(directory), "--journal", str(path), *flags])


def written(path: Path, *flags: str) -> Path:
    done = report(path, *flags)
    assert done.exit_code == 0, done.output
    return path.parent / "report"


def document(path: Path, *flags: str) -> dict[str, object]:
    found = json.loads((written(path, *flags) / "report.json").read_text())
    jsonschema.validate(found, SCHEMA)
    return found  # type: ignore[no-any-return]


def keys_of(directory: Path) -> list[dict[str, str]]:
    with gzip.open(directory / "keys.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def text_of(directory: Path) -> str:
    page = (directory / "report.html").read_text()
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.partition("<main>")[2])))


def test_four_files_are_written_for_their_owner_only_and_the_manifest_hashes_the_others(path: Path) -> None:
    directory = written(path)
    assert sorted(file.name for file in directory.iterdir()) == FILES
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    manifest = json.loads((directory / "manifest.json").read_text())
    for name, facts in manifest["files"].items():
        body = (directory / name).read_bytes()
        assert facts == {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
    assert set(manifest["files"]) == set(FILES) - {"manifest.json"}


def test_journal_check_takes_the_manifest(path: Path) -> None:
    manifest = written(path) / "manifest.json"
    check = CliRunner().invoke(cli, ["journal", "check", "--journal", str(path), "--manifest", str(manifest)])
    assert check.exit_code == 0, check.output


def test_the_journal_is_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    written(path)
    assert path.read_bytes() == before


def test_the_figures_of_document_and_page_are_the_journals(path: Path) -> None:
    found = document(path)
    with Reader.open(path) as reader:
        status = reader.status(now_us=START_US)
    text = text_of(path.parent / "report")
    for source, told in zip(status.sources, found["sources"], strict=True):  # type: ignore[call-overload]
        counts = source.counts
        expected = [
            *(
                counts.stored,
                counts.recovered,
                counts.present,
                counts.skipped,
                counts.vanished,
                counts.parked,
            ),
            *(counts.in_flight, counts.pending, counts.unclaimed),
        ]
        assert list(told["parts"].values()) == expected
        assert told["adds_up"]
        assert sum(expected) == counts.planned_rows == told["planned"]
        assert (
            f"{source.name} {' '.join(map(str, expected))} = {counts.planned_rows} {counts.planned_rows}"
            in text
        )
    assert found["reconciliation"]["planned"] == 150  # type: ignore[index]
    assert found["keys"]["current"] == 150  # type: ignore[index]
    assert found["put_seconds"] == {"0.005": 100, "0.01": 9, "+Inf": 1}
    assert "A verification found a mismatch. 113 of 150 planned keys settled." in text
    assert "missing: first/=1+1" in text
    assert "REQ-1" in text
    for who in ("alice@h1", "bob@h2"):
        assert who in text


def test_every_current_key_is_a_row_with_what_became_of_it(path: Path) -> None:
    rows = keys_of(written(path))
    assert len(rows) == 150
    by_key = {plain_cell(row["SourceKey"]): row for row in rows}
    assert set(HOSTILE) <= set(by_key)
    stored = by_key["<script>alert(1)</script>"]
    assert (stored["TaskStatus"], stored["Outcome"], stored["Size"], stored["VerifiedTier"]) == (
        "succeeded",
        "stored",
        "100",
        "list",
    )
    assert unquote(stored["Key"]) == "first/<script>alert(1)</script>"
    outcomes = {row["Outcome"] for row in rows}
    assert outcomes == {
        "stored",
        "recovered",
        "present",
        "skipped",
        "vanished",
        "parked",
        "in_flight",
        "waiting",
    }
    [parked] = [row for row in rows if row["Outcome"] == "parked"]
    assert parked["ErrorCode"] == "foreign_object"
    assert "\\x1b[31m" in parked["ResultMessage"]


def test_level_errors_leaves_out_what_is_fine(path: Path) -> None:
    rows = keys_of(written(path, "--level", "errors"))
    assert rows
    assert {row["TaskStatus"] for row in rows} == {"failed"}
    assert document(path, "--level", "errors")["keys"]["written"] == len(rows)  # type: ignore[index]


def test_no_cell_is_one_that_a_spreadsheet_runs(path: Path) -> None:
    for row in keys_of(written(path)):
        assert not any(value[:1] in RUN_BY_SPREADSHEETS for value in row.values() if value)


@given(st.text())
def test_a_cell_gives_its_text_back_and_never_begins_as_a_formula(text: str) -> None:
    assert plain_cell(cell(text)) == text
    assert cell(text)[:1] not in RUN_BY_SPREADSHEETS or not text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_key_cell_gives_its_key_back_and_never_begins_as_a_formula(key: str) -> None:
    assert unquote(key_cell(key)) == key
    assert key_cell(key)[:1] not in RUN_BY_SPREADSHEETS or not key


def test_a_page_holds_no_markup_of_a_key_or_message(path: Path) -> None:
    page = (written(path) / "report.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page.partition("</style>")[2].replace("SlowDown &lt;b&gt;", "")
    assert "\x1b" not in page
    assert "503 SlowDown &lt;b&gt;" in page


def test_an_earlier_report_is_replaced_and_other_files_are_not(path: Path) -> None:
    directory = written(path)
    assert report(path).exit_code == 0
    (directory / "manifest.json").unlink()
    refused = report(path)
    assert refused.exit_code == 2
    assert "no manifest of an earlier report" in refused.output
    assert report(path, "--force").exit_code == 0


def test_it_works_beside_a_writer_and_from_a_journal_whose_daemon_was_killed(tmp_path: Path) -> None:
    with write_journal(tmp_path / "journal.db"):
        assert document(tmp_path / "journal.db")["outcome"]["state"] == "killed"  # type: ignore[index]


def test_a_journal_in_which_nothing_is_planned_has_a_report_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal.create(path, name="m", cutoff_us=None, order=Order.OLDEST_FIRST, now_us=START_US).close()
    found = document(path)
    assert found["sources"] == found["timeline"] == []
    assert "No session has put a sample on record." in text_of(path.parent / "report")


@pytest.mark.parametrize("golden", ["schema-1", "schema-2", "schema-3"])
def test_journals_of_every_release_have_a_report(tmp_path: Path, golden: str) -> None:
    path = tmp_path / "journal.db"
    shutil.copyfile(GOLDEN / f"{golden}.db", path)
    maintenance.rebuild(path)
    assert document(path)["reconciliation"]["planned"] > 0  # type: ignore[index]


@pytest.mark.skipif(
    chromium.PROGRAM is None, reason="NOT TESTED: the report in Chromium, apt package chromium"
)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 420])
def test_a_browser_shows_it_whole_in_both_themes_and_asks_for_nothing(
    path: Path, tmp_path: Path, theme: str, width: int
) -> None:
    url = f"file://{written(path)}/report.html"
    with chromium.chromium(tmp_path / "profile") as page:
        page.show(url, width=width, height=900, theme=theme)
        assert page.requests == [url]
        assert page.complaints == []
        assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.run("document.querySelectorAll('section').length") >= 9
        background = page.run("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(14, 20, 17)") == (theme == "dark")
