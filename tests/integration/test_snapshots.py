"""Looking back far: from snapshots, as a fold of the log that stops at the moment; and what
`penstock replay at` says."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise

import msgspec
import pytest
from redis.asyncio import Redis

from commands import Command
from histories import Author, stats
from penstock.core.connection import command
from penstock.core.control import Control
from penstock.core.events import QueueLimited
from penstock.core.keys import Keys
from penstock.core.lifecycle import Job
from penstock.core.log import Entry, Log
from penstock.core.positions import milliseconds, order, packed
from penstock.core.settings import Secret, Settings
from penstock.projections import past, snapshots, travel
from penstock.projections.details import instant
from penstock.projections.rebuild import rebuild
from penstock.projections.retention import Trimmer
from penstock.projections.snapshots import following, keep
from penstock.projections.travel import Travel
from penstock.projections.views import Rows, Stats, Views, read, write_stats
from processes import exit_code
from projectors import fold
from servers import RealServer


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot every 50 events, and a moment is far back after twice as many."""
    monkeypatch.setattr(snapshots, "EVERY", 50)
    monkeypatch.setattr(travel, "_FAR", 100)


@pytest.fixture
async def author(redis: Redis, namespace: str, often: None) -> Author:
    """A queue with a past, folded as it came."""
    author = Author(redis, Keys(namespace).partition("mail"), seed=21)
    await redis.sadd(author.keys.queues, "mail")
    control = Control(redis, author.keys)
    for number in range(8):
        await author.scene(25)
        await fold(author.redis, author.keys)
        if number == 2:
            await control.pause(by="ada")
        if number == 4:
            await control.resume(by="ada")
            await control.limit(QueueLimited(rate=5, by="ada"))
    await fold(author.redis, author.keys)
    return author


async def kept(author: Author) -> list[Entry]:
    """The snapshots there are."""
    found: list[Entry] = await command(author.redis, "XRANGE", author.keys.snapshots, "-", "+")
    return found


async def then(author: Author, last: str) -> tuple[Stats, dict[str, Job]]:
    """A fold of the log that stops there."""
    entries = await Log(author.redis, author.keys).entries("0-0", 100_000)
    events = [it for it in map(read, entries) if order(it[0].position) <= order(last)]
    views, rows = Views(), Rows(dict.fromkeys(event.job for event, _ in events))
    if events:
        views.fold(events, rows)
    return views.stats, {position: row for position, row in rows.items() if row is not None}


async def all_jobs(author: Author, last: str) -> dict[str, tuple[str, int]]:
    """The list at a position, by pages of 7: state and attempt of each job."""
    found: dict[str, tuple[str, int]] = {}
    after, asked = "", Travel(author.redis)
    while True:
        page = await asked.jobs(author.keys, milliseconds(last), after=after, limit=7, upto=last)
        found |= {it.id.rpartition(".")[2]: (it.state, it.attempt) for it in page.jobs}
        if page.next is None:
            return found
        after = page.next


