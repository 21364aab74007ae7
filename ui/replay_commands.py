"""`penstock replay …`: read the log itself. These commands ask the server that holds the log (
PENSTOCK_REDIS_URL, or the one of `penstock up` in this folder), so they work whatever else is down."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

import typer

from penstock.core.connection import answering, connect
from penstock.core.keys import Keys
from penstock.core.logs import configure_logging
from penstock.core.positions import parse_job_id
from penstock.core.sealing import open_seals
from penstock.core.settings import Settings, read_settings
from penstock.core.story import tell
from penstock.projections.replay.asking import known_events, moment_of
from penstock.projections.replay.telling import Story, story
from penstock.ui.embedded import with_server
from penstock.ui.lifeline import StopSignals

if TYPE_CHECKING:
    from penstock.projections.replay.tail import Follow
    from penstock.ui.replay_output import Printer

app: Final = typer.Typer(no_args_is_help=True, help="Read the log: what happened, when, to which job.")

JsonOutput = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
NdJson = Annotated[bool, typer.Option("--json", help="One JSON object a line (NDJSON).")]
Queues = Annotated[list[str] | None, typer.Option("--queue", help="Only this queue; may be given again.")]
Type = Annotated[str, typer.Option(help="Only jobs of this type, like email.send.")]
Tag = Annotated[str, typer.Option(help="Only jobs with this tag.")]
Events = Annotated[
    list[str] | None, typer.Option("--event", help="Only these events, like failed; may be given again.")
]
From = Annotated[
    str, typer.Option("--from", help="From when on: 2026-11-24T07:45:00Z, Unix ms, or 15m, 2h, 3d ago.")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Like email.0.1795477369681-0.")]


@app.command()
def show(
    id: JobId,
    unseal: Annotated[bool, typer.Option("--unseal", help="Open what PENSTOCK_PAYLOAD_KEYS sealed.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Each event on its own, with tracebacks.")] = False,
    as_json: JsonOutput = False,
) -> None:
    """Tell a job's story: each event, how long after the one before, and the state it led to."""
    from penstock.ui.output import print_json
    from penstock.ui.replay_output import print_story

    told = asyncio.run(_story(_settings(), id, unseal=unseal))
    if as_json:
        print_json(told)
    else:
        print_story(told, full=full)


@app.command()
def tail(
    queue: Queues = None,
    type: Type = "",
    job: Annotated[str, typer.Option(help="Only this job, like email.0.1795477369681-0.")] = "",
    tag: Tag = "",
    event: Events = None,
    state: Annotated[str, typer.Option(help="Only events that lead a job into this state.")] = "",
    since: From = "",
    as_json: NdJson = False,
) -> None:
    """Follow the log: each event as it happens, until Ctrl-C."""
    from penstock.projections.feed_events import following
    from penstock.projections.replay.tail import Follow
    from penstock.ui.replay_output import Printer

    wanted = following("", type, job, state, tag)
    follow = Follow(
        wanted=wanted, queues=tuple(queue or ()), events=known_events(event), since=moment_of("--from", since)
    )
    settings = _settings()
    configure_logging(settings, "replay")
    asyncio.run(_tail(settings, follow, Printer(as_json=as_json)))


async def _tail(settings: Settings, follow: "Follow", printer: "Printer") -> None:
    from penstock.projections.replay.tail import follow_logs

    stop = StopSignals(second_exits=True).first
    printer.stop = stop
    await follow_logs(settings, follow, printer.tell, stop)


async def _story(settings: Settings, id: str, *, unseal: bool) -> Story:
    queue, number, position = parse_job_id(id)
    keys = Keys(settings.namespace).partition(queue, number)
    seals = open_seals(settings) if unseal else None
    with answering():
        async with connect(settings) as redis:
            return story(keys, position, await tell(redis, keys, position), seals)


def _settings() -> Settings:
    return with_server(read_settings())
