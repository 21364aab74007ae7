"""`penstock bulk`: one command for many jobs."""

import sys
from typing import Annotated, Any, Final

import typer

from penstock.core.settings import read_settings
from penstock.ui.asking import PAST, ApiUrl, JsonOutput, check_queue, moment_asked

app: Final = typer.Typer()


@app.command()
def bulk(
    act: Annotated[str, typer.Argument(help="retry, cancel, discard, promote or reprioritize.")],
    queue: Annotated[str, typer.Option(help="Only jobs of this queue.")] = "",
    type: Annotated[str, typer.Option(help="Only jobs of this type.")] = "",
    state: Annotated[str, typer.Option(help="Only jobs in this state.")] = "",
    error: Annotated[str, typer.Option(help="Only where the last error, `Class: message`, has this.")] = "",
    tag: Annotated[str, typer.Option(help="Only jobs with this tag.")] = "",
    since: Annotated[
        str, typer.Option("--since", "--from", help=f"Only jobs submitted then or later: {PAST}.")
    ] = "",
    until: Annotated[
        str, typer.Option("--until", "--to", help="Only jobs submitted before; as for --since.")
    ] = "",
    priority: Annotated[str, typer.Option(help="high, normal or low: for reprioritize.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing: count, and show some.")] = False,
    wait: Annotated[float, typer.Option(min=0, max=60, help="Seconds to wait for its end.")] = 0,
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Retry, cancel, discard … all jobs that fit. The operation is a job of queue
    `penstock`: `penstock job ID` shows how far it is, `penstock cancel ID` stops it."""
    from penstock.ui.output import print_facts, print_json, print_outcome, print_table
    from penstock.ui.remote import Api

    wanted = {"queue": queue, "type": type, "state": state, "error": error, "tag": tag}
    wanted |= {"since": moment_asked("--since", since), "until": moment_asked("--until", until)}
    order: dict[str, Any] = {"act": act, "filter": {name: text for name, text in wanted.items() if text}}
    if priority:
        order["priority"] = priority
    api = Api(read_settings(), url)
    check_queue(api, queue)
    found = api.bulk(order, dry_run=dry_run)
    if wait and not dry_run:
        found = api.job(found["id"], wait)
    if as_json:
        print_json(found)
    elif dry_run:
        print_facts([("count", found["count"]), ("complete", found["complete"])])
        rows = [[job["id"], job["type"], job["state"], job["submitted_at"]] for job in found["samples"]]
        if rows:
            sys.stdout.write("\n")
            print_table(("job", "type", "state", "submitted"), rows)
    elif wait:
        print_outcome(found, ("matched", "done"))
    else:
        print_facts(list(found.items()))
    if found.get("state") == "failed":
        raise typer.Exit(1)
