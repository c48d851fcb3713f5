"""Make `backfillctl.json`, a Grafana dashboard, and the panel table in README.md: `python dashboards/make_dashboard.py`.

The JSON is Grafana's classic model, made from `panels.toml`, where a panel is a title, a sentence, a unit and its
expressions. Every query is a range query and every single value the last one of the range, so that the dashboard
of a migration outlives its daemon.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent
PANELS = DIRECTORY / "panels.toml"
JSON = DIRECTORY / "backfillctl.json"
README = DIRECTORY / "README.md"
TABLE_BEGIN, TABLE_END = "<!-- panels -->\n", "<!-- end of panels -->"

SCHEMA_VERSION = 41
"""Grafana 12's classic model; newer versions migrate it, older ones read it."""
GRID_WIDTH = 24
"""Columns of Grafana's grid."""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
METRIC = re.compile(r"\b((?:migration:)?backfill_[a-z_]+(?::[a-z0-9_]+)?)(?:\{([^}]*)\})?")
"""A metric or recording rule with the matchers that it has."""
BY_SOURCE = frozenset(
    {
        "backfill_planned_rows",
        "backfill_planned_bytes",
        "backfill_outcomes_total",
        "backfill_copied_bytes_total",
        "backfill_present_bytes_total",
        "backfill_settled_planned_bytes",
        "backfill_in_flight",
        "backfill_parked",
        "backfill_waiting",
        "backfill_excluded_rows",
        "backfill_failed_attempts_total",
        "backfill_retries_total",
        "backfill_checkpoint_timestamp_seconds",
        "backfill_closed",
        "backfill_eta_seconds",
        "backfill_last_progress_timestamp_seconds",
    }
)
"""Metrics with a label `source`, which follow the variable of that name."""

SIZES = {"stat": (3, 4)}
LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
TOOLTIP = {"mode": "multi", "sort": "desc"}
NEWEST = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {"legend": LEGEND, "tooltip": TOOLTIP},
    "stat": NEWEST | {"colorMode": "value", "graphMode": "none", "justifyMode": "auto", "textMode": "auto"},
    "gauge": NEWEST | {"showThresholdLabels": False, "showThresholdMarkers": False},
    "bargauge": NEWEST
    | {"orientation": "horizontal", "displayMode": "basic", "showUnfilled": True, "valueMode": "color"},
    "piechart": NEWEST
    | {
        "pieType": "donut",
        "displayLabels": ["percent"],
        "legend": LEGEND | {"placement": "right", "values": ["value"]},
        "tooltip": TOOLTIP,
    },
    "state-timeline": {
        "mergeValues": True,
        "showValue": "auto",
        "rowHeight": 0.8,
        "alignValue": "left",
        "legend": LEGEND,
        "tooltip": {"mode": "single", "sort": "none"},
    },
}
CUSTOM: dict[str, dict[str, Any]] = {
    "timeseries": {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 10,
        "showPoints": "auto",
        "spanNulls": False,
    },
    "state-timeline": {"fillOpacity": 80, "lineWidth": 0},
}
STACKED = {"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 60, "lineWidth": 0}

Json = dict[str, Any]


def dashboard() -> Json:
    """Return the dashboard, as Grafana's import dialog takes it."""
    return {
        "uid": "backfillctl",
        "title": "backfillctl",
        "description": "Migrations of PostgreSQL rows to S3 objects by backfillctl.",
        "tags": ["backfillctl"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "id": None,
        "editable": True,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "refresh": "30s",
        "links": [],
        "annotations": {
            "list": [
                _annotation(
                    "Sessions",
                    "orange",
                    # The value is the time of the mark, in milliseconds.
                    "max by (migration) (backfill_session_start_timestamp_seconds) * 1000",
                    useValueForTime=True,
                    titleFormat="{{migration}}: a daemon started",
                ),
                _annotation(
                    "Alerts",
                    "red",
                    'ALERTS{alertname=~"Backfill.*", alertstate="firing", migration=~"$migration"}',
                    titleFormat="{{alertname}}",
                    textFormat="{{migration}} {{source}}",
                ),
            ]
        },
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                    "hide": 0,
                    "current": {},
                },
                _variable("migration", "label_values(backfill_build_info, migration)"),
                _variable("source", f"label_values({selected('backfill_planned_rows')}, source)"),
            ]
        },
        "panels": _placed(rows()),
    }


def rows() -> list[Json]:
    """Return the rows of `panels.toml`, each with its list `panel`."""
    found: list[Json] = tomllib.loads(PANELS.read_text(encoding="utf-8"))["row"]
    return found