async def test_any_position_is_told_as_a_fold_that_stops_there(
    author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever would take more than this from now on is told by a snapshot, or not at all.
    monkeypatch.setattr(past, "MAX_BACK", 200)
    entries = await Log(author.redis, author.keys).entries("0-0", 100_000)
    places = [it[0].decode() for it in entries]
    assert len(places) > 400
    assert await author.redis.xlen(author.keys.snapshots) >= 5
    told_from = (await Travel(author.redis).span([author.keys])).queues["mail"]
    assert told_from == instant(milliseconds(places[0])), "what is before the first snapshot is told by it"
    for last in [places[0], *random.Random(4).sample(places, 12), places[-1]]:
        counted, rows = await then(author, last)
        told = await Travel(author.redis).queue(author.keys, milliseconds(last), last)
        assert told.counts == counted.counts()
        assert told.types == counted.types
        assert told.totals == counted.totals
        assert told.failures == counted.reasons
        assert (told.paused, told.limits) == (counted.paused, counted.limits)
        assert await all_jobs(author, last) == {it: (row.state, row.attempt) for it, row in rows.items()}
        newest = max(rows, key=order)
        job = await Travel(author.redis).job(author.keys, newest, milliseconds(last), last)
        assert (job.state, job.attempt) == (rows[newest].state, rows[newest].attempt)


async def test_lists_far_back_are_filtered_and_end_early_where_little_fits(
    author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = (await Log(author.redis, author.keys).page("0-0", 150))[-1].position
    _, rows = await then(author, last)
    wanted = {it for it, row in rows.items() if (row.state, row.type) == ("failed", "mail.send")}
    monkeypatch.setattr(travel, "MAX_LOOKED", 5)
    monkeypatch.setattr(travel, "_PAGE", 5)
    found, after, pages = set[str](), "", 0
    while True:
        page = await Travel(author.redis).jobs(
            *(author.keys, milliseconds(last)),
            state="failed",
            type="mail.send",
            after=after,
            upto=last,
        )
        found |= {it.id.rpartition(".")[2] for it in page.jobs}
        pages += 1
        if page.next is None:
            break
        after = page.next
    assert found == wanted
    assert pages > 1


async def test_pages_of_many_indexes_are_without_a_gap(
    author: Author, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(travel, "_PAGE", 40)
    monkeypatch.setattr(travel, "_FIRST", 3)
    monkeypatch.setattr(travel, "_LEAST", 1)
    chance, types = random.Random(2), [f"t{number}" for number in range(20)]
    places = [packed(f"{number}-0") for number in range(1, 1001)]
    for place in places:
        type = chance.choice(types) if chance.random() < 0.5 else "t7"
        await redis.zadd(author.keys.index(chance.choice(("completed", "failed")), type), {place: 0})
    newest, found, upto = travel.Newest(redis, author.keys, types), list[bytes](), b"+"
    while page := await newest.page(upto):
        found += page
        upto = b"(" + page[-1]
    assert found == places[::-1]


async def test_snapshots_are_no_part_of_the_truth(author: Author) -> None:
    """Without them one looks back less far, and a rebuild makes them again."""
    position = (await kept(author))[0][0].decode()
    told = await following(author.redis, author.keys, position)
    assert told is not None
    assert told.stats.totals == (await then(author, position))[0].totals
    await author.redis.delete(author.keys.snapshots)
    assert await following(author.redis, author.keys, position) is None
    at = milliseconds(position)
    assert (await Travel(author.redis).queue(author.keys, at)).totals == (
        await then(author, f"{at}-9999999999")
    )[0].totals
    await rebuild(author.redis, author.keys)
    for entry, fields in await kept(author):
        counted, _ = await then(author, entry.decode())
        assert fields[1] == write_stats(msgspec.structs.replace(counted, tallies={}))


async def test_they_are_bounded_and_go_with_the_log(
    author: Author, redis: Redis, server: RealServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "MAX_SNAPSHOTS", 10)
    raw = write_stats(await stats(redis, author.keys))
    newest = milliseconds(await Log(redis, author.keys).tip())
    oldest = (await kept(author))[0][0]
    for number in range(30):
        await keep(redis, author.keys, f"{newest + 1 + number}-0", raw)
    thinned = [milliseconds(it.decode()) - newest for it, _ in await kept(author)]
    assert len(thinned) <= 10
    assert (await kept(author))[0][0] == oldest, "one can still look back to the beginning"
    assert thinned[-3:] == [28, 29, 30]
    apart = [b - a for a, b in pairwise(thinned[1:])]
    assert apart == sorted(apart, reverse=True), "the further back, the further apart"
    await keep(redis, author.keys, "1-0", raw)
    assert (await kept(author))[0][0] == oldest, "an older one comes too late"
    first = f"{newest + 29}-0"
    await redis.xtrim(author.keys.log, maxlen=0, approximate=False)
    await redis.xadd(author.keys.log, {"event": "queue_paused", "job": "", "body": "{}"}, id=first)
    settings = Settings(redis_url=Secret(server.url), namespace=namespace)
    await Trimmer(redis, author.keys, settings).sweep(asyncio.Event())
    assert (await kept(author))[0][0].decode() == first


Run = Callable[..., Awaitable[str]]


@pytest.fixture
def run(penstock: Callable[..., Command], server: RealServer, namespace: str) -> Run:
    """`penstock replay at WORDS`: its output, when it has ended with the code."""
    environ = {"PENSTOCK_REDIS_URL": server.url, "PENSTOCK_NAMESPACE": namespace}

    async def ran(*words: str, code: int = 0) -> str:
        command = penstock("replay", "at", *words, **environ)
        assert await exit_code(command, 60) == code, command.output
        return command.output

    return ran


async def test_the_command_tells_queues_a_queue_and_a_job(author: Author, run: Run) -> None:
    begun = [it for it in await Log(author.redis, author.keys).page("0-0", 300) if it.tag == "started"]
    last = begun[-1].position
    counted, rows = await then(author, last)
    told = json.loads(await run(last, "--json"))
    counts = {state: getattr(counted.counts(), state) for state in told["queues"][0]["counts"]}
    assert told["queues"][0]["counts"] == counts
    table = (await run(last)).splitlines()
    assert table[0].split() == ["queue", *counts]
    assert table[1].split() == ["mail", *map(str, counts.values())]
    queue = await run(last, "--queue", "mail", "--state", "active", "--limit", "500")
    active = [it for it, row in rows.items() if row.state == "active"]
    assert sum(f"mail.0.{it}" in queue for it in active) == len(active) > 0
    job = f"mail.0.{active[0]}"
    assert json.loads(await run(last, "--job", job, "--json"))["state"] == "active"
    shown = await run(last, "--job", job)
    assert f"id  {job}" in " ".join(shown.split()).replace("id ", "id  ", 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("1",), "can be told from"),
        (("1-0", "--queue", "mail"), "can be told from"),
        (("yesterday",), "no moment"),
        (("1h", "--queue", "post"), "no queue"),
        (("1h", "--job", "x"), "not a job id"),
    ],
)
async def test_what_cannot_be_told_is_one_line(
    author: Author, run: Run, words: tuple[str, ...], said: str
) -> None:
    code = 1 if said in ("no queue", "not a job id") else 2
    told = await run(*words, code=code)
    assert said in told
    assert told.count("\n") == 1
