"""Every expression of the dashboard and of the alerts, asked of a real Prometheus that scraped a real daemon."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from daemon.demo.postgres import EmbeddedPostgres
from daemon.demo.processes import free_ports
from daemon.metric_definitions import DEFINITIONS, PREFIX
from tests.conftest import fresh_database
from tests.dashboards.story import NAME, SESSIONS, SOURCES, Life, lived
from tests.dashboards.test_documents import ALERTS, DASHBOARD, PANELS, RECORDED
from tests.s3_servers import RunningServers

pytestmark = pytest.mark.xdist_group("prometheus")


@dataclass(frozen=True)
class Silence:
    """Why an alert's expression has no value in this story, and a change that shows that it would have one.

    Attributes:
        changes: pieces of the expression, and what stands in their place for the proof.
    """

    reason: str
    changes: dict[str, str] = field(default_factory=dict)


HELD = "unless on (migration) migration:backfill_held:ratio_rate15m > 0.1"
SILENT = {
    "BackfillStalled": Silence(
        "it takes 15 minutes without progress and without a throttle",
        {"> 900": "> 1", "[15m]": "[2s]", HELD: ""},
    ),
    "BackfillDiskReserveNear": Silence("the disk of the test has room", {"< 1.2": "< 1e9"}),
    "BackfillCredentialsExpiring": Silence("they are good for another 12 minutes", {"< 600": "< 900"}),
    "BackfillDaemonHangs": Silence("it takes two minutes without a heartbeat", {"> 120": "> 0"}),
    "BackfillRestarting": Silence("the story has three restarts, not four", {"> 3": "> 1"}),
}
FIRING = {"BackfillParked", "BackfillHalted", "BackfillVerificationMismatch"}
"""Alerts that don't wait: these fire in the story."""


@pytest.fixture(scope="module")
def life(
    postgres_server: EmbeddedPostgres, s3_servers: RunningServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Life]:
    database = fresh_database(postgres_server)
    (port,) = free_ports(1)
    with lived(tmp_path_factory.mktemp("dashboards"), database, s3_servers.get("weed"), port=port) as life:
        yield life


def chosen(expression: str) -> str:
    """An expression with the variables as Grafana sets them when all migrations and sources are chosen."""
    values = {"$migration": NAME, "$source": f"({'|'.join(SOURCES)})", "$__rate_interval": "20s"}
    return re.sub(r"\$\w+", lambda found: values[found.group()], expression)


QUERIES = {
    f"{panel['title']}: {target['legendFormat']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}


@pytest.mark.parametrize("query", QUERIES)
def test_every_panel_has_something_to_show(life: Life, query: str) -> None:
    assert life.over(chosen(QUERIES[query]))


@pytest.mark.parametrize("annotation", DASHBOARD["annotations"]["list"], ids=lambda one: one["name"])
def test_every_annotation_marks_something(life: Life, annotation: dict[str, Any]) -> None:
    assert life.over(chosen(annotation["expr"]))


def test_the_variables_offer_the_migration_and_its_sources(life: Life) -> None:
    offered = {}
    for variable in DASHBOARD["templating"]["list"]:
        if found := re.fullmatch(
            r"label_values\((.+), (\w+)\)", variable["query"]["query"] if "definition" in variable else ""
        ):
            selector, label = found.groups()
            series = life.prometheus.api("series", **{"match[]": chosen(selector)})
            offered[variable["name"]] = {one[label] for one in series}
    assert offered == {"migration": {NAME}, "source": set(SOURCES)}


@pytest.mark.parametrize("record", RECORDED)
def test_every_recording_rule_records(life: Life, record: str) -> None:
    assert life.over(record)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda one: one["alert"])
def test_every_alert_has_a_value_or_a_reason_to_have_none(life: Life, alert: dict[str, Any]) -> None:
    silence = SILENT.get(alert["alert"])
    if silence is None:
        assert life.over(alert["expr"])
        return
    assert life.over(alert["expr"]) == [], f"{silence.reason}: no longer true"
    proof = alert["expr"]
    for text, instead in silence.changes.items():
        assert text in proof
        proof = proof.replace(text, instead)
    assert life.over(proof)


def test_the_alerts_that_do_not_wait_have_fired_and_no_other(life: Life) -> None:
    # Every sample counts: an alert may fire for less than a step of a range query.
    whole_life = f"{round(life.end - life.begin) + 1}s"
    fired = life.prometheus.api(
        "query", query=f'count_over_time(ALERTS{{alertstate="firing"}}[{whole_life}])', time=life.end
    )["result"]
    assert {one["metric"]["alertname"] for one in fired} == FIRING


def test_prometheus_evaluates_every_rule_without_an_error(life: Life) -> None:
    (group,) = life.prometheus.api("rules")["groups"]
    assert [rule["lastError"] for rule in group["rules"] if rule["health"] != "ok"] == []
    texts = [
        text
        for rule in group["rules"]
        for alert in rule.get("alerts", [])
        for text in alert["annotations"].values()
    ]
    assert texts
    assert all("error" not in text and "<no value>" not in text for text in texts)


@pytest.mark.parametrize("metric", [one.name for one in DEFINITIONS])
def test_every_metric_is_exported_at_some_time(life: Life, metric: str) -> None:
    (kind,) = [one.kind for one in DEFINITIONS if one.name == metric]
    assert life.over(f"{PREFIX}{metric}{'_count' if kind == 'histogram' else ''}")


@pytest.mark.parametrize("counter", [one.name for one in DEFINITIONS if one.kind == "counter"])
def test_totals_outlive_the_daemons_that_counted_them(life: Life, counter: str) -> None:
    (sessions,) = life.over("max_over_time(backfill_session[10m])")
    assert sessions[-1] == SESSIONS
    resets = life.over(f"resets({PREFIX}{counter}[10m])")
    assert {number for series in resets for number in series} == {0}


def test_the_last_scrape_of_a_finished_migration_has_the_final_numbers(life: Life) -> None:
    settled = life.over("sum by (source) (backfill_outcomes_total)")
    assert sorted(series[-1] for series in settled) == sorted(SOURCES.values())
    assert [series[-1] for series in life.over("sum(backfill_parked)")] == [0]
    assert [series[-1] for series in life.over("max(backfill_verification_mismatches)")] == [1]
    assert [series[-1] for series in life.over("sum(backfill_excluded_rows)")] == [len(SOURCES)]
