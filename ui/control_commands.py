"""Commands on jobs, queues and workers: `penstock cancel ID…`, `penstock pause QUEUE` and their like.

Given several jobs, each is told for itself; what went wrong with one is a line on standard error, and
the exit code is then that of the first of these.
"""

import sys
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from penstock.core.errors import Refused
from penstock.core.settings import read_settings
from penstock.ui.asking import COMING, ApiUrl, JsonOutput, moment_asked, payload_of

app: Final = typer.Typer()

JobIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Like email.0.1795477369681-0.")]
Queue = Annotated[str, typer.Argument(help="The queue's name.")]

# Of a worker with more running jobs, `penstock workers` names so many.
SHOWN: Final = 3


@app.command()
def cancel(
    ids: JobIds,
    reason: Annotated[str, typer.Option(help="Why; kept in the job's history.")] = "",
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Cancel jobs: waiting, delayed or running."""
    api = _api(url)
    _tell(ids, lambda id: api.tell_job(id, "cancel", {"reason": reason}), as_json=as_json)


@app.command()
def retry(
    ids: JobIds,
    payload: Annotated[
        str, typer.Option(help="Another payload, as JSON (- reads standard input): a new job like the first.")
    ] = "",
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Run ended jobs again."""
    api, body = _api(url), {"payload": payload_of(payload)} if payload else None
    _tell(ids, lambda id: api.tell_job(id, "retry", body), as_json=as_json)


@app.command()
def promote(ids: JobIds, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Let delayed jobs run now."""
    api = _api(url)
    _tell(ids, lambda id: api.tell_job(id, "promote"), as_json=as_json)


@app.command()
def reschedule(
    ids: JobIds,
    delay: Annotated[float | None, typer.Option(help="Seconds from now; 0 is at once.")] = None,
    at: Annotated[str, typer.Option(help=f"A moment: {COMING}.")] = "",
    priority: Annotated[str | None, typer.Option(help="high, normal or low.")] = None,
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Give jobs that have not started another time or priority."""
    api = _api(url)
    told = {"delay": delay, "run_at": moment_asked("--at", at, ahead=True) or None, "priority": priority}
    if delay is not None and at:
        raise Refused("give --delay or --at, not both")
    if not any((delay is not None, at, priority)):
        raise Refused("say what shall change: --delay, --at or --priority")
    change = {name: value for name, value in told.items() if value is not None}
    _tell(ids, lambda id: api.change_job(id, change), as_json=as_json)


@app.command()
def pause(queue: Queue, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Pause a queue: its jobs wait, what runs goes on."""
    _show(_api(url).tell_queue(queue, "pause"), as_json=as_json)


@app.command()
def resume(queue: Queue, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Resume a paused queue."""
    _show(_api(url).tell_queue(queue, "resume"), as_json=as_json)


@app.command()
def limit(
    queue: Queue,
    rate: Annotated[float, typer.Option(min=0, help="Jobs started per second.")] = 0,
    burst: Annotated[int, typer.Option(min=0, help="Of these, at most so many at once.")] = 0,
    concurrency: Annotated[int, typer.Option(min=0, help="Jobs that run at once, over all workers.")] = 0,
    per_group: Annotated[int, typer.Option(min=0, help="The same for each concurrency key.")] = 0,
    backlog: Annotated[int, typer.Option(min=0, help="Jobs that may wait; more are refused.")] = 0,
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Set all limits of a queue. What is not given is no limit."""
    limits = {
        "rate": rate,
        "burst": burst,
        "concurrency": concurrency,
        "per_group": per_group,
        "backlog": backlog,
    }
    _show(_api(url).limit_queue(queue, limits), as_json=as_json)


@app.command()
def retain(
    queue: Queue,
    completed: Annotated[float, typer.Option(min=0, help="Seconds to keep completed jobs.")] = 0,
    failed: Annotated[float, typer.Option(min=0, help="Seconds to keep failed jobs.")] = 0,
    cancelled: Annotated[float, typer.Option(min=0, help="Seconds to keep cancelled jobs.")] = 0,
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Set how long a queue keeps ended jobs. What is not given is as the settings say."""
    retention = {"completed": completed, "failed": failed, "cancelled": cancelled}
    _show(_api(url).retain_queue(queue, retention), as_json=as_json)


@app.command()
def drain(queue: Queue, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Cancel all that waits in a queue. Delayed jobs and retries too."""
    _show(_api(url).tell_queue(queue, "drain"), as_json=as_json)


@app.command()
def workers(url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """List the workers and what they run."""
    from penstock.ui.output import print_json, print_table

    found = _api(url).workers()
    if as_json:
        print_json(found)
        return
    columns = ("worker", "queues", "running", "slots", "MiB", "version", "started", "seen", "jobs")
    print_table(columns, [_row(worker) for worker in found])


@app.command()
def worker_stop(
    name: Annotated[str, typer.Argument(help="Its name, as `penstock workers` lists it.")],
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Ask a worker to leave. It finishes what it runs, gives back the rest, and exits; a supervisor like
    `penstock up` then starts a new one."""
    _show(_api(url).drain_worker(name), as_json=as_json)


def _tell(ids: list[str], act: Callable[[str], dict[str, Any]], *, as_json: bool) -> None:
    from penstock.ui.output import exit_code, print_json

    answers: list[dict[str, Any]] = []
    code = 0
    for id in ids:
        try:
            answers.append(act(id))
        except Refused as error:
            sys.stderr.write(f"penstock: {error}\n")
            code = code or exit_code(error)
            continue
        if not as_json:
            sys.stdout.write(f"{answers[-1]['id']}  {answers[-1]['state']}\n")
    if as_json:
        print_json(answers)
    if code:
        sys.exit(code)


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    from penstock.ui.output import print_facts, print_json

    if as_json:
        print_json(found)
        return
    kept = _words(found.get("retention"), unit=" s", none="as the settings say")
    words = {"limits": _words(found.get("limits"), unit="", none="none"), "retention": kept}
    print_facts([(name, words.get(name, value)) for name, value in found.items()])


def _words(numbers: dict[str, float] | None, *, unit: str, none: str) -> str:
    """Limits, or times to keep, those that are set."""
    return ", ".join(f"{name} {it:g}{unit}" for name, it in (numbers or {}).items() if it) or none


def _row(worker: dict[str, Any]) -> list[Any]:
    jobs = [f"{job['type']} {job['id']}" for job in worker["jobs"][:SHOWN]]
    if worker["running"] > SHOWN:
        jobs.append(f"and {worker['running'] - SHOWN} more")
    return [
        worker["name"] + (" (leaving)" if worker["leaving"] else ""),
        ", ".join(worker["queues"]),
        worker["running"],
        worker["slots"],
        round(worker["memory"] / 2**20),
        worker["version"],
        worker["started_at"],
        worker["seen_at"],
        "; ".join(jobs),
    ]


def _api(url: str) -> Any:
    from penstock.ui.remote import Api

    return Api(read_settings(), url)
