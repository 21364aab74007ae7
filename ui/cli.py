"""The command `penstock`: it reads options and prints; the work is done elsewhere.

An error is one line on standard error that says what to do. Exit codes: 0 done; 2 the input or a
setting is wrong; 1 anything else.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from penstock.core.errors import PenstockError, Refused
from penstock.core.settings import Settings, read_settings
from penstock.ui import (
    bulk_commands,
    control_commands,
    failure_commands,
    flow_commands,
    processes,
    replay_at,
    replay_commands,
    replay_rebuild,
    replay_redrive,
    replay_rehearse,
    replay_whatif,
    schedule_commands,
    webhook_commands,
)
from penstock.ui.asking import ApiUrl, JsonOutput, payload_of
from penstock.ui.ports import check_port

app: Final = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(control_commands.app)
app.add_typer(bulk_commands.app)
app.add_typer(flow_commands.app, name="flow")
app.add_typer(replay_commands.app, name="replay")
replay_commands.app.add_typer(replay_at.app)
replay_commands.app.add_typer(replay_rebuild.app)
replay_commands.app.add_typer(replay_redrive.app)
replay_commands.app.add_typer(replay_rehearse.app)
replay_commands.app.add_typer(replay_whatif.app)
app.add_typer(schedule_commands.app, name="schedules")
app.add_typer(webhook_commands.app, name="webhook")

Jobs = Annotated[str, typer.Option(help="Modules with your own jobs, like myapp.jobs,other.jobs.")]
JobId = Annotated[str, typer.Argument(help="Like email.0.1795477369681-0.")]


def main() -> None:
    """The console script: `app`, with our errors as one line.

    Modules with the user's own jobs are found in the current folder too, after all installed ones.
    """
    sys.path.append(str(Path.cwd()))
    try:
        app(prog_name="penstock")
    except PenstockError as error:
        from penstock.ui.output import exit_code

        sys.stderr.write(f"penstock: {error}\n")
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penstock {version('penstock')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """An event-sourced job queue on Redis Streams. Settings come from PENSTOCK_... variables."""


@app.command()
def up(
    demo: Annotated[bool, typer.Option(help="Show the guided demo once all is ready.")] = True,
    jobs: Jobs = "",
) -> None:
    """Start everything: server, API, workers and the rest. That is the dashboard, the projector, flows,
    schedules, webhooks and the mail catcher."""
    processes.run_up(_settings(jobs=jobs), demo=demo)


@app.command()
def api(jobs: Jobs = "") -> None:
    """Run the HTTP API."""
    settings = _settings(jobs=jobs)
    check_port(settings.host, settings.api_port, "the API", "PENSTOCK_API_PORT")
    processes.run_api(settings)


@app.command()
def dashboard(url: ApiUrl = "") -> None:
    """Run the dashboard. It is for the API of this machine, or another one."""
    settings = read_settings()
    check_port(settings.host, settings.dashboard_port, "the dashboard", "PENSTOCK_DASHBOARD_PORT")
    processes.run_dashboard(settings, api=url)


@app.command()
def worker(
    queues: Annotated[str, typer.Option(help="Queues to serve, like email,image; all if empty.")] = "",
    jobs: Jobs = "",
    concurrency: Annotated[int, typer.Option(min=0, help="Jobs at a time; 0: chosen for you.")] = 0,
) -> None:
    """Run a worker."""
    processes.run_worker(_settings(queues=queues, jobs=jobs, concurrency=concurrency))


@app.command()
def projector() -> None:
    """Run a projector, which folds the log into the views."""
    processes.run_projector(read_settings())


@app.command()
def flows() -> None:
    """Run a coordinator, which carries out flows. Any number may run."""
    processes.run_flows(read_settings())


@app.command()
def scheduler(jobs: Jobs = "") -> None:
    """Run a scheduler, which submits what is due. Any number may run."""
    processes.run_scheduler(_settings(jobs=jobs))


@app.command()
def webhooks() -> None:
    """Run what sends events to webhook endpoints. Any number may run."""
    processes.run_webhooks(read_settings())


@app.command()
def archiver(
    to: Annotated[
        str, typer.Option("--to", help="Where to: s3://bucket/folder, a folder; else PENSTOCK_ARCHIVE_URL.")
    ] = "",
    every: Annotated[float, typer.Option(min=0.1, help="Seconds until an event is there, at most.")] = 60.0,
    leave: Annotated[
        bool, typer.Option("--leave", help="Instead, once none runs: let retention go on without it.")
    ] = False,
) -> None:
    """Run an archiver, which keeps all logs outside of Redis. It does so for ever; any number may run."""
    settings = read_settings()
    url = to or settings.archive_url
    if not url:
        raise Refused("say where the archive is: --to s3://bucket/folder, or PENSTOCK_ARCHIVE_URL")
    if leave:
        typer.echo(processes.leave_archive(settings, url))
    else:
        processes.run_archiver(settings, url, every)


@app.command()
def mailcatcher() -> None:
    """Run the mail catcher."""
    from penstock.ui.mailcatcher import LOOPBACK

    settings = read_settings()
    check_port(LOOPBACK, settings.mail_port, "the mail catcher's SMTP", "PENSTOCK_MAIL_PORT")
    check_port(LOOPBACK, settings.mail_web_port, "the mail catcher's page", "PENSTOCK_MAIL_WEB_PORT")
    processes.run_mailcatcher(settings)


@app.command()
def server() -> None:
    """Run the embedded server alone."""
    processes.run_server(read_settings())


@app.command()
def demo() -> None:
    """Show the guided demo against a running API."""
    from penstock.ui.demo import show

    show(read_settings())


@app.command()
def submit(
    type: Annotated[str, typer.Argument(help="A job type, like ai.language.")],
    payload: Annotated[str, typer.Argument(help="Its payload as JSON; - reads standard input.")],
    queue: Annotated[str, typer.Option(help="The type's own queue if empty.")] = "",
    priority: Annotated[str | None, typer.Option(help="high, normal or low.")] = None,
    delay: Annotated[float | None, typer.Option(help="Seconds to wait before it may start.")] = None,
    attempts: Annotated[int | None, typer.Option(help="How often it is tried.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds an attempt may take.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given again.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key.")] = None,
    wait: Annotated[float, typer.Option(min=0, max=60, help="Seconds to wait for its end.")] = 0,
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Submit a job."""
    from penstock.ui.jobs import load_jobs
    from penstock.ui.remote import Api

    settings = read_settings()
    load_jobs(settings)
    options = {"priority": priority, "delay": delay, "attempts": attempts, "timeout": timeout}
    remote = Api(settings, url)
    found = remote.submit(type, payload_of(payload), queue, tags=tag or None, key=key, **options)
    if wait:
        found = remote.job(found["id"], wait)
    _show_job(found, as_json=as_json)


