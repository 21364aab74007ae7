"""Run a handler as a worker does, without one: a real Context, a real artifact store."""

from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.consumers.context import Context, Report
from penstock.core.artifacts import Artifacts, open_artifacts
from penstock.core.settings import Settings


class Desk:
    """A store in a folder of the test's own, and contexts that keep what handlers report."""

    def __init__(self, folder: Path) -> None:
        self.store: Final[Artifacts] = open_artifacts(Settings(data_dir=folder))
        self.reports: Final[list[Report]] = []

    def context(self, type: str = "test.job", job_id: str = "test.0.1795477369681-0") -> Context:
        return Context(
            job_id=job_id,
            type=type,
            attempt=1,
            attempts=3,
            artifacts=self.store,
            jobs=None,
            report=self.reports.append,
        )

    def progress(self) -> list[dict[str, Any]]:
        """What the `progressed` reports say, as a log would keep it."""
        return [msgspec.json.decode(report.body) for report in self.reports if report.tag == "progressed"]

    def fractions(self) -> list[float]:
        return [body["fraction"] for body in self.progress()]

    def progress_data(self) -> list[Any]:
        return [body["data"] for body in self.progress() if "data" in body]
