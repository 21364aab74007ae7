"""`penstock replay redrive`: submit again what a filter selects. It asks the API, which checks it and runs it
as a job."""

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from penstock.core.errors import Refused
from penstock.core.settings import read_settings
from penstock.ui.asking import PAST, ApiUrl, JsonOutput, check_queue, moment_asked

if TYPE_CHECKING:
    from penstock.ui.remote import Api

FOLLOW_S: Final = 2.0

app: Final = typer.Typer()


@app.command()
def redrive(
    queue: Annotated[str, typer.Option(help="Only jobs of this queue.")] = "",
    type: Annotated[str, typer.Option(help="Only jobs of this type.")] = "",
    state: Annotated[str, typer.Option(help="completed, failed or cancelled; failed if left out.")] = "",
    error: Annotated[str, typer.Option(help="Only where the last error, `Class: message`, has this.")] = "",
    tag: Annotated[str, typer.Option(help="Only jobs with this tag.")] = "",
    since: Annotated[
        str, typer.Option("--since", "--from", help=f"Only jobs submitted then or later: {PAST}.")
    ] = "",
    until: Annotated[str, typer.Option("--until", "--to", help="Only jobs from before; as --since.")] = "",
    patch: Annotated[str, typer.Option(help="A JSON merge patch (RFC 7396) to each payload.")] = "",
    rate: Annotated[float, typer.Option(min=0, help="At most so many jobs per second; 0: no bound.")] = 0,
    id: Annotated[
        str, typer.Option(help="A name of your own: started again under it, it goes on and doubles nothing.")
    ] = "",
    archived: Annotated[
        bool, typer.Option("--archived", help="Also jobs that retention has removed, from the archive.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing: count, and show some.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show how far it is; Ctrl-C cancels it.")] = False,
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Submit ended jobs again. All that fit, as new jobs whose `origin` names the first, with another payload
    if a patch is given. It is a job of queue `penstock`: `penstock job ID` shows how far it is, `penstock
    cancel ID` stops it."""
    from penstock.ui.output import print_json
    from penstock.ui.remote import Api

    wanted = {"queue": queue, "type": type, "state": state, "error": error, "tag": tag}
    wanted |= {"since": moment_asked("--since", since), "until": moment_asked("--until", until)}
    order: dict[str, Any] = {"filter": {name: text for name, text in wanted.items() if text}}
    order |= {"rate": rate, "id": id, "patch": _patch(patch), "archived": archived}
    api = Api(read_settings(), url)
    check_queue(api, queue)
    found = api.ask("POST", "/redrive", {**order, "dry_run": dry_run})
    if id and not dry_run:
        _tell_moments(wanted, since, until)
    over = not dry_run and found["state"] == "completed"  # a redrive of this id, asked for before
    if follow and not dry_run:
        found = api.job(found["id"]) if over else _followed(api, found["id"])
    if as_json:
        print_json(found)
    elif dry_run:
        _print_preview(found, rate)
    else:
        _print_redrive(found, id if over else "")
    if found.get("state") in ("failed", "cancelled"):
        raise typer.Exit(1)


def _tell_moments(wanted: dict[str, str], since: str, until: str) -> None:
    """Under one id it must be the same order, and so long ago is another moment each time."""
    ago = [
        f"--{name} {wanted[name]}"
        for name, text in (("since", since), ("until", until))
        if text.endswith(("s", "m", "h", "d"))
    ]
    if ago:
        sys.stderr.write(f"to ask for this redrive again, say {' '.join(ago)}\n")


def _patch(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any]) if text else {}
    except msgspec.DecodeError as error:
        raise Refused(f"""--patch is no JSON object: {error}; quote it like '{{"retries": 3}}'""") from None


def _followed(api: "Api", job_id: str) -> dict[str, Any]:
    """The redrive after its end; on the way, how far it is, on standard error."""
    try:
        while True:
            found = api.job(job_id, FOLLOW_S)
            _tell(found)
            if found["finished_at"]:
                return found
    except KeyboardInterrupt:
        api.tell_job(job_id, "cancel", {"reason": "interrupted"})
        sys.stderr.write("\ncancelled: the same command with the same --id goes on where it was\n")
        raise


def _tell(found: dict[str, Any]) -> None:
    progress = found.get("progress") or {}
    words = f"{progress.get('fraction', 0):4.0%}  {progress.get('message', '')}"
    line = f"{found['state']:<9}  {words}".rstrip()
    sys.stderr.write(f"\r\x1b[K{line}" if sys.stderr.isatty() else f"{line}\n")
    if found["finished_at"] and sys.stderr.isatty():
        sys.stderr.write("\n")


def _print_redrive(found: dict[str, Any], complete: str) -> None:
    """What was answered when it was asked for; or its job, if it was followed: what it has done. `complete`:
    its id, if all that was done before."""
    from penstock.ui.output import print_facts, print_outcome

    if complete:
        sys.stdout.write(f"Redrive {complete!r} was complete already: nothing was sent now.\n")
    if "payload" not in found:
        print_facts(list(found.items()))
        return
    done = print_outcome(found, ("sent", "known", "refused", "gone"))
    _print_refusals(done.get("refusals", []), done.get("refused", 0))


def _print_preview(found: dict[str, Any], rate: float) -> None:
    from penstock.projections.replay.words import duration
    from penstock.ui.output import print_facts, print_table

    takes = f"{duration(found['seconds'] * 1000)} at {rate:g}/s" if found["seconds"] else ""
    removed = (
        f"{found['removed']:,} by retention, whichever they were; --archived looks for them in an archive"
    )
    print_facts(
        [
            *(("count", found["count"]), ("complete", found["complete"]), ("takes", takes)),
            *(("refused", found["refused"] or ""), ("removed", removed if found["removed"] else "")),
        ]
    )
    rows = []
    for sample in found["samples"]:
        job = sample["job"]
        changes = "(sealed)" if sample["sealed"] else "  ".join(map(told_change, sample["changes"]))
        rows.append([job["id"], job["type"], job["state"], job["submitted_at"], changes])
    if rows:
        sys.stdout.write("\n")
        print_table(("job", "type", "state", "submitted", "changes"), rows)
    _print_refusals(found["refusals"], found["refused"])


def _print_refusals(refusals: list[dict[str, Any]], number: int) -> None:
    """The jobs of which no copy can be made; of many, the first."""
    from penstock.ui.output import print_table

    if refusals:
        sys.stdout.write("\n")
        print_table(("refused", "problem"), [[refusal["id"], refusal["problem"]] for refusal in refusals])
        if number > len(refusals):
            sys.stdout.write(f"and {number - len(refusals):,} more\n")


def told_change(change: dict[str, Any]) -> str:
    """A change in one line."""
    if change.keys() == {"path"}:
        return f"{change['path']}: (sealed)"
    before, after = (
        msgspec.json.encode(change[side]).decode() if side in change else "(none)"
        for side in ("before", "after")
    )
    return f"{change['path']}: {before} → {after}"
