"""Grafana's dashboards: the committed JSON is what the code makes, each panel can be read, and all that
is asked for exists."""

import json
import re
from typing import Any

import pytest

from deployment import INFRA, documents
from penstock.core.telemetry import INSTRUMENTS
from penstock.ui.grafana.__main__ import dashboards

MADE = dashboards()
PARSED: dict[str, Any] = {name: json.loads(text) for name, text in MADE.items()}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, it in PARSED.items()
    for panel in it["panels"]
    if panel["type"] != "row"
]
RULES = (INFRA / "prometheus/rules/recording.yml").read_text()
ALERTS = (INFRA / "prometheus/rules/alerts.yml").read_text()


def test_the_committed_files_are_what_the_code_makes() -> None:
    """If not: `make grafana`."""
    files = {it.name: it.read_text() for it in (INFRA / "grafana/dashboards").iterdir()}
    assert files == MADE


def test_dashboards_have_names_of_their_own_and_find_each_other() -> None:
    assert len({it["uid"] for it in PARSED.values()}) == len(PARSED)
    for it in PARSED.values():
        assert it["tags"] == it["links"][0]["tags"] == ["penstock"]
        numbers = [panel["id"] for panel in it["panels"]]
        assert len(set(numbers)) == len(numbers)
        titles = [panel["title"] for panel in it["panels"]]
        assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert len(panel["description"].split()) > 2
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in {"s", "bytes", "percentunit", "short", "ops"}
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    legends = [target.get("legendFormat") for target in panel["targets"]]
    assert panel["type"] == "stat" or (all(legends) and len(set(legends)) == len(legends))


@pytest.mark.parametrize("name", PARSED)
def test_panels_fill_their_lines_and_do_not_overlap(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in PARSED[name]["panels"]:
        at = panel["gridPos"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height


def test_all_that_is_asked_for_exists() -> None:
    known = {it.prometheus for it in INSTRUMENTS}
    known |= {
        f"{it.prometheus}_{part}"
        for it in INSTRUMENTS
        if it.kind == "histogram"
        for part in ("bucket", "count")
    }
    recorded = set(re.findall(r"record: (\S+)", RULES))
    for text in (*MADE.values(), RULES, ALERTS):
        for word in re.findall(r"[a-z_]*:?(?:penstock|messaging|http_server|process)_[a-z_]+:?\w*", text):
            assert word in known | recorded, word


def test_whatever_is_measured_is_shown() -> None:
    shown = " ".join(MADE.values()) + RULES + ALERTS
    assert [it.prometheus for it in INSTRUMENTS if it.prometheus not in shown] == []


def test_grafana_is_given_the_source_and_the_folder() -> None:
    [source] = documents(INFRA / "grafana/provisioning/datasources/prometheus.yml")[0]["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    [provider] = documents(INFRA / "grafana/provisioning/dashboards/penstock.yml")[0]["providers"]
    mounted = documents(INFRA / "compose.yaml")[0]["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounted
