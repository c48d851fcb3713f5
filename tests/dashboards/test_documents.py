"""The dashboard, the rules and their README, held against each other and against what the daemon exports."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.causes import AT_WORK, HOLDS, Cause
from daemon.cli import cli
from daemon.instruments import OPERATIONS
from daemon.metric_definitions import DEFINITIONS, MIGRATION, PREFIX
from daemon.retrying import FailureClass
from dashboards import make_dashboard
from journal.status import MigrationState

DIRECTORY = Path(make_dashboard.__file__).parent
README = (DIRECTORY / "README.md").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((DIRECTORY / "backfillctl.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [
    rule
    for group in yaml.safe_load((DIRECTORY / "backfillctl.rules.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
EXPRESSIONS = [
    *(target["expr"] for panel in PANELS for target in panel["targets"]),
    *(annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]),
    *(
        variable["query"]["query"]
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ),
    *(rule["expr"] for rule in RULES),
]
LABELS = {PREFIX + one.name: {MIGRATION, *one.labels} for one in DEFINITIONS}
EXPORTED = {
    PREFIX + one.name + suffix
    for one in DEFINITIONS
    for suffix in (("_bucket", "_sum", "_count") if one.kind == "histogram" else ("",))
}
GRAFANA_UNITS = {
    "none", "short", "percentunit", "bytes", "binBps", "s", "cps", "reqps", "rowsps",
    "dateTimeAsIso", "dateTimeFromNow",
}  # fmt: skip
"""Ids of Grafana's value formats (packages/grafana-data/src/valueFormats/categories.ts) that are in use here."""


def title(panel: dict[str, Any]) -> str:
    return str(panel["title"])


def metric_of(name: str) -> str:
    """The metric that a series of a histogram belongs to."""
    return re.sub(r"(_seconds)_(?:bucket|sum|count)$", r"\1", name)


def test_the_json_and_the_table_are_what_the_script_makes():
    assert (DIRECTORY / "backfillctl.json").read_text(encoding="utf-8") == make_dashboard.text()
    assert make_dashboard.with_table(README) == README


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_no_expression_names_a_metric_or_label_that_the_daemon_does_not_export(expression: str):
    for name, matchers in make_dashboard.METRIC.findall(expression):
        assert name in EXPORTED | set(RECORDED)
        labels = set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', matchers))
        assert labels <= LABELS.get(metric_of(name), {MIGRATION})


def test_every_exported_metric_is_shown_or_watched():
    named = {metric_of(name) for expression in EXPRESSIONS for name in make_dashboard.metrics_in(expression)}
    assert {PREFIX + one.name for one in DEFINITIONS} - named == set()


def test_every_metric_by_source_follows_the_variable_source():
    assert {name for name, labels in LABELS.items() if "source" in labels} == make_dashboard.BY_SOURCE


def test_values_in_matchers_exist():
    known = {
        "state": set(MigrationState),
        "cause": set(Cause),
        "failure": set(FailureClass),
        "outcome": {"stored", "recovered", "present", "skipped", "vanished"},
        "operation": set(OPERATIONS),
    }
    seen = Counter()
    matcher = rf'\b({"|".join(known)})(?:=~|!=|=)"([^"]*)"'
    for expression in EXPRESSIONS:
        for label, values in re.findall(matcher, expression):
            assert set(values.split("|")) <= known[label]
            seen[label] += 1
    assert set(seen) == set(known)


def test_the_state_timeline_has_a_word_for_every_state():
    (panel,) = [panel for panel in PANELS if panel["title"] == "State"]
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    numbers = dict(re.findall(r'state="(\w+)"[^}]*\} \* (\d+)', panel["targets"][0]["expr"]))
    assert {number: option["text"] for number, option in mapping["options"].items()} == {
        number: state for state, number in numbers.items()
    }
    assert set(numbers) == set(MigrationState)


def test_held_means_every_cause_that_somebody_chose():
    unasked = {Cause.S3_SLOW_DOWN, Cause.UNREACHABLE, Cause.BYTE_BUDGET}
    (causes,) = re.findall(r'cause=~"([^"]*)"', RECORDED["migration:backfill_held:ratio_rate15m"])
    assert set(causes.split("|")) == set(Cause) - AT_WORK - unasked
    assert set(HOLDS) <= set(causes.split("|"))


def test_ids_are_unique_and_panels_do_not_overlap():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in DASHBOARD["panels"])
    ]
    assert all(not one & other for one, other in combinations(cells, 2))
    assert all(0 <= x < 24 for covered in cells for x, _ in covered)


def test_no_line_of_panels_ends_before_the_right_edge():
    widths = Counter()
    for panel in DASHBOARD["panels"]:
        widths[panel["gridPos"]["y"]] += panel["gridPos"]["w"]
    assert set(widths.values()) == {24}


@pytest.mark.parametrize("panel", PANELS, ids=title)
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]):
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in GRAFANA_UNITS
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


@pytest.mark.parametrize("panel", PANELS, ids=title)
def test_a_legend_names_only_labels_that_its_expression_keeps(panel: dict[str, Any]):
    for target in panel["targets"]:
        kept = {
            label.strip()
            for labels in re.findall(r"\bby \(([^)]*)\)", target["expr"])
            for label in labels.split(",")
        }
        if "migration:" in target["expr"]:
            kept.add("migration")
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept


def test_the_variables_exist_and_are_used():
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == variables == {"datasource", "migration", "source"}


def test_every_expression_of_the_dashboard_selects_by_migration():
    for panel in PANELS:
        for target in panel["targets"]:
            names = make_dashboard.METRIC.findall(target["expr"])
            assert names
            assert all('migration=~"$migration"' in matchers for _, matchers in names)


def test_a_row_is_repeated_for_each_source():
    (repeated,) = [panel for panel in DASHBOARD["panels"] if "repeat" in panel]
    assert (repeated["type"], repeated["repeat"]) == ("row", "source")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_which_command_to_type(alert: dict[str, Any]):
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    named = re.findall(r"\bbackfillctl (\w+)", alert["annotations"]["runbook"])
    assert named
    assert set(named) <= set(cli.commands)


def test_the_readme_has_every_alert_with_its_severity():
    listed = dict(re.findall(r"^\| (Backfill\w+) \| (\w+) \|", README, re.MULTILINE))
    assert listed == {alert["alert"]: alert["labels"]["severity"] for alert in ALERTS}
