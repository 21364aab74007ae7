"""`penstock replay …`: read the log itself. These commands ask the server that holds the log (
PENSTOCK_REDIS_URL, or the one of `penstock up` in this folder), so they work whatever else is down."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from penstock.core.connection import answering, connect
from penstock.core.errors import Refused
from penstock.core.keys import Keys
from penstock.core.logs import configure_logging
from penstock.core.positions import JobAddress, parse_job_id
from penstock.core.sealing import open_seals
from penstock.core.settings import Settings
from penstock.core.story import tell
from penstock.projections.replay.asking import job_in, known_events, moment_of
from penstock.projections.replay.telling import Story, story
from penstock.ui.lifeline import StopSignals
from penstock.ui.replay_options import ArchiveUrl, asked_settings

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
To = Annotated[str, typer.Option("--to", help="Before when, as --from.")]
OnlyJob = Annotated[str, typer.Option("--job", help="Only this job, like email.0.1795477369681-0.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Like email.0.1795477369681-0.")]


@app.command()
def show(
    id: JobId,
    unseal: Annotated[bool, typer.Option("--unseal", help="Open what PENSTOCK_PAYLOAD_KEYS sealed.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Each event on its own, with tracebacks.")] = False,
    archive: ArchiveUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Tell a job's story. Each event, how long after the one before, and the state it led to."""
    from penstock.ui.output import print_json
    from penstock.ui.replay_output import print_story

    told = asyncio.run(_story(asked_settings(archive), id, unseal=unseal))
    if as_json:
        print_json(told)
    else:
        print_story(told, full=full)


@app.command()
def tail(
    queue: Queues = None,
    type: Type = "",
    job: OnlyJob = "",
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
    settings = asked_settings()
    configure_logging(settings, "replay")
    asyncio.run(_tail(settings, follow, Printer(as_json=as_json or not sys.stdout.isatty())))


@app.command()
def grep(
    text: Annotated[
        str, typer.Argument(metavar="[PATTERN]", help="A regular expression, found in the event's body.")
    ] = "",
    where: Annotated[
        str, typer.Option(help="A JMESPath expression on the body, like 'payload.to && attempt > `1`'.")
    ] = "",
    ignore_case: Annotated[bool, typer.Option("--ignore-case", "-i", help="For PATTERN.")] = False,
    queue: Queues = None,
    type: Type = "",
    job: OnlyJob = "",
    tag: Tag = "",
    event: Events = None,
    since: From = "",
    until: To = "",
    limit: Annotated[int, typer.Option(min=0, help="Stop after so many; 0: never.")] = 0,
    archive: ArchiveUrl = "",
    as_json: NdJson = False,
) -> None:
    """Search the log. Every event that fits all that is said, oldest first, queue by queue."""
    from penstock.projections.replay.sieve import Sought, expression, pattern
    from penstock.ui.replay_output import Printer
    from penstock.ui.replay_search import Search, search

    address = job_in(job, queue or ()) if job else None
    settings = asked_settings(archive)
    asked = Search(
        queues=(address.queue,) if address else tuple(queue or ()),
        sought=Sought(
            type=type,
            tag=tag,
            job=address.position if address else "",
            events=known_events(event),
            text=pattern(text, ignore_case=ignore_case),
            where=expression(where),
        ),
        since=moment_of("--from", since),
        until=moment_of("--to", until),
        limit=limit,
        archive=settings.archive_url,
    )
    printer = Printer(as_json=as_json or not sys.stdout.isatty())
    asyncio.run(search(settings, asked, printer))
    printer.flush()


@app.command()
def export(
    file: Annotated[
        str, typer.Argument(help="NAME.ndjson.zst, .ndjson or .parquet; also s3://bucket/…; - for a pipe.")
    ],
    queue: Annotated[str, typer.Option(help="The queue whose log it is.")] = "",
    job: Annotated[str, typer.Option(help="Only this job's story; then no queue is needed.")] = "",
    since: From = "",
    until: To = "",
    redact: Annotated[
        list[str] | None, typer.Option(help="What to leave out, like payload.to; may be given again.")
    ] = None,
    as_json: JsonOutput = False,
) -> None:
    """Write a stretch of the log, or one job's story, to a file. It vouches for itself."""
    from penstock.projections.replay.exporting import Asked
    from penstock.ui.replay_files import run_export

    if bool(queue) == bool(job):
        raise Refused("say which log: --queue email, or --job email.0.1795477369681-0")
    if job and (since or until):
        raise Refused("--from and --to are for a --queue: a job's story is told whole")
    address = parse_job_id(job) if job else JobAddress(queue, 0, "")
    asked = Asked(
        queue=address.queue,
        partition=address.partition,
        job=address.position,
        since=moment_of("--from", since),
        until=moment_of("--to", until),
        redact=tuple(redact or ()),
    )
    asyncio.run(run_export(asked_settings(), asked, file, as_json=as_json))


@app.command("import")
def import_(
    files: Annotated[list[str], typer.Argument(help="Exports of one log, each going on where one ends.")],
    queue: Annotated[str, typer.Option(help="The queue to put it into; the one it is of if empty.")] = "",
    as_json: JsonOutput = False,
) -> None:
    """Put exports back, into a queue that has no events. All of it, with its ids, or nothing."""
    from penstock.ui.replay_files import run_import

    asyncio.run(run_import(asked_settings(), files, queue, as_json=as_json))


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
            events = await tell(redis, keys, position)
            if settings.archive_url and not events:
                from penstock.projections.replay.archive import Archive
                from penstock.projections.replay.history import History, opened

                history, _ = await opened(redis, keys, Archive(settings.archive_url))
                events = await history.story(position) if isinstance(history, History) else []
            return story(keys, position, events, seals)