@app.command()
def job(
    id: JobId,
    wait: Annotated[float, typer.Option(min=0, max=60, help="Seconds to wait for its end.")] = 0,
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Show a job."""
    from penstock.ui.remote import Api

    _show_job(Api(read_settings(), url).job(id, wait), as_json=as_json)


@app.command()
def events(id: JobId, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Show all events of a job. `penstock replay show ID` tells them as a story."""
    from penstock.ui.output import print_json, print_table
    from penstock.ui.remote import Api

    found = Api(read_settings(), url).events(id)
    if as_json:
        print_json(found)
        return
    columns = ("position", "at", "event", "data")
    print_table(columns, [[event.get(name) for name in columns] for event in found])


@app.command()
def queues(url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Show the queues and their figures."""
    from penstock.ui.output import print_json, print_table
    from penstock.ui.remote import Api

    found = Api(read_settings(), url).queues()
    if as_json:
        print_json(found)
        return
    states = tuple(found[0]["counts"]) if found else ()
    rows = [[queue["queue"], *queue["counts"].values()] for queue in found]
    if any(queue["paused"] for queue in found):
        states = (*states, "")
        rows = [[*row, "paused" if queue["paused"] else ""] for row, queue in zip(rows, found, strict=True)]
    print_table(("queue", *states), rows)


app.command()(failure_commands.failures)


@app.command()
def types(jobs: Jobs = "", as_json: JsonOutput = False) -> None:
    """List the job types known here."""
    from penstock.core.contracts import contracts
    from penstock.ui.jobs import load_jobs
    from penstock.ui.output import print_json, print_table

    load_jobs(_settings(jobs=jobs))
    rows = [
        {
            "type": found.type,
            "queue": found.queue,
            "attempts": found.options.attempts,
            "timeout": found.options.timeout,
            "summary": found.summary,
        }
        for found in contracts()
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(("type", "queue", "attempts", "timeout", "summary"), [[*row.values()] for row in rows])


def _settings(*, queues: str = "", jobs: str = "", concurrency: int = 0) -> Settings:
    """Settings from the environment, overruled by what was given as options."""
    given: dict[str, Any] = {"queues": _words(queues), "jobs": _words(jobs), "concurrency": concurrency}
    return msgspec.structs.replace(read_settings(), **{name: value for name, value in given.items() if value})


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _show_job(found: dict[str, Any], *, as_json: bool) -> None:
    from penstock.ui.output import print_job, print_json

    if as_json:
        print_json(found)
    else:
        print_job(found)
