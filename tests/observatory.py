"""Prometheus for tests: Debian's, and its promtool, as a process of ours on a free port.

Where they are not installed the tests that need them are skipped; under CI=true they fail instead.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from servers import free_port

START_S: Final = 30.0


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; without it the test is skipped, and fails under CI=true."""
    found = shutil.which(name)
    if found is None:
        reason = f"no {name} on PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def promtool(*words: str) -> str:
    """What promtool says; the test fails where it does not like what it is given."""
    asked = subprocess.run([program("promtool"), *words], check=False, capture_output=True, text=True)
    said = asked.stdout + asked.stderr
    assert asked.returncode == 0, said
    return said


class Prometheus:
    """A running one: asks it what it knows."""

    def __init__(self, port: int) -> None:
        self._http: Final = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query: the series, each `{"metric": labels, "value": [time, text]}`."""
        found = self._ask("/api/v1/query", query=expression)
        result: list[dict[str, Any]] = found["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The only value that a query answers, or None."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def up(self) -> dict[str, str]:
        """How each target is, by its label `process`: `up`, or what is wrong."""
        targets = self._ask("/api/v1/targets")["activeTargets"]
        return {it["labels"]["process"]: it["lastError"] or it["health"] for it in targets}

    def alerts(self) -> set[tuple[str, str]]:
        """Which alerts fire, of which queue or process."""
        found = self._ask("/api/v1/alerts")["alerts"]
        firing = [it["labels"] for it in found if it["state"] == "firing"]
        return {(it["alertname"], it.get("queue", it.get("process", ""))) for it in firing}

    def ready(self) -> bool:
        """Whether it answers yet."""
        try:
            return self._http.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def _ask(self, path: str, **parameters: str) -> Any:
        answer = self._http.post(path, data=parameters) if parameters else self._http.get(path)
        assert answer.is_success, f"{parameters}: {answer.text}"
        return answer.json()["data"]


@contextmanager
def observing(
    folder: Path, targets: Mapping[str, int], rules: Path, *, every: str = "1s"
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes processes on this machine, each under its name, and knows the rules of a
    folder; it looks as often as `every` says."""
    port = free_port()
    job = {
        "job_name": "penstock",
        "static_configs": [
            {"targets": [f"127.0.0.1:{at}"], "labels": {"process": name}} for name, at in targets.items()
        ],
    }
    looks = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    config = {"global": looks, "rule_files": [f"{rules}/*.yml"], "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    words = [
        *(program("prometheus"), f"--config.file={folder / 'prometheus.yml'}"),
        *(f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"),
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        prometheus = Prometheus(port)
        deadline = time.monotonic() + START_S
        while not prometheus.ready():
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < deadline, (folder / "prometheus.log").read_text()
            time.sleep(0.05)
        yield prometheus
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_S)


# Comparisons with a number: what is left of an alert without them is what it looks at.
_BOUND: Final = re.compile(r" (?:>|<|>=|<=|==|!=) [\d.]+")


def unbound(expression: str) -> str:
    """An alert's expression without its thresholds, which has data also when the alert does not fire."""
    return _BOUND.sub("", expression)
