"""`penstock bulk`: one command for many jobs."""

from typing import Annotated, Any, Final

import typer

from penstock.core.settings import read_settings

app: Final = typer.Typer()

JsonOutput = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
ApiUrl = Annotated[str, typer.Option("--api", envvar="PENSTOCK_API_URL", help="Where the API is.")]


@app.command()
def bulk(
    act: Annotated[str, typer.Argument(help="retry, cancel, discard, promote or reprioritize.")],
    queue: Annotated[str, typer.Option(help="Only jobs of this queue.")] = "",
    type: Annotated[str, typer.Option(help="Only jobs of this type.")] = "",
    state: Annotated[str, typer.Option(help="Only jobs in this state.")] = "",
    error: Annotated[str, typer.Option(help="Only where the last error, `Class: message`, has this.")] = "",
    tag: Annotated[str, typer.Option(help="Only jobs with this tag.")] = "",
    since: Annotated[str, typer.Option(help="Only jobs submitted then or later, ISO 8601.")] = "",
    until: Annotated[str, typer.Option(help="Only jobs submitted before, ISO 8601.")] = "",
    priority: Annotated[str, typer.Option(help="high, normal or low: for reprioritize.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing: count, and show some.")] = False,
    wait: Annotated[float, typer.Option(min=0, max=60, help="Seconds to wait for its end.")] = 0,
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Retry, cancel, discard, promote or reprioritize all jobs that fit. The operation is a job of queue
    `penstock`: `penstock job ID` shows how far it is, `penstock cancel ID` stops it."""
    from penstock.ui.output import print_facts, print_json, print_table
    from penstock.ui.remote import Api

    wanted = {"queue": queue, "type": type, "state": state, "error": error, "tag": tag}
    wanted |= {"since": since, "until": until}
    order: dict[str, Any] = {"act": act, "filter": {name: text for name, text in wanted.items() if text}}
    if priority:
        order["priority"] = priority
    api = Api(read_settings(), url)
    found = api.bulk(order, dry_run=dry_run)
    if wait and not dry_run:
        found = api.job(found["id"], wait)
    if as_json:
        print_json(found)
    elif dry_run:
        print_facts([("count", found["count"]), ("complete", found["complete"])])
        columns = ("id", "type", "state", "submitted_at")
        print_table(columns, [[job[name] for name in columns] for job in found["samples"]])
    else:
        print_facts(list(found.items()))
