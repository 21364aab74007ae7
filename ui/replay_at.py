"""`penstock replay at`: a job, a queue or everything as it was at a moment, or right after an event."""

import asyncio
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from penstock.core.connection import answering, command, connect
from penstock.core.errors import NotFound, Refused
from penstock.core.keys import Keys
from penstock.core.lifecycle import STATES, State
from penstock.core.positions import milliseconds, parse_job_id
from penstock.core.settings import Settings
from penstock.projections.replay.asking import moment_of
from penstock.ui.output import print_facts, print_json, print_table
from penstock.ui.replay_options import ArchiveUrl, asked_settings

if TYPE_CHECKING:
    from penstock.projections.details import JobDetail
    from penstock.projections.figures import QueueDetail
    from penstock.projections.travel import PastPage, Span

app: Final = typer.Typer()

JsonOutput = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]

_POSITION: Final = re.compile(r"[0-9]{1,14}-[0-9]{1,19}")
_HIDDEN: Final = ("queue", "payload", "result", "progress", "error")


class When:
    """A moment in Unix ms, or right after the event at `upto`."""

    def __init__(self, text: str) -> None:
        """Raises Refused."""
        self.upto: Final = text if _POSITION.fullmatch(text) else ""
        at = milliseconds(text) if self.upto else moment_of("MOMENT", text)
        if at is None:
            raise Refused(
                "say when: 2026-11-24T07:45:00Z, Unix ms, 2h ago as 2h, or a position like 1795477369681-0"
            )
        self.at: Final = at


@app.command("at")
def at_(
    moment: Annotated[
        str,
        typer.Argument(
            help="2026-11-24T07:45:00Z, Unix ms, so long ago (15m, 2h, 3d), or a position in the log."
        ),
    ],
    queue: Annotated[str, typer.Option(help="This queue, and its jobs.")] = "",
    job: Annotated[str, typer.Option(help="This job, like email.0.1795477369681-0.")] = "",
    state: Annotated[str, typer.Option(help="Of the queue only the jobs in this state.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Of the queue the newest jobs, so many.")] = 20,
    archive: ArchiveUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Tell how everything was, a queue, or a job: at a moment, or right after an event."""
    if state and state not in STATES:
        raise Refused(f"there is no state {state!r}; there are: {', '.join(STATES)}")
    when, settings = When(moment), asked_settings(archive)
    if job:
        _say_job(asyncio.run(_job(settings, when, job)), as_json=as_json)
    elif queue:
        _say_queue(*asyncio.run(_queue(settings, when, queue, state or None, limit)), as_json=as_json)
    else:
        _say_queues(asyncio.run(_queues(settings, when)), as_json=as_json)


async def _job(settings: Settings, when: When, job: str) -> "JobDetail":
    from penstock.projections.replay.chronicle import open_travel

    queue, number, position = parse_job_id(job)
    keys = Keys(settings.namespace).partition(queue, number)
    with answering():
        async with connect(settings) as redis:
            return await open_travel(redis, settings.archive_url).job(keys, position, when.at, when.upto)


async def _queue(
    settings: Settings, when: When, queue: str, state: State | None, limit: int
) -> "tuple[QueueDetail, PastPage]":
    from penstock.projections.replay.chronicle import open_travel

    keys = Keys(settings.namespace).partition(queue)
    with answering():
        async with connect(settings) as redis:
            if not await command(redis, "SISMEMBER", keys.queues, queue):
                raise NotFound(f"there is no queue {queue!r}")
            travel = open_travel(redis, settings.archive_url)
            _check(when, await travel.span([keys]))
            told = await travel.queue(keys, when.at, when.upto)
            return told, await travel.jobs(keys, when.at, state=state, limit=limit, upto=when.upto)


async def _queues(settings: Settings, when: When) -> "list[QueueDetail]":
    from penstock.projections.replay.chronicle import open_travel

    keys = Keys(settings.namespace)
    with answering():
        async with connect(settings) as redis:
            names = sorted(it.decode() for it in await command(redis, "SMEMBERS", keys.queues))
            partitions = [keys.partition(name) for name in names]
            travel = open_travel(redis, settings.archive_url)
            span = await travel.span(partitions)
            if span.from_at is not None:
                _check(when, span)
            return [await travel.queue(it, when.at, when.upto) for it in partitions]


def _check(when: When, span: "Span") -> None:
    """Raises Refused: the log begins later."""
    from penstock.projections.details import instant

    if span.from_at is None:
        raise Refused("the log is empty: nothing can be told of any moment")
    if instant(when.at) < span.from_at:
        raise Refused(
            f"{instant(when.at)} is before what the log can tell: it can be told from {span.from_at} on"
        )


def _say_job(told: "JobDetail", *, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    facts: list[tuple[str, Any]] = [
        (name, getattr(told, name)) for name in told.__struct_fields__ if name not in _HIDDEN
    ]
    if told.error:
        facts.append(("error", f"{told.error.error}: {told.error.message}"))
    print_facts(facts)


def _say_queue(told: "QueueDetail", page: "PastPage", *, as_json: bool) -> None:
    if as_json:
        print_json({"queue": told, "page": page})
        return
    _print_counts([told])
    sys.stdout.write("\n")
    rows = [[it.id, it.type, it.state, it.attempt, it.submitted_at, it.updated_at] for it in page.jobs]
    print_table(("job", "type", "state", "attempt", "submitted", "last event"), rows)
    if page.next:
        sys.stdout.write(f"\nthe newest {len(rows)}; more with --limit\n")
    if page.missing:
        sys.stdout.write(
            f"\n{page.missing:,} jobs have been removed by retention since, and are not listed\n"
        )


def _say_queues(told: "Sequence[QueueDetail]", *, as_json: bool) -> None:
    if as_json:
        print_json({"queues": told})
    else:
        _print_counts(told)


def _print_counts(told: "Sequence[QueueDetail]") -> None:
    rows = [[it.queue, *(getattr(it.counts, state) for state in STATES)] for it in told]
    print_table(("queue", *STATES), rows)
