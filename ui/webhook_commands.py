"""Webhook endpoints on the command line: `penstock webhook set NAME URL` and its like."""

import sys
from typing import Annotated, Any, Final

import typer

from penstock.ui.asking import PAST, ApiUrl, JsonOutput, Named, moment_asked

app: Final = typer.Typer(no_args_is_help=True, help="Webhook endpoints.")

Name = Annotated[str, typer.Argument(help="The endpoint's name.")]

COLUMNS: Final = ("name", "url", "events", "types", "queues", "paused", "reason")


@app.command("list")
def list_endpoints(url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Show all endpoints."""
    from penstock.ui.output import print_json, print_table

    found = _endpoints.ask(url, "GET")["webhooks"]
    if as_json:
        print_json(found)
    else:
        print_table(COLUMNS, [[_words(one.get(name)) for name in COLUMNS] for one in found])


@app.command("set")
def set_endpoint(
    name: Name,
    target: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent.")],
    events: Annotated[str, typer.Option(help="Like job.failed,queue.paused; * for all.")] = "",
    types: Annotated[str, typer.Option(help="Only of these job types.")] = "",
    queues: Annotated[str, typer.Option(help="Only of these queues.")] = "",
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Make or change an endpoint. A new secret is shown once."""
    given = {"events": _list(events), "types": _list(types), "queues": _list(queues)}
    body = {"url": target, **{field: values for field, values in given.items() if values}}
    _endpoints.tell(url, "PUT", name, body=body, as_json=as_json)


@app.command()
def show(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Show an endpoint, and how far the logs were read for it."""
    _endpoints.tell(url, "GET", name, as_json=as_json)


@app.command()
def remove(name: Name, url: ApiUrl = "") -> None:
    """Remove an endpoint."""
    _endpoints.ask(url, "DELETE", name)
    sys.stdout.write(f"{name} removed\n")


@app.command()
def pause(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Send nothing to an endpoint. What happens meanwhile is passed over."""
    _endpoints.tell(url, "POST", name, "pause", as_json=as_json)


@app.command()
def resume(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Send again."""
    _endpoints.tell(url, "POST", name, "resume", as_json=as_json)


@app.command()
def rotate(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Give an endpoint another secret, which is shown once."""
    _endpoints.tell(url, "POST", name, "rotate", as_json=as_json)


@app.command()
def replay(
    name: Name,
    since: Annotated[str, typer.Option(help=f"A moment: {PAST}.")],
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Send again what happened since a moment."""
    _endpoints.tell(url, "POST", name, "replay", {"since": moment_asked("--since", since)}, as_json=as_json)


@app.command("test")
def send_test(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Send a test now; shows the job that does."""
    _endpoints.tell(url, "POST", name, "test", as_json=as_json)


def _list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _words(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) else value


def _facts(found: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, _words(value)) for name, value in found.items()]


_endpoints: Final = Named("/webhooks", _facts)
