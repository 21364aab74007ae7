"""`penstock replay …`: read the log itself. These commands ask the server that holds the log (
PENSTOCK_REDIS_URL, or the one of `penstock up` in this folder), so they work whatever else is down."""

import asyncio
from typing import Annotated, Final

import typer

from penstock.core.connection import answering, connect
from penstock.core.keys import Keys
from penstock.core.positions import parse_job_id
from penstock.core.sealing import open_seals
from penstock.core.settings import Settings, read_settings
from penstock.core.story import tell
from penstock.projections.replay.telling import Story, story
from penstock.ui.embedded import with_server

app: Final = typer.Typer(no_args_is_help=True, help="Read the log: what happened, when, to which job.")

JsonOutput = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
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


async def _story(settings: Settings, id: str, *, unseal: bool) -> Story:
    queue, number, position = parse_job_id(id)
    keys = Keys(settings.namespace).partition(queue, number)
    seals = open_seals(settings) if unseal else None
    with answering():
        async with connect(settings) as redis:
            return story(keys, position, await tell(redis, keys, position), seals)


def _settings() -> Settings:
    return with_server(read_settings())
