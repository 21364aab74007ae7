"""Webhook endpoints on the command line: `penstock webhook set NAME URL` and its like."""

from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from penstock.core.settings import read_settings

app: Final = typer.Typer(no_args_is_help=True, help="Webhook endpoints.")

JsonOutput = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
ApiUrl = Annotated[str, typer.Option("--api", envvar="PENSTOCK_API_URL", help="Where the API is.")]
Name = Annotated[str, typer.Argument(help="The endpoint's name.")]

COLUMNS: Final = ("name", "url", "events", "types", "queues", "paused", "reason")


@app.command("list")
def list_endpoints(url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Show all endpoints."""
    from penstock.ui.output import print_json, print_table

    found = _ask(url, "GET", "/webhooks")["webhooks"]
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
    _show(_ask(url, "PUT", _path(name), body), as_json=as_json)


@app.command()
def show(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Show an endpoint, and how far the logs were read for it."""
    _show(_ask(url, "GET", _path(name)), as_json=as_json)


@app.command()
def remove(name: Name, url: ApiUrl = "") -> None:
    """Remove an endpoint."""
    _ask(url, "DELETE", _path(name))


@app.command()
def pause(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Send nothing to an endpoint; what happens meanwhile is passed over."""
    _show(_ask(url, "POST", f"{_path(name)}/pause"), as_json=as_json)


@app.command()
def resume(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Send again."""
    _show(_ask(url, "POST", f"{_path(name)}/resume"), as_json=as_json)


@app.command()
def rotate(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Give an endpoint another secret, which is shown once."""
    _show(_ask(url, "POST", f"{_path(name)}/rotate"), as_json=as_json)


@app.command()
def replay(
    name: Name,
    since: Annotated[str, typer.Option(help="A moment, like 2030-01-31T09:00:00+01:00.")],
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Send again what happened since a moment."""
    _show(_ask(url, "POST", f"{_path(name)}/replay", {"since": since}), as_json=as_json)


@app.command("test")
def send_test(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Send a test now; shows the job that does."""
    _show(_ask(url, "POST", f"{_path(name)}/test"), as_json=as_json)


def _ask(url: str, method: str, path: str, body: Any = None) -> Any:
    from penstock.ui.remote import Api

    return Api(read_settings(), url).ask(method, path, body)


def _path(name: str) -> str:
    return f"/webhooks/{quote(name, safe='')}"


def _list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _words(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) else value


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    from penstock.ui.output import print_facts, print_json

    if as_json:
        print_json(found)
    else:
        print_facts([(name, _words(value)) for name, value in found.items()])
