"""`penstock replay what-if`: how a recorded stretch would have gone with other settings, in virtual time."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from penstock.core.contracts import MAX_ATTEMPTS, Backoff
from penstock.core.errors import Refused
from penstock.ui.replay_options import ArchiveUrl, asked_settings

if TYPE_CHECKING:
    from penstock.consumers.whatif import Figures
    from penstock.core.settings import Settings
    from penstock.ui.whatif import Recording, WhatIf

MAX_RATE: Final = 1_000_000

app: Final = typer.Typer()


@app.command("what-if")
def what_if(
    queue: Annotated[str, typer.Option(help="The queue whose past is played again.")],
    since: Annotated[
        str, typer.Option("--from", "--since", help="Jobs submitted then or later: ISO 8601, or 2h, 3d ago.")
    ] = "",
    until: Annotated[str, typer.Option("--to", "--until", help="Jobs submitted before; as for --from.")] = "",
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Attempts at once over all workers; else as many as were.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0, max=MAX_RATE, help="Jobs per second, 0: no limit; else that of the queue now."),
    ] = None,
    burst: Annotated[int | None, typer.Option(min=1, help="At most so many at once, with a rate.")] = None,
    attempts: Annotated[
        int | None, typer.Option(min=1, max=MAX_ATTEMPTS, help="How often a job is tried.")
    ] = None,
    backoff: Annotated[str, typer.Option(help='Like \'{"kind": "fixed", "base": 5}\'.')] = "",
    type: Annotated[
        list[str] | None, typer.Option(help="--attempts and --backoff are for this type; may be given again.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For what is drawn at random.")] = 1,
    archive: ArchiveUrl = "",
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Play a recorded stretch of a queue again, with other retries, another rate or concurrency, and compare
    waits, attempts, dead letters and the time to drain with what really was."""
    from penstock.consumers.whatif import Plan
    from penstock.ui.output import print_json
    from penstock.ui.whatif import Change, compare

    if burst is not None and not rate:
        raise Refused("--burst needs a --rate")
    if type and attempts is None and not backoff:
        raise Refused("--type says which jobs --attempts and --backoff are for: give one of them")
    plan = Plan(
        concurrency=1, attempts=attempts, backoff=_backoff(backoff), types=tuple(type or ()), seed=seed
    )
    change = Change(concurrency=concurrency, rate=rate, burst=burst, plan=plan)
    found = compare(asyncio.run(_record(asked_settings(archive), queue, since, until)), change)
    if as_json:
        print_json(found)
    else:
        _print(found)


async def _record(settings: "Settings", queue: str, since: str, until: str) -> "Recording":
    from penstock.core.connection import answering
    from penstock.projections.replay.asking import moment_of
    from penstock.ui.replay_search import bar
    from penstock.ui.whatif import record

    begin, end = moment_of("--from", since), moment_of("--to", until)
    with answering(), bar(None) as progress:
        progress.begin(queue)
        return await record(settings, queue, since=begin, until=end, tell=progress.at)


def _backoff(text: str) -> Backoff | None:
    try:
        return msgspec.json.decode(text, type=Backoff) if text else None
    except msgspec.DecodeError as error:
        raise Refused(f"--backoff: {error}") from None


def _print(found: "WhatIf") -> None:
    if found.was.jobs:
        _print_figures(found)
    else:
        sys.stdout.write("No job that came in that time has ended.\n")
    plan = found.plan
    rate = f"{plan.rate:g} jobs/s" if plan.rate else "none"
    sys.stdout.write(f"\nWhat if: {plan.concurrency} at once, rate limit {rate}")
    sys.stdout.write(f", {plan.attempts} attempts" if plan.attempts is not None else "")
    sys.stdout.write(f", backoff {msgspec.json.encode(plan.backoff).decode()}" if plan.backoff else "")
    sys.stdout.write(f" for {', '.join(plan.types)}" if plan.types else "")
    sys.stdout.write(f". Left out: {found.left_out} jobs that were cancelled, expired or lost")
    sys.stdout.write(f", {found.unfinished} that have not ended")
    sys.stdout.write(f", {found.lost} attempts given back or lost with their worker.\n")
    if found.partial:
        sys.stdout.write(f"In part: {found.partial}.\n")
    sys.stdout.write("It assumes:\n")
    for line in found.assumes:
        sys.stdout.write(f"- {line}\n")


def _print_figures(found: "WhatIf") -> None:
    from penstock.projections.replay.words import duration
    from penstock.ui.output import print_table

    sides: tuple[Figures, ...] = (found.was, found.model, found.what_if)

    def row(name: str, field: str, *, ms: float = 0) -> list[Any]:
        values = [getattr(side, field) for side in sides]
        return [name, *(duration(value * ms) if ms else value for value in values)]

    print_table(
        ("", "was", "model", "what if"),
        [
            row("jobs", "jobs"),
            row("waited, p50", "wait_p50", ms=1),
            row("waited, p95", "wait_p95", ms=1),
            row("waited, p99", "wait_p99", ms=1),
            row("attempts", "attempts"),
            row("dead letters", "dead"),
            row("time to drain", "drained", ms=1000),
            ["at once, on average", *(f"{side.busy:.2f}" for side in sides)],
        ],
    )
