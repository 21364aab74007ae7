"""What the replay tool does, each in a process of its own: `python -m bench.replay_side VERB …`.

    fill N          write a log of N events (replay_log.py), and into $BENCH_DIR what was so at some moments
    rebuild         all views anew
    verify          all of it; that nothing is found is a part of the measure
    grep KIND       a search: by `events`, by `text` or by `where`
    export FILE     the whole log
    import FILE     into the namespace `copy`
    look HOW        back, at each of the moments: at the `queue` as `penstock replay at` does, at a `job`, at
                    the queue's jobs in a rare `state`, and as the `api` does, with one object for all
    cold            the same look at the queue at every third, by the command `penstock replay at` itself

Each prints one line of JSON, a `Taken`. The event loop and the garbage collector are those of the commands.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import redis
from redis.asyncio import Redis

from bench.rebuild_side import peak_mib
from bench.replay_log import RARE, TYPES, Tally, Written, history
from bench.systems import KEYS
from penstock.core.connection import connect
from penstock.core.dispatch import Dispatch
from penstock.core.lifecycle import State
from penstock.core.log import Log
from penstock.core.settings import Secret, Settings
from penstock.projections.queries import Queries
from penstock.projections.rebuild import rebuild
from penstock.projections.replay.chronicle import open_travel
from penstock.projections.replay.exporting import Asked, export
from penstock.projections.replay.grep import grep
from penstock.projections.replay.importing import bring_in
from penstock.projections.replay.sieve import Sought, expression, pattern
from penstock.projections.replay.span import span, standing
from penstock.projections.replay.verify import verify
from penstock.projections.views import Counts

SETTINGS: Final = Settings(redis_url=Secret(os.environ.get("BENCH_URL", "")))
MOMENTS: Final = Path(os.environ.get("BENCH_DIR", ".")) / "moments.json"
COPY: Final = "copy"
HOUR_MS: Final = 3_600_000
# Where one looks: parts of the log, and events before its end, where the figures are reckoned from now.
PARTS: Final = (0.001, 0.1, 0.25, 0.5, 0.75, 0.9)
BACK: Final = (28_000, 15_000, 1_000)
MANY: Final = 100  # more than run at once: all that may be looked through is looked through
_BATCH: Final = 1_000

SEARCHES: Final = {
    "events": Sought(type=TYPES[0], events=frozenset({"failed"})),
    "text": Sought(text=pattern(f"{RARE[:8]}(mail|post)box")),
    "where": Sought(where=expression("reason == 'permanent'")),
}


class Taken(msgspec.Struct, kw_only=True):
    """What was measured: of how many events, in how many seconds, of which this process worked so many; the
    peak of its resident memory; how many events were found; and single times in s."""

    events: int = 0
    seconds: float = 0
    worked: float = 0
    mib: float = 0
    found: int = 0
    times: list[float] = []


class Moment(msgspec.Struct):
    """When (Unix ms), how many jobs were in which state by the book of who wrote the log, and the job of the
    event before it, by its first position."""

    at: int
    counts: Counts
    job: str


def fill(events: int) -> Taken:
    """Write the log, and note what was so at the moments."""
    places = sorted({max(1, int(events * part)) for part in PARTS} | {max(1, events - back) for back in BACK})
    moments, tally, last, written = list[Moment](), Tally(), None, 0
    asyncio.run(_open())
    with redis.Redis.from_url(os.environ["BENCH_URL"]) as client:
        pipeline = client.pipeline(transaction=False)
        for event in history(events, time.time_ns() // 1_000_000 - HOUR_MS):
            if last is not None and places and written >= places[0] and event.at > last.at:
                moments.append(_moment(last, tally))
                places = [it for it in places if it > written]
            words = (event.position, "event", event.tag, "job", event.job, "body", event.body)
            pipeline.execute_command("XADD", KEYS.log, *words)
            tally.add(event)
            last, written = event, written + 1
            if written % _BATCH == 0:
                pipeline.execute()
        pipeline.execute()
    MOMENTS.write_bytes(msgspec.json.encode(moments))
    return Taken(events=written)


async def _open() -> None:
    async with connect(SETTINGS) as client:
        await Dispatch(client, KEYS).open()


def _moment(event: Written, tally: Tally) -> Moment:
    counts = Counts(**{state: tally.states[state] for state in Counts.__struct_fields__})
    return Moment(event.at, counts, event.job or event.position)


async def renewed() -> Taken:
    async with connect(SETTINGS) as client:
        return Taken(events=(await rebuild(client, KEYS)).events)


async def verified() -> Taken:
    async with connect(SETTINGS) as client:
        told = await verify(client, KEYS)
    if told.findings:
        raise SystemExit(f"verify found what is not: {told.findings[:3]} and {told.more} more")
    return Taken(events=told.events)


async def searched(kind: str) -> Taken:
    async with connect(SETTINGS) as client:
        log, taken = Log(client, KEYS), Taken()
        stretch = span(KEYS, await standing(log), None, None)
        async for part in grep(log, stretch, SEARCHES[kind]):
            taken.events += part.looked
            taken.found += len(part.found)
    return taken


async def exported(name: str) -> Taken:
    done = await export(SETTINGS, Asked(queue=KEYS.queue), name, lambda done, events: None)
    return Taken(events=done.manifest.events)


async def imported(name: str) -> Taken:
    settings = msgspec.structs.replace(SETTINGS, namespace=COPY)
    return Taken(events=(await bring_in(settings, [name], "", lambda done, events: None)).events)


async def looked(how: str) -> Taken:
    """Look back at each moment; that the answer is that of the book is a part of the measure."""
    times = []
    async with looking(how) as look:
        for moment in _moments():
            began = time.perf_counter()
            counts = await look(moment)
            times.append(time.perf_counter() - began)
            _agree(moment, counts)
    return Taken(times=times)


Look = Callable[[Moment], Awaitable[Counts | None]]


@asynccontextmanager
async def looking(how: str) -> AsyncIterator[Look]:
    """How to look back; it answers the counts, where it is told any."""
    async with connect(SETTINGS) as client:
        queries = Queries(client, SETTINGS)

        async def queue(moment: Moment) -> Counts:
            return await _as_command(client, moment)

        async def state(moment: Moment) -> Counts:
            return await _as_command(client, moment, "active", limit=MANY)

        async def job(moment: Moment) -> None:
            await open_travel(client, SETTINGS.archive_url).job(KEYS, moment.job, moment.at)

        async def api(moment: Moment) -> Counts:
            told = await queries.queue_at(KEYS.queue, moment.at)
            await queries.jobs_at(KEYS.queue, moment.at)
            return told.counts

        yield {"queue": queue, "state": state, "job": job, "api": api}[how]
        await queries.close()


async def _as_command(client: Redis, moment: Moment, state: State | None = None, limit: int = 20) -> Counts:
    """Ask what `penstock replay at` asks (ui/replay_at.py)."""
    travel = open_travel(client, SETTINGS.archive_url)
    await travel.span([KEYS])
    told = await travel.queue(KEYS, moment.at)
    await travel.jobs(KEYS, moment.at, state=state, limit=limit)
    return told.counts


def _moments() -> list[Moment]:
    return msgspec.json.decode(MOMENTS.read_bytes(), type=list[Moment])


def cold() -> Taken:
    """By the command, in a new process each time."""
    times = []
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    environ["PENSTOCK_REDIS_URL"] = SETTINGS.redis_url.reveal()
    for moment in _moments()[::3]:
        argv = [sys.executable, "-m", "penstock.ui", "replay", "at", str(moment.at), "--queue", KEYS.queue]
        began = time.perf_counter()
        said = subprocess.run([*argv, "--json"], env=environ, stdout=subprocess.PIPE, check=True).stdout
        times.append(time.perf_counter() - began)
        _agree(moment, msgspec.json.decode(said, type=_Said).queue.counts)
    return Taken(times=times)


class _Figures(msgspec.Struct):
    counts: Counts


class _Said(msgspec.Struct):
    queue: _Figures


def _agree(moment: Moment, counts: Counts | None) -> None:
    if counts is not None and counts != moment.counts:
        raise SystemExit(f"at {moment.at} it is said {counts}, and it was {moment.counts}")


VERBS: Final[dict[str, Callable[..., Coroutine[Any, Any, Taken]]]] = {
    "rebuild": renewed,
    "verify": verified,
    "grep": searched,
    "export": exported,
    "import": imported,
    "look": looked,
}


def main(verb: str, *words: str) -> None:
    """Do what the command line says."""
    began, worked = time.perf_counter(), time.process_time()
    match verb:
        case "fill":
            taken = fill(int(words[0]))
        case "cold":
            taken = cold()
        case _:
            taken = asyncio.run(VERBS[verb](*words))
    taken.seconds, taken.worked = time.perf_counter() - began, time.process_time() - worked
    taken.mib = peak_mib()
    print(msgspec.json.encode(taken).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
