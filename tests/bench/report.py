"""What comes out: one JSON document, and tables for people."""

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from bench.goals import Verdict, verdicts
from bench.measures import Figures
from bench.server import Aof

# Figure → its heading and how a value is written.
COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "bulk_per_s": ("bulk submit /s", ",.0f"),
    "single_per_s": ("one at a time /s", ",.0f"),
    "drain_1_per_s": ("drained by 1 /s", ",.0f"),
    "drain_2_per_s": ("drained by 2 /s", ",.0f"),
    "beside_per_s": ("drained by 1 beside a projector /s", ",.0f"),
    "projected_per_s": ("drained by 1 and projected /s", ",.0f"),
    "projected_lag_events": ("lag at its end, events", ",.0f"),
    "projected_lag_ms": ("lag at its end, ms", ",.1f"),
    "watched_share": ("drained with metrics on, over off", ".3f"),
    "scrapes": ("scrapes meanwhile", ",.0f"),
    "fold_per_s": ("events projected /s", ",.0f"),
    "p50_ms": ("submit to start p50, ms", ".2f"),
    "p99_ms": ("submit to start p99, ms", ".2f"),
    "waiting_bytes": ("bytes per waiting job", ",.0f"),
    "finished_bytes": ("bytes per finished job", ",.0f"),
    "rebuild_per_s": ("events rebuilt /s", ",.0f"),
    "rebuild_mib": ("peak of a rebuild, MiB", ",.0f"),
    "rebuild_growth": ("its peak over that of a quarter", ".2f"),
    "memory_growth": ("memory, later over earlier half", ".2f"),
    "producer_mib": ("producer's peak over a million jobs, MiB", ",.0f"),
    "worker_mib": ("worker's, MiB", ",.0f"),
    "projector_mib": ("projector's, MiB", ",.0f"),
    "verify_per_s": ("events verified /s", ",.0f"),
    "verify_mib": ("peak of verify, MiB", ",.0f"),
    "grep_events_per_s": ("events searched by event and type /s", ",.0f"),
    "grep_events_worked_per_s": ("the same a CPU second", ",.0f"),
    "grep_text_per_s": ("by regular expression /s", ",.0f"),
    "grep_text_worked_per_s": ("the same a CPU second", ",.0f"),
    "grep_where_per_s": ("by JMESPath /s", ",.0f"),
    "grep_where_worked_per_s": ("the same a CPU second", ",.0f"),
    "grep_mib": ("peak of a search, MiB", ",.0f"),
    "export_per_s": ("events exported as NDJSON, zstd /s", ",.0f"),
    "export_mib": ("its peak, MiB", ",.0f"),
    "parquet_per_s": ("events exported as Parquet /s", ",.0f"),
    "parquet_mib": ("its peak, MiB", ",.0f"),
    "import_per_s": ("events imported /s", ",.0f"),
    "import_mib": ("its peak, MiB", ",.0f"),
    "at_queue_ms": ("a queue at a moment, p50, ms", ",.1f"),
    "at_queue_max_ms": ("the longest, ms", ",.1f"),
    "at_state_ms": ("its running jobs alone, p50, ms", ",.1f"),
    "at_state_max_ms": ("the longest, ms", ",.1f"),
    "at_job_ms": ("a job, p50, ms", ",.1f"),
    "at_job_max_ms": ("the longest, ms", ",.1f"),
    "at_api_ms": ("as the API asks, p50, ms", ",.1f"),
    "at_api_max_ms": ("the longest, ms", ",.1f"),
    "at_cold_ms": ("the command, from start to end, p50, ms", ",.0f"),
    "at_cold_max_ms": ("the longest, ms", ",.0f"),
    "at_mib": ("peak of looking back, MiB", ",.0f"),
    "server_mib": ("the server with log and views, MiB", ",.0f"),
    "server_peak_mib": ("its peak, with a shadow or a copy, MiB", ",.0f"),
}


class Environment(msgspec.Struct, frozen=True):
    """Where a run was made."""

    server: str
    python: str
    processor: str
    cores: int
    load_before: float


class Report(msgspec.Struct):
    """A run: where, with what, every figure of every run, their medians, and the goals.

    `runs` is AOF mode → system → figure → the values in order.
    """

    environment: Environment
    options: dict[str, Any]
    runs: dict[Aof, dict[str, dict[str, list[float]]]] = {}
    medians: dict[Aof, dict[str, dict[str, float]]] = {}
    goals: dict[Aof, list[Verdict]] = {}

    def add(self, aof: Aof, system: str, figures: Figures) -> None:
        for name, value in figures.items():
            self.runs.setdefault(aof, {}).setdefault(system, {}).setdefault(name, []).append(value)

    def conclude(self) -> None:
        """Medians and goals of what was added."""
        for aof, systems in self.runs.items():
            self.medians[aof] = {
                system: {name: statistics.median(values) for name, values in figures.items()}
                for system, figures in systems.items()
            }
            self.goals[aof] = verdicts(self.medians[aof])

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def environment(server: str) -> Environment:
    """This machine, now."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return Environment(
        server=server,
        python=platform.python_version(),
        processor=model,
        cores=os.cpu_count() or 1,
        load_before=round(os.getloadavg()[0], 2),
    )


def show(report: Report, console: Console) -> None:
    """Print all tables."""
    for aof, systems in report.medians.items():
        console.print(_figures(f"Medians, AOF {aof}, {report.environment.server}", systems))
        if report.goals[aof]:
            console.print(_goals(f"Goals, AOF {aof}", report.goals[aof]))


def _figures(title: str, systems: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    for system in systems:
        table.add_column(system, justify="right")
    for name, (heading, form) in COLUMNS.items():
        if any(name in figures for figures in systems.values()):
            cells = [format(figures[name], form) if name in figures else "" for figures in systems.values()]
            table.add_row(heading, *cells)
    return table


def _goals(title: str, rows: Sequence[Verdict]) -> Table:
    table = Table("goal", title=title, title_justify="left")
    for heading in ("measured", "wanted", "holds"):
        table.add_column(heading, justify="right")
    for row in rows:
        form = ",.0f" if row.unit in {"B", "/s"} else ".2f"
        table.add_row(
            row.goal,
            f"{row.measured:{form}} {row.unit}",
            f"{'at most' if row.at_most else 'at least'} {row.bound:,g} {row.unit}",
            "[green]yes[/]" if row.holds else "[bold red]no[/]",
        )
    return table
