"""The rules: Prometheus's own tool takes them, each alert is tried and has its paragraph in the runbook."""

import re

import pytest
from typer.main import get_command

from deployment import INFRA, documents
from observatory import promtool
from penstock.ui.cli import app

RULES = [
    rule
    for file in sorted((INFRA / "prometheus/rules").glob("*.yml"))
    for group in documents(file)[0]["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RUNBOOK = (INFRA / "RUNBOOK.md").read_text()
TRIED = (INFRA / "prometheus/rules_test.yml").read_text()


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    said = promtool("check", "config", str(INFRA / "prometheus/prometheus.yml"))
    assert "2 rule files found" in said
    said = promtool("check", "rules", *map(str, sorted((INFRA / "prometheus/rules").glob("*.yml"))))
    counted = re.findall(r"SUCCESS: (\d+) rules found", said)
    assert sum(map(int, counted)) == len(RULES)


def test_alerts_fire_with_their_cause_and_clear_with_it() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(INFRA / "prometheus/rules_test.yml"))


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_is_tried_in_both_ways(name: str) -> None:
    assert f"alertname: {name}}}" in TRIED, "where all is well"
    fires = (f'alertname="{name}", alertstate="firing"', f"alertname: {name}\n        exp_alerts:")
    assert any(it in TRIED for it in fires)


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_says_what_is_wrong_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"infra/RUNBOOK.md#{name.lower()}"
    [paragraph] = re.findall(rf"^## {name}\n\n(.+?)(?=\n## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert len(paragraph.split()) > 40, "says what to do"


def test_the_runbook_has_no_other_alerts_and_names_commands_that_exist() -> None:
    assert set(re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)) == set(ALERTS)
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"penstock ([a-z-]+)", RUNBOOK.replace("\n", " ")))
    assert named <= commands
    assert set(re.findall(r"Penstock[A-Z]\w+", RUNBOOK)) == set(ALERTS)
