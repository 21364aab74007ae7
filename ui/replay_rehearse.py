"""`penstock replay rehearse`: would yesterday have worked with this version?"""

import asyncio
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from penstock.core.errors import Refused
from penstock.core.settings import Secret, Settings
from penstock.ui.asking import PAST, JsonOutput
from penstock.ui.lifeline import exit_now
from penstock.ui.replay_options import ArchiveUrl, asked_settings

if TYPE_CHECKING:
    from penstock.core.jobs.bulk import Filter
    from penstock.ui.rehearsing import Rehearsal, Report, Stretch

# On a terminal so many jobs are told, so that the answer is seen.
SHOWN: Final = 10

app: Final = typer.Typer()


@app.command()
def rehearse(
    queue: Annotated[str, typer.Option(help="The queue whose past is run.")],
    since: Annotated[
        str, typer.Option("--from", "--since", help=f"Jobs submitted from then on: {PAST}.")
    ] = "",
    until: Annotated[str, typer.Option("--to", "--until", help="Jobs submitted before; as for --from.")] = "",
    type: Annotated[list[str] | None, typer.Option(help="Only this type; may be given again.")] = None,
    state: Annotated[str, typer.Option(help="Only jobs that ended so: completed or failed.")] = "",
    tag: Annotated[str, typer.Option(help="Only jobs with this tag.")] = "",
    error: Annotated[str, typer.Option(help="Only where the last error, `Class: message`, has this.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="So many jobs, the oldest.")] = 1_000,
    archived: Annotated[
        bool, typer.Option("--archived", help="Also jobs that retention has removed, from the archive.")
    ] = False,
    archive: ArchiveUrl = "",
    concurrency: Annotated[int, typer.Option(min=1, max=1_000, help="Jobs at a time.")] = 16,
    jobs: Annotated[str, typer.Option(help="Modules with your own jobs, like myapp.jobs,other.jobs.")] = "",
    url: Annotated[
        str,
        typer.Option(
            "--stage-url",
            help="A server for the rehearsal's own keys; else PENSTOCK_STAGE_URL; else the same.",
        ),
    ] = "",
    unseal: Annotated[bool, typer.Option("--unseal", help="Tell what PENSTOCK_PAYLOAD_KEYS sealed.")] = False,
    as_json: JsonOutput = False,
) -> None:
    """Run past jobs with the handlers loaded now. In a namespace of its own that is removed afterwards; and
    compare with what really happened. Handlers run only if they are pure or have a dry mode.
    Exit code 1 if jobs fail that had completed."""
    from penstock.ui.processes import load_handlers
    from penstock.ui.rehearsing import Rehearsal, Stretch

    settings = _settings(queue, jobs, archive)
    if archived and not settings.archive_url:
        raise Refused("say where the archive is: --archive s3://bucket/folder, or PENSTOCK_ARCHIVE_URL")
    told = {"queue": queue, "state": state, "tag": tag, "error": error}
    stretch = Stretch(_filter(told, since, until), tuple(type or ()), limit, archived)
    load_handlers(settings)
    try:
        rehearsal = Rehearsal(settings, stage=_stage(settings, url), unseal=unseal)
        report = asyncio.run(_rehearse(rehearsal, stretch, concurrency))
    except asyncio.CancelledError:  # SIGTERM; what was on the stage is removed
        raise typer.Exit(128 + signal.SIGTERM) from None
    print_report(report, as_json=as_json)
    if rehearsal.stuck:
        exit_now(1 if report.worse else 0)
    raise typer.Exit(1 if report.worse else 0)


async def _rehearse(rehearsal: "Rehearsal", stretch: "Stretch", at_once: int) -> "Report":
    from penstock.core.connection import answering

    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with answering():
        report = await rehearsal.run(stretch, at_once=at_once, report=_tell)
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    return report


def _settings(queue: str, jobs: str, archive: str) -> Settings:
    settings = asked_settings(archive)
    modules = tuple(word.strip() for word in jobs.split(",") if word.strip())
    return msgspec.structs.replace(settings, queues=(queue,), jobs=modules or settings.jobs)


def _stage(settings: Settings, url: str) -> Settings:
    stage_url = Secret(url) if url else settings.stage_url
    return msgspec.structs.replace(settings, redis_url=stage_url) if stage_url else settings


def _filter(told: dict[str, Any], since: str, until: str) -> "Filter":
    from penstock.core.jobs.bulk import Filter
    from penstock.projections.replay.asking import moment_of

    if told["state"] not in ("", "completed", "failed"):
        raise Refused(f"--state {told['state']}: a rehearsal compares jobs that completed or failed")
    bounds = {"since": moment_of("--from", since), "until": moment_of("--to", until)}
    told |= {name: datetime.fromtimestamp(ms / 1000, UTC) for name, ms in bounds.items() if ms is not None}
    try:
        return msgspec.convert({name: value for name, value in told.items() if value}, Filter)
    except msgspec.ValidationError as error:
        raise Refused(str(error)) from None


def _tell(done: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{done:,} jobs")


def print_report(report: "Report", *, as_json: bool) -> None:
    """The jobs by type and verdict, those that went otherwise, and the answer."""
    from penstock.consumers.rehearsal import VERDICTS
    from penstock.ui.output import print_json, print_styled, print_table

    if as_json:
        print_json(report)
        return
    columns = ("type", "jobs", *VERDICTS, "p50 then", "p50 now", "p95 then", "p95 now")
    rows = []
    for it in report.types:
        counts = [it.verdicts.get(verdict, 0) for verdict in VERDICTS]
        rows.append([it.type, it.jobs, *counts, *_times(it.then, it.now)])
    print_table(columns, rows)
    _print_told(report)
    answer, style = _answer(report)
    print_styled(f"\n{answer}", style)
    if report.partial:
        sys.stdout.write(f"In part: {report.partial}.\n")


def _print_told(report: "Report") -> None:
    """The jobs that went otherwise, or were not run; of many, the first."""
    from penstock.ui.output import print_table

    told = report.told[:SHOWN] if sys.stdout.isatty() else report.told
    if not told:
        return
    sys.stdout.write("\n")
    rows = [[job.id, job.verdict, "; ".join(filter(None, (job.why, *_changes(job))))] for job in told]
    print_table(("job", "verdict", "what"), rows)
    more = report.jobs - report.verdicts.get("same", 0) - len(told)
    if more:
        rest = f"; --json tells {len(report.told):,}" if len(report.told) > len(told) else ""
        sys.stdout.write(f"and {more:,} more{rest}\n")


def _times(then: Any, now: Any) -> list[str]:
    from penstock.projections.replay.words import duration

    return [
        duration(at) if at is not None else ""
        for at in (then and then.p50, now and now.p50, then and then.p95, now and now.p95)
    ]


def _changes(job: Any) -> list[str]:
    from penstock.ui.replay_redrive import told_change

    return [told_change(msgspec.to_builtins(change)) for change in job.changes[:3]]


def _answer(report: "Report") -> tuple[str, str]:
    """What a rehearsal is asked: would it have worked? And the colour of that."""
    ran = report.jobs - report.verdicts.get("not run", 0)
    if not report.jobs:
        return "There are no such jobs.", ""
    if not ran:
        return f"None of {report.jobs:,} jobs was run.", "yellow"
    words = f"{report.worse:,} of {ran:,} jobs fail now that had completed"
    rest = f"; {report.jobs - ran:,} were not run" if report.jobs > ran else ""
    if report.worse:
        return f"No: {words}{rest}.", "bold red"
    return f"Yes: of {ran:,} jobs none fails that had completed{rest}.", "bold green"
