"""Schedules on the command line: `penstock schedules set nightly ai.language '{…}' --cron '0 3 * * *'`
and its like."""

import sys
from typing import Annotated, Any, Final

import typer

from penstock.ui.asking import COMING, ApiUrl, JsonOutput, Named, moment_asked, payload_of

app: Final = typer.Typer(no_args_is_help=True, help="Jobs on a schedule.")

Name = Annotated[str, typer.Argument(help="The schedule's name.")]


@app.command("list")
def list_schedules(url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """List all schedules."""
    from penstock.ui.output import print_json, print_table

    found = _schedules.ask(url, "GET")["schedules"]
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
    start: Annotated[str, typer.Option(help=f"No tick before: {COMING}.")] = "",
    end: Annotated[str, typer.Option(help="No tick after; as for --start.")] = "",
    jitter: Annotated[float, typer.Option(min=0, help="Seconds that jobs are spread over.")] = 0,
    overlap: Annotated[str, typer.Option(help="skip, queue, cancel or allow.")] = "skip",
    catch_up: Annotated[str, typer.Option(help="none, last or all.")] = "last",
    priority: Annotated[str, typer.Option(help="high, normal or low.")] = "",
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Set a schedule, in place of what had its name."""
    job: dict[str, Any] = {"type": type, "payload": payload_of(payload)}
    if priority:
        job["priority"] = priority
    told: dict[str, Any] = {"cron": cron, "every": every, "jitter": jitter}
    told["start"] = moment_asked("--start", start, ahead=True)
    told["end"] = moment_asked("--end", end, ahead=True)
    asked = {name: value for name, value in told.items() if value}
    asked |= {"job": job, "tz": tz, "overlap": overlap, "catch_up": catch_up}
    _schedules.tell(url, "PUT", name, body=asked, as_json=as_json)


@app.command()
def show(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Show a schedule."""
    _schedules.tell(url, "GET", name, as_json=as_json)


@app.command()
def remove(name: Name, url: ApiUrl = "") -> None:
    """Take a schedule away; its jobs stay."""
    _schedules.ask(url, "DELETE", name)
    sys.stdout.write(f"{name} removed\n")


@app.command()
def pause(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Let a schedule pause: ticks passed over are not made up for."""
    _schedules.tell(url, "POST", name, "pause", as_json=as_json)


@app.command()
def resume(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Let a schedule go on, from now."""
    _schedules.tell(url, "POST", name, "resume", as_json=as_json)


@app.command()
def trigger(name: Name, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Run a schedule's job now."""
    _schedules.tell(url, "POST", name, "trigger", as_json=as_json)


@app.command()
def events(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Show what was decided about a schedule, newest first."""
    from penstock.ui.output import print_json, print_table

    found = _schedules.ask(url, "GET", name, f"events?limit={limit}")["events"]
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


def _facts(found: dict[str, Any]) -> list[tuple[str, Any]]:
    told = found | {"next": ", ".join(found["next"])} if found.get("next") else found
    return [(name, value) for name, value in told.items() if value is not False]


_schedules: Final = Named("/schedules", _facts)
