"""The bench: `make bench`, or `.venv/bin/python tests/bench --help`.

Every measure is taken of each system in turn (A B C, A B C, …), each time in a fresh arena, so that
what else happens on the machine falls on all alike; then medians, then the goals.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, get_args

import msgspec
import typer
from rich.console import Console

from bench.arena import ProgramFailed, arena
from bench.goals import log_of
from bench.long import rebuilt, steady
from bench.measures import MEASURES, Group, Measure, Sizes
from bench.peers.install import PeerMissing, pins
from bench.replay import MILLION, replayed
from bench.report import Report, environment, show
from bench.server import AOFS, Aof, ServerMissing, fresh_server
from bench.systems import System, own_systems, peer_systems

RESULTS: Final = Path(__file__).parent / "results"
REPLAY: Final = "replay"
GROUPS: Final[tuple[str, ...]] = get_args(Group)


class AofChoice(StrEnum):
    off = "off"
    everysec = "everysec"
    both = "both"


class ServerChoice(StrEnum):
    redis = "redis"
    valkey = "valkey"


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def bench(
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure BullMQ, taskiq and streaQ too (installs them).")
    ] = False,
    skip: Annotated[str, typer.Option(help="Systems to leave out, by comma.")] = "",
    only: Annotated[str, typer.Option(help="Which groups, by comma; also: replay.")] = ",".join(GROUPS),
    runs: Annotated[int, typer.Option(min=1, help="How often each measure is taken.")] = 5,
    jobs: Annotated[int, typer.Option(min=100, help="How many jobs are submitted and drained.")] = 20_000,
    aof: Annotated[AofChoice, typer.Option(help="The server's append-only file.")] = AofChoice.both,
    server: Annotated[ServerChoice, typer.Option(help="Which server.")] = ServerChoice.redis,
    events: Annotated[int, typer.Option(min=100, help="How many events are replayed.")] = MILLION,
    long: Annotated[
        bool,
        typer.Option(
            "--long",
            help="With memory also 1 million jobs and a rebuild, with replay ten times the events; minutes.",
        ),
    ] = False,
    json: Annotated[Path, typer.Option(help="Where the results go.")] = RESULTS / "latest.json",
) -> None:
    """Measure Penstock, its ceiling and, when asked, the peers; tell which goals hold."""
    console = Console()
    groups = _groups(only)
    measures = [measure for measure in MEASURES if measure.group in groups]
    modes: tuple[Aof, ...] = tuple(mode for mode in AOFS if aof.value in {mode, "both"})
    sizes = Sizes(jobs=jobs, warm=max(jobs // 10, 1))
    failure = None
    try:
        known = own_systems() + (peer_systems() if peers else [])
        systems = [system for system in known if system.name not in skip.split(",")]
        report = Report(environment(_version(server.value)), {"runs": runs, **msgspec.to_builtins(sizes)})
        report.options["peers"] = pins() if peers else {}
        replays = [events, 10 * events] if long else [events]
        report.options["events"] = replays if REPLAY in groups else []
    except (PeerMissing, ServerMissing) as error:
        raise SystemExit(f"cannot begin: {error}") from None
    try:
        _measure(report, console, systems, measures, sizes, server.value, modes)
        if long and "memory" in groups:
            for take in (steady, rebuilt):
                with arena(systems[0], server.value, modes[0]) as place:
                    report.add(modes[0], systems[0].name, take(place))
        if REPLAY in groups:
            for size in replays:
                with arena(systems[0], server.value, modes[0]) as place:
                    for figures in replayed(place, size, runs):
                        report.add(modes[0], log_of(size), figures)
                console.print(f"{log_of(size)} events done", highlight=False)
    except ProgramFailed as error:  # what was measured before it is worth keeping
        failure = error
    report.conclude()
    report.write(json)
    show(report, console)
    console.print(f"written to {json}", highlight=False)
    if failure:
        raise SystemExit(f"stopped before the end: {failure}")


def _groups(only: str) -> set[str]:
    chosen = {word.strip() for word in only.split(",") if word.strip()}
    unknown = chosen - {*GROUPS, REPLAY}
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))}: the groups are {', '.join(GROUPS)}, {REPLAY}"
        )
    return chosen


def _measure(
    report: Report,
    console: Console,
    systems: list[System],
    measures: list[Measure],
    sizes: Sizes,
    kind: str,
    modes: tuple[Aof, ...],
) -> None:
    runs = report.options["runs"]
    for aof in modes if measures else ():
        for run in range(runs):
            for measure in measures:
                if measure.once and (run or aof != modes[0]):
                    continue
                for system in filter(measure.fits, systems):
                    with arena(system, kind, aof) as place:
                        report.add(aof, system.name, measure.take(place, sizes))
            console.print(f"AOF {aof}: run {run + 1} of {runs} done", highlight=False)


def _version(kind: str) -> str:
    with fresh_server(kind, "off") as (_, client):
        info = client.info("server")
        return f"{kind} {info.get('valkey_version', info['redis_version'])}"