def selected(expression: str) -> str:
    """Return a PromQL expression with the selection by the dashboard's variables added to every metric."""

    def select(found: re.Match[str]) -> str:
        name, own = found.groups()
        matchers = [own] if own else []
        matchers.append('migration=~"$migration"')
        if name in BY_SOURCE and "source=" not in (own or ""):
            matchers.append('source=~"$source"')
        return f"{name}{{{', '.join(matchers)}}}"

    return METRIC.sub(select, expression)


def metrics_in(expression: str) -> list[str]:
    """Return the names of metrics and recording rules in a PromQL expression, in order, repeated as there."""
    return [name for name, _ in METRIC.findall(expression)]


def panel_table() -> str:
    """Return README's table: each panel with the metrics and recording rules it reads."""
    lines = ["| row | panel | reads |", "|---|---|---|"]
    for row in rows():
        for panel in row["panel"]:
            names = dict.fromkeys(name for query in panel["queries"].values() for name in metrics_in(query))
            reads = ", ".join(f"`{name}`" for name in names)
            lines.append(f"| {row['title']} | {panel['title']} | {reads} |")
    return "\n".join(lines) + "\n"


def text() -> str:
    """Return what belongs in `backfillctl.json`."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def with_table(readme: str) -> str:
    """Return README.md's text with the panel table as it is to be."""
    before, rest = readme.split(TABLE_BEGIN)
    return f"{before}{TABLE_BEGIN}{panel_table()}{TABLE_END}{rest.split(TABLE_END)[1]}"


def _variable(name: str, query: str) -> Json:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "Variables", "qryType": 1},
        # On a change of the time range: a migration that has ended is found in its time.
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "multi": True,
        "includeAll": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _annotation(name: str, colour: str, expression: str, **more: object) -> Json:
    return {
        "name": name,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "datasource": DATASOURCE,
        "expr": selected(expression),
        "step": "60s",
        **more,
    }


def _placed(listed: list[Json]) -> list[Json]:
    """Rows and panels from left to right and from top to bottom, with ids from 1."""
    placed: list[Json] = []
    y = 0
    for row in listed:
        heading = {"type": "row", "title": row["title"], "collapsed": False, "panels": []}
        if "repeat" in row:
            heading["repeat"] = row["repeat"]
        placed.append({"id": len(placed) + 1, "gridPos": _cells(0, y, GRID_WIDTH, 1), **heading})
        y += 1
        x = tallest = 0
        for panel in row["panel"]:
            width, height = SIZES.get(panel.get("kind", ""), (8, 8))
            width, height = panel.get("width", width), panel.get("height", height)
            if x + width > GRID_WIDTH:
                x, y, tallest = 0, y + tallest, 0
            placed.append({"id": len(placed) + 1, "gridPos": _cells(x, y, width, height), **_panel(panel)})
            x, tallest = x + width, max(tallest, height)
        y += tallest
    return placed


def _cells(x: int, y: int, width: int, height: int) -> Json:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Json) -> Json:
    kind = panel.get("kind", "timeseries")
    return {
        "type": kind,
        "title": panel["title"],
        "description": panel["description"],
        "datasource": DATASOURCE,
        "fieldConfig": {
            "defaults": _field_defaults(kind, panel),
            "overrides": [
                {
                    "matcher": {"id": "byName", "options": legend},
                    "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
                }
                for legend, colour in panel.get("colours", {}).items()
            ],
        },
        "options": OPTIONS[kind] | panel.get("options", {}),
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": DATASOURCE,
                "expr": selected(expression.strip()),
                "legendFormat": legend,
                "range": True,
                "instant": False,
                "editorMode": "code",
            }
            for at, (legend, expression) in enumerate(panel["queries"].items())
        ],
    }


def _field_defaults(kind: str, panel: Json) -> Json:
    defaults: Json = {"unit": panel["unit"], "color": {"mode": "palette-classic"}, "mappings": []}
    defaults |= {name: panel[name] for name in ("min", "max") if name in panel}
    if "steps" in panel:
        listed = [
            {"color": colour, "value": bound[0] if bound else None} for colour, *bound in panel["steps"]
        ]
        defaults |= {
            "color": {"mode": "thresholds"},
            "thresholds": {"mode": "absolute", "steps": listed},
        }
    if "words" in panel:
        worded = {
            number: {"text": word, "color": colour} for number, (word, colour) in panel["words"].items()
        }
        defaults["mappings"] = [{"type": "value", "options": worded}]
    custom = CUSTOM.get(kind, {}) | (STACKED if panel.get("stacked") else {})
    return defaults | ({"custom": custom} if custom else {})


if __name__ == "__main__":
    JSON.write_text(text(), encoding="utf-8")
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
