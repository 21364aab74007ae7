"""`penstock replay rebuild` and `penstock replay verify`: the views against the log. Both ask the server that
holds the log, so they work whatever else is down."""

import sys
from typing import Annotated, Final

import typer

from penstock.core.logs import configure_logging
from penstock.ui.output import print_json
from penstock.ui.replay_options import asked_settings

app: Final = typer.Typer()

JsonOutput = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Queues = Annotated[list[str] | None, typer.Option("--queue", help="Only this queue; may be given again.")]


@app.command()
def rebuild(queue: Queues = None, as_json: JsonOutput = False) -> None:
    """Make the views anew from the log, beside those in use, which serve until all is there.

    Stopped at any moment it changes nothing; run it again, and it goes on where it was.
    """
    from penstock.ui.replay_checks import print_findings, rebuild_all, say_rebuilt

    try:
        done = rebuild_all(asked_settings(), queue)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the views are as they were. Run it again within ten minutes to go on.\n")
        raise typer.Exit(130) from None
    if as_json:
        print_json(done)
        return
    for it in done:
        say_rebuilt(it)
    print_findings([(it.queue, finding) for it in done for finding in it.differences])


@app.command()
def verify(
    queue: Queues = None,
    repair: Annotated[bool, typer.Option("--repair", help="Say what is put right, and do it.")] = False,
    imported: Annotated[
        bool,
        typer.Option("--imported", help="Also jobs imported before they had ended: they are to run."),
    ] = False,
    as_json: JsonOutput = False,
) -> None:
    """Compare with the log all that stands beside it: views, lanes, times, counts, keys.

    Exit code 1 if anything is not as the log says.
    """
    from penstock.ui.replay_checks import print_findings, say_verified, verify_all

    settings = asked_settings()
    configure_logging(settings, "verify")
    done = verify_all(settings, queue, repair=repair, imported=imported)
    if as_json:
        print_json(done)
    else:
        for it in done:
            say_verified(it)
        if not repair:
            print_findings([(it.queue, finding) for it in done for finding in it.findings])
    if any(it.findings for it in done):
        raise typer.Exit(1)
