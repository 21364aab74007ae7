"""`penstock failures`: what is wrong, as the first look at it."""

import sys
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from penstock.core.settings import read_settings
from penstock.ui.asking import ApiUrl, JsonOutput, check_queue


def failures(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="Only this queue; all if empty.")] = "",
    type: Annotated[str, typer.Option(help="Only jobs of this type, like email.send.")] = "",
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Show the failed jobs by error, the most frequent first. Of each error when it was last, and the id of
    such a job: `penstock replay show ID` tells its story. What differs between messages about the same thing
    (numbers, ids, addresses, quoted words) is left out of them."""
    from penstock.ui.output import print_json
    from penstock.ui.remote import Api

    api = Api(read_settings(), url)
    check_queue(api, queue)
    names = [queue] if queue else [it["queue"] for it in api.queues() if it["counts"]["failed"]]
    query = f"?{urlencode({'type': type})}" if type else ""
    found = [api.ask("GET", f"/queues/{quote(name, safe='')}/failures{query}") for name in names]
    if as_json:
        print_json(found)
        return
    groups = [group for it in found for group in it["groups"]]
    if groups:
        _print_groups(sorted(groups, key=lambda it: it["count"], reverse=True))
    else:
        words = [
            "No job",
            *([f"of queue {queue!r}"] if queue else []),
            *([f"of type {type!r}"] if type else []),
        ]
        sys.stdout.write(" ".join([*words, "is failed.\n"]))
    for it in found:
        _say_rest(it)


def _print_groups(groups: list[dict[str, Any]]) -> None:
    from penstock.projections.replay.words import error
    from penstock.ui.output import print_table

    rows = [[it["count"], it["last_at"], it["jobs"][0], error(it)] for it in groups]
    print_table(("failed", "last", "for example", "error"), rows)


def _say_rest(found: dict[str, Any]) -> None:
    """What of a queue is not in the table."""
    queue, failed, looked = repr(found["queue"]), found["failed"], found["looked_at"]
    rarer = looked - sum(it["count"] for it in found["groups"])
    if rarer > 0:
        sys.stdout.write(f"and {rarer:,} jobs of queue {queue} with errors that are rarer\n")
    if failed > looked:
        sys.stdout.write(f"looked at: the newest {looked:,} of {failed:,} failed jobs of queue {queue}\n")
