"""Reading the log: pages, single events, one job's events in a stretch, and as it grows."""

import asyncio

from penstock.core.dispatch import Finished
from penstock.core.log import Log, follow
from penstock.core.positions import order
from processes import JOB, Site


async def run(site: Site, *, worker: str = "w") -> None:
    """Complete everything that waits."""
    await site.dispatch.beat(worker, 60_000, enter=True)
    finished: list[Finished] = []
    while True:
        cycle = await site.dispatch.cycle(worker, 500, finished=finished)
        finished = [Finished("completed", it.lane, it.entry, 1, it.job, b"{}") for it in cycle.deliveries]
        if not finished:
            return


async def test_an_empty_log(site: Site) -> None:
    assert await site.log.page("0-0") == []
    assert await site.log.tip() == "0-0"
    assert await site.log.read(["1-0"]) == []
    assert await site.log.history("1-0", "1-0") == []


async def test_pages_follow_each_other_with_no_gap_and_no_overlap(site: Site) -> None:
    positions = await site.put(*[JOB] * 25)
    seen: list[str] = []
    after = "0-0"
    while page := await site.log.page(after, 10):
        seen += [event.position for event in page]
        after = page[-1].position
    assert seen == positions
    assert await site.log.tip() == positions[-1]


async def test_a_page_begins_after_a_position_that_was_trimmed(site: Site) -> None:
    positions = await site.put(*[JOB] * 5)
    await site.redis.xdel(site.keys.log, positions[1])
    assert [event.position for event in await site.log.page(positions[1])] == positions[2:]


async def test_single_events_are_read_in_the_order_asked_for(site: Site) -> None:
    a, b, c = await site.put(*(f'{{"n":{n}}}' for n in range(3)))
    await site.redis.xdel(site.keys.log, b)
    found = await site.log.read([c, b, a])
    assert [(event.position, event.job, event.body) for event in found] == [
        (c, c, b'{"n":2}'),
        (a, a, b'{"n":0}'),
    ]


async def test_the_history_of_a_job_is_found_among_thousands(site: Site) -> None:
    """Over several steps of 2,000 entries on the server."""
    jobs = await site.put(*[JOB] * 1_000)
    await run(site)
    assert await site.redis.xlen(site.keys.log) == 3_000
    for job in (jobs[0], jobs[500], jobs[-1]):
        events = await site.log.history(job, job)
        assert [event.tag for event in events] == ["started", "completed"]
        assert {event.job for event in events} == {job}
        assert order(job) < order(events[0].position) < order(events[1].position)


async def test_a_history_can_begin_before_its_job_and_in_its_middle(site: Site) -> None:
    before, job = await site.put(JOB, JOB)
    await run(site)
    whole = await site.log.history(job, before)
    assert [event.tag for event in whole] == ["submitted", "started", "completed"]
    assert await site.log.history(job, whole[1].position) == whole[2:]
    assert await site.log.history(job, whole[2].position) == []


async def test_a_history_is_that_of_this_very_job(site: Site) -> None:
    """1-1 is no beginning of 1-10."""
    jobs = await site.put(*[JOB] * 12)
    await run(site)
    for job in jobs:
        assert {event.job for event in await site.log.history(job, "0-0")} == {job}


async def test_following_answers_what_is_there_and_waits_for_what_comes(site: Site) -> None:
    (first,) = await site.put(JOB)
    entries = await follow(site.redis, site.keys, "0-0")
    assert [entry[0].decode() for entry in entries] == [first]
    waiting = asyncio.create_task(follow(site.redis, site.keys, first))
    (second,) = await site.put(JOB)
    assert [entry[0].decode() for entry in await waiting] == [second]


async def test_following_a_silent_log_answers_empty_in_time(site: Site) -> None:
    async with asyncio.timeout(5):
        assert await follow(site.redis, site.keys, "0-0") == []


async def test_partitions_have_logs_of_their_own(site: Site) -> None:
    await site.put(JOB)
    from penstock.core.keys import Keys

    other = Log(site.redis, Keys(site.settings.namespace).partition("test", 1))
    assert await other.tip() == "0-0"
