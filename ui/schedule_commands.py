"""Schedules on the command line: `penstock schedules set nightly ai.language '{…}' --cron '0 3 * * *'`
and its like."""

import sys
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
import typer

from penstock.core.errors import Refused
from penstock.core.settings import read_settings

app: Final = typer.Typer(no_args_is_help=True, help="Jobs on a schedule.")

JsonOutput = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
ApiUrl = Annotated[str, typer.Option("--api", envvar="PENSTOCK_API_URL", help="Where the API is.")]
Name = Annotated[str, typer.Argument(help="The schedule's name.")]


@app.command("list")
def list_schedules(url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """List all schedules."""
    from penstock.ui.output import print_json, print_table

    found = _ask(url, "GET", "/schedules")["schedules"]
    if as_json:
        print_json(found)
        return
    columns = ("schedule", "rhythm", "type", "next", "last", "paused")
    print_table(columns, [_row(one) for one in found])


@app.command("set")
def set_schedule(
    name: Name,
    type: Annotated[str, typer.Argument(help="A job type, like ai.language.")],
    payload: Annotated[str, typer.Argument(help="Its payload as JSON; - reads standard input.")],
    cron: Annotated[str, typer.Option(help="Five fields, or @daily and the like.")] = "",
    every: Annotated[float, typer.Option(min=0, help="Seconds from tick to tick.")] = 0,
    tz: Annotated[str, typer.Option(help="The time zone of --cron, like Europe/Berlin.")] = "UTC",
    start: Annotated[str, typer.Option(help="No tick before: ISO 8601 with a time zone.")] = "",
    end: Annotated[str, typer.Option(help="No tick after.")] = "",
    jitter: Annotated[float, typer.Option(min=0, help="Seconds that jobs are spread over.")] = 0,
    overlap: Annotated[str, typer.Option(help="skip, queue, cancel or allow.")] = "skip",
    catch_up: Annotated[str, typer.Option(help="none, last or all.")] = "last",
    priority: Annotated[str, typer.Option(help="high, normal or low.")] = "",
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Set a schedule, in place of what had its name."""
    job: dict[str, Any] = {"type": type, "payload": _json(payload)}
    if priority:
        job["priority"] = priority
    told = {"cron": cron, "every": every, "start": start, "end": end, "jitter": jitter}
    asked = {name: value for name, value in told.items() if value}
    asked |= {"job": job, "tz": tz, "overlap": overlap, "catch_up": catch_up}
    _show(_ask(url, "PUT", _path(name), asked), as_json=as_json)


@app.command()
def show(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Show a schedule."""
    _show(_ask(url, "GET", _path(name)), as_json=as_json)


@app.command()
def remove(name: Name, url: ApiUrl = "") -> None:
    """Take a schedule away; its jobs stay."""
    _ask(url, "DELETE", _path(name))
    sys.stdout.write(f"{name} removed\n")


@app.command()
def pause(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Let a schedule pause: ticks passed over are not made up for."""
    _show(_ask(url, "POST", f"{_path(name)}/pause"), as_json=as_json)


@app.command()
def resume(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Let a schedule go on, from now."""
    _show(_ask(url, "POST", f"{_path(name)}/resume"), as_json=as_json)


@app.command()
def trigger(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Run a schedule's job now."""
    _show(_ask(url, "POST", f"{_path(name)}/trigger"), as_json=as_json)


@app.command()
def events(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Show what was decided about a schedule, newest first."""
    from penstock.ui.output import print_json, print_table

    found = _ask(url, "GET", f"{_path(name)}/events?limit={limit}")["events"]
    if as_json:
        print_json(found)
        return
    columns = ("position", "at", "event", "data")
    print_table(columns, [[event[column] for column in columns] for event in found])


def _row(one: dict[str, Any]) -> list[Any]:
    last = one.get("last") or {}
    words = (last.get("event", "").removeprefix("schedule_"), last.get("reason"), last.get("tick"))
    ticks = one["next"]
    return [
        one["name"],
        f"{one['cron']} {one.get('tz', 'UTC')}" if one.get("cron") else f"every {one['every']:g} s",
        one["job"]["type"],
        ticks[0] if ticks else "",
        " ".join(word for word in words if word),
        "paused" if one["paused"] else "",
    ]


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    from penstock.ui.output import print_facts, print_json

    if as_json:
        print_json(found)
    else:
        print_facts([(name, value) for name, value in found.items() if value is not False])


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(sys.stdin.read() if text == "-" else text)
    except msgspec.DecodeError as error:
        raise Refused(f"""the payload is not JSON: {error}; quote it like '{{"text": "Hello"}}'""") from None


def _path(name: str) -> str:
    return f"/schedules/{quote(name, safe='')}"


def _ask(url: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
    from penstock.ui.remote import Api

    return Api(read_settings(), url).ask(method, path, body)
