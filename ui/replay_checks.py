"""What `penstock replay rebuild` and `penstock replay verify` do for each queue, and how they tell it."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis

from penstock.core.connection import answering, command, connect
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.settings import Settings
from penstock.projections.rebuild import Tell
from penstock.projections.replay.findings import Finding
from penstock.projections.replay.rebuilding import Renewed, renew
from penstock.projections.replay.span import partitions
from penstock.projections.replay.verify import Verified, verify
from penstock.projections.shadow import Progress
from penstock.ui.output import print_table
from penstock.ui.progress import Meter

Work = Callable[[Redis, PartitionKeys, Tell], Awaitable[Any]]

_COLUMNS: Final = ("queue", "kind", "where", "found", "expected", "cause")


def rebuild_all(settings: Settings, queues: Sequence[str] | None) -> list[Renewed]:
    """Rebuild these queues, or all. Raises KeyboardInterrupt when it is stopped."""
    return asyncio.run(_each_queue(settings, queues, "rebuild", renew))


def verify_all(
    settings: Settings, queues: Sequence[str] | None, *, repair: bool, imported: bool
) -> list[Verified]:
    """Verify these queues, or all; see `verify`."""

    def look(redis: Redis, keys: PartitionKeys, tell: Tell) -> Awaitable[Verified]:
        return verify(redis, keys, tell=tell, mend=_say_plan if repair else None, imported=imported)

    return asyncio.run(_each_queue(settings, queues, "verify", look))


async def _each_queue(settings: Settings, queues: Sequence[str] | None, name: str, work: Work) -> list[Any]:
    """Do it for each queue, one after the other, and show how far it is."""
    keys = Keys(settings.namespace)
    with answering():
        async with connect(settings, max_connections=16) as redis:
            known = await command(redis, "SMEMBERS", keys.queues)
            done = []
            for partition in partitions(keys, known, queues or ()):
                with Meter(f"{name} {partition.queue}", "events") as meter:
                    done.append(await work(redis, partition, _told(meter)))
    return done


def _told(meter: Meter) -> Tell:
    def tell(progress: Progress) -> None:
        meter(progress.done, progress.total)

    return tell


def say_rebuilt(it: Renewed) -> None:
    number = len(it.differences) + it.more
    outcome = (
        "not compared: the views in use were too far behind"
        if not it.compared
        else f"{number:,} differences put right"
        if number
        else "the views in use were the same"
    )
    went = ", went on with what was begun" if it.resumed else ""
    other = "" if it.switched else ", another rebuild switched first"
    sys.stdout.write(f"{it.queue}: {it.events:,} events in {it.seconds:.1f} s{went}{other}; {outcome}\n")


def say_verified(it: Verified) -> None:
    number = len(it.findings) + it.more
    found = f"{number:,} found" if number else "all as the log says"
    mended = f", {it.repaired:,} put right" if it.repaired else ""
    looked = f"{it.events:,} events, {it.rows:,} jobs, {it.entries:,} lane entries in {it.seconds:.1f} s"
    sys.stdout.write(f"{it.queue}: {looked}; {found}{mended}\n")
    if it.history:
        sys.stdout.write(
            f"{it.queue}: {it.history:,} jobs were imported before they had ended, and do not run: "
            "`penstock replay verify --imported --repair` puts them into lanes\n"
        )
    if it.more:
        sys.stdout.write(f"{it.queue}: the first {len(it.findings):,} are listed\n")


def _say_plan(findings: Sequence[Finding]) -> None:
    """Before it is done; on standard error, where the lines that it is done follow."""
    for it in findings:
        sys.stderr.write(f"{it.kind} {it.where}: {it.found}, not {it.expected}; will {it.repair}\n")


def print_findings(found: Sequence[tuple[str, Finding]]) -> None:
    if found:
        sys.stdout.write("\n")
        rows = [[queue, *(getattr(it, name) for name in _COLUMNS[1:])] for queue, it in found]
        print_table(_COLUMNS, rows)
