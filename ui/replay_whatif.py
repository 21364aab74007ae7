"""`penstock replay what-if`: how a recorded stretch would have gone with other settings, in virtual time."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from penstock.core.contracts import MAX_ATTEMPTS, Backoff
from penstock.core.errors import Refused
from penstock.core.settings import read_settings

if TYPE_CHECKING:
    from penstock.consumers.whatif import Figures
    from penstock.ui.whatif import Change, WhatIf

app = typer.Typer()


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
        float | None, typer.Option(min=0, help="Jobs per second, 0: no limit; else that of the queue now.")
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
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Play a recorded stretch of a queue again, with other retries, another rate or concurrency, and compare
    waits, attempts, dead letters and the time to drain with what really was."""
    from penstock.consumers.whatif import Plan
    from penstock.ui.output import print_json
    from penstock.ui.whatif import Change

    if burst is not None and not rate:
        raise Refused("--burst needs a --rate")
    plan = Plan(
        concurrency=1, attempts=attempts, backoff=_backoff(backoff), types=tuple(type or ()), seed=seed
    )
    change = Change(concurrency=concurrency, rate=rate, burst=burst, plan=plan)
    found = asyncio.run(_look(queue, change, since, until))
    if as_json:
        print_json(found)
    else:
        _print(found)


async def _look(queue: str, change: "Change", since: str, until: str) -> "WhatIf":
    from penstock.core.connection import answering
    from penstock.projections.replay.asking import moment_of
    from penstock.ui.embedded import with_server
    from penstock.ui.whatif import look

    begin, end = moment_of("--from", since), moment_of("--to", until)
    if end is not None and end <= (begin or 0):
        raise Refused("--to is not after --from")
    with answering():
        settings = with_server(read_settings())
        return await look(settings, queue, change, since=begin or 0, until=end, report=_tell)


def _backoff(text: str) -> Backoff | None:
    try:
        return msgspec.json.decode(text, type=Backoff) if text else None
    except msgspec.DecodeError as error:
        raise Refused(f"--backoff: {error}") from None


def _tell(read: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{read:,} events")


def _print(found: "WhatIf") -> None:
    from penstock.projections.replay.words import duration
    from penstock.ui.output import print_table

    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")

    def row(name: str, field: str, *, ms: float = 0) -> list[Any]:
        sides: tuple[Figures, ...] = (found.was, found.model, found.what_if)
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
            row("at once, on average", "busy"),
        ],
    )
    plan = found.plan
    rate = f"{plan.rate:g} jobs/s" if plan.rate else "none"
    sys.stdout.write(f"\nWhat if: {plan.concurrency} at once, rate limit {rate}")
    sys.stdout.write(f", {plan.attempts} attempts" if plan.attempts is not None else "")
    sys.stdout.write(f", backoff {msgspec.json.encode(plan.backoff).decode()}" if plan.backoff else "")
    sys.stdout.write(f". Left out: {found.left_out} jobs that were cancelled, expired or lost")
    sys.stdout.write(f", {found.unfinished} that have not ended.\nIt assumes:\n")
    for line in found.assumes:
        sys.stdout.write(f"- {line}\n")
