"""open and submit: a partition is made once, a batch is accepted once, all of it or nothing."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ResponseError

from penstock.core.dispatch import Dispatch, Script, Submission
from penstock.core.keys import GROUP, PARKED
from processes import Site

BODY = b'{"type":"test.echo","payload":{}}'


def jobs(count: int, **more: Any) -> list[Submission]:
    return [Submission("normal", BODY, **more) for _ in range(count)]


async def submit(site: Site, what: list[Submission], batch: int, producer: str = "p") -> list[str]:
    accepted = await site.dispatch.submit(what, producer=producer, batch=batch, once_ms=60_000)
    return [("=" if it.known else "") + it.position for it in accepted]


async def test_opening_again_finds_the_same_partition(site: Site) -> None:
    epoch = await site.dispatch.open()
    assert await site.dispatch.open() == epoch
    others = await asyncio.gather(*(Dispatch(site.redis, site.keys).open() for _ in range(5)))
    assert set(others) == {epoch}
    for lane in site.keys.lanes:
        (group,) = await site.redis.xinfo_groups(lane)
        assert (group["name"], group["last-delivered-id"]) == (GROUP.encode(), b"0-0")


async def test_an_open_partition_is_in_the_registry_of_queues(site: Site) -> None:
    await site.dispatch.open()
    assert await site.redis.smembers(site.keys.queues) == {b"test"}


async def test_opening_finds_work_that_is_already_in_a_lane(site: Site) -> None:
    """A group that was lost begins at 0: what is in the lane is work."""
    (job,) = await site.put(BODY.decode())
    await site.redis.delete(site.keys.epoch)
    await site.redis.xgroup_destroy(site.keys.lanes[1], GROUP)
    await site.dispatch.beat("w", 1_000, enter=True)
    taken = (await site.dispatch.cycle("w", 5)).deliveries
    assert [it.entry for it in taken] == [job.encode()]


async def test_a_lane_that_is_no_stream_is_said_and_not_overwritten(site: Site) -> None:
    await site.redis.set(site.keys.lanes[2], "x")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await site.dispatch.open()


@pytest.mark.parametrize("name", ["submit", "cycle", "beat", "reclaim", "release"])
async def test_a_partition_that_is_not_open_is_said(site: Site, name: str) -> None:
    keys = site.keys
    used = (keys.epoch, keys.workers, keys.told) if name == "beat" else keys.entries
    with pytest.raises(ResponseError, match="NOTOPEN"):
        await Script(name, entries=name != "beat")(site.redis, used, (GROUP, PARKED, "w", 1, 0, 0, 0))
    assert await site.redis.exists(*keys.entries) == 0


async def test_scripts_open_what_is_new_and_what_was_lost(site: Site) -> None:
    assert len(await site.put("{}")) == 1
    await site.redis.delete(*await site.redis.keys(f"{site.keys.prefix}*"), site.keys.queues)
    assert len(await site.put("{}", "{}")) == 2
    assert await site.redis.smembers(site.keys.queues) == {b"test"}
    assert len(await site.events()) == 2


async def test_a_script_the_server_forgot_is_loaded_again(site: Site) -> None:
    await site.put("{}")
    await site.redis.script_flush()
    assert len(await site.put("{}")) == 1


async def test_event_and_lane_entry_have_one_id(site: Site) -> None:
    for lane in ("high", "normal", "low"):
        await site.put('{"n":1}', '{"n":2}', lane=lane)
    events = await site.events()
    in_lanes = [await site.redis.xrange(lane) for lane in site.keys.lanes]
    assert [[entry[0] for entry in lane] for lane in in_lanes] == [
        [event.position.encode() for event in events[at : at + 2]] for at in (0, 2, 4)
    ] + [[]]
    assert [event.tag for event in events] == ["submitted"] * 6
    assert [event.body for event in events[:2]] == [b'{"n":1}', b'{"n":2}']


async def test_positions_come_in_the_order_of_the_jobs(site: Site) -> None:
    positions = await site.put(*(f'{{"n":{n}}}' for n in range(1_000)))
    assert [event.position for event in await site.events()] == positions


async def test_a_batch_sent_again_answers_the_same_and_appends_nothing(site: Site) -> None:
    what = [*jobs(3), *jobs(2, when="+60000"), Submission("high", BODY, key="k")]
    first = await submit(site, what, 7)
    assert await submit(site, what, 7) == first
    assert len(await site.events()) == 6
    assert [await site.redis.xlen(lane) for lane in site.keys.lanes] == [1, 3, 0, 2]
    assert await submit(site, jobs(1), 8) != first[:1]
    assert len(await site.events()) == 7


async def test_batches_of_producers_are_told_apart(site: Site) -> None:
    assert await submit(site, jobs(1), 1, "p") != await submit(site, jobs(1), 1, "q")
    assert len(await site.events()) == 2


async def test_a_senders_memory_and_an_idempotency_key_end(site: Site) -> None:
    await site.dispatch.submit([Submission("normal", BODY, key="k")], producer="p", batch=1, once_ms=50_000)
    assert 0 < await site.redis.pttl(site.keys.once("k")) <= 50_000
    assert 50_000 < await site.redis.pttl(site.keys.sender("p")) <= 600_000


async def test_an_empty_batch_is_accepted(site: Site) -> None:
    assert await submit(site, [], 1) == []
    assert await submit(site, [], 1) == []


async def test_an_idempotency_key_answers_with_the_first_job_in_the_same_batch(site: Site) -> None:
    one, two, three = await submit(site, [*jobs(2, key="k"), *jobs(1)], 1)
    assert two == f"={one}"
    assert not three.startswith("=")
    assert len(await site.events()) == 2


async def test_an_idempotency_key_answers_with_the_first_job_later(site: Site) -> None:
    (first,) = await submit(site, jobs(1, key="k"), 1)
    assert await submit(site, jobs(1, key="k"), 2, "another") == [f"={first}"]
    assert await submit(site, jobs(1, key="k2"), 3) != [f"={first}"]
    assert len(await site.events()) == 2


async def test_two_producers_racing_with_one_key_make_one_job(site: Site) -> None:
    answers = await asyncio.gather(*(submit(site, jobs(1, key="k"), 1, f"p{number}") for number in range(20)))
    texts = [text for answer in answers for text in answer]
    assert len({text.lstrip("=") for text in texts}) == 1
    assert sum(not text.startswith("=") for text in texts) == 1
    assert len(await site.events()) == 1


async def test_a_delayed_job_is_parked_with_no_attempt_spent(site: Site) -> None:
    (job,) = await site.put("{}", when="+60000")
    assert await site.pending() == [("later", job, PARKED, 0)]
    ((member, score),) = await site.redis.zrange(site.keys.due, 0, -1, withscores=True)
    assert member == b"4:" + job.encode()
    assert score == int(job.split("-")[0]) + 60_000


async def test_a_moment_is_kept_as_it_is(site: Site) -> None:
    await site.put("{}", when="1800000000123")
    await site.put("{}", when="-5")
    scores = [score for _, score in await site.redis.zrange(site.keys.due, 0, -1, withscores=True)]
    assert scores == [-5, 1_800_000_000_123]


async def test_nobody_ever_sees_half_a_batch(site: Site) -> None:
    await site.dispatch.open()
    seen = set()

    async def look() -> None:
        while True:
            seen.add(await site.redis.xlen(site.keys.log))

    looking = asyncio.create_task(look())
    for batch in range(1, 11):
        await submit(site, [*jobs(100), *jobs(100, when="+60000")], batch)
    looking.cancel()
    assert len(seen) > 2
    assert not [length for length in seen if length % 200]
    lanes = [await site.redis.xlen(lane) for lane in site.keys.lanes]
    assert (lanes, await site.redis.zcard(site.keys.due)) == ([0, 1_000, 0, 1_000], 1_000)


async def test_a_late_copy_of_an_older_batch_is_not_accepted_again(site: Site) -> None:
    """Bytes of a connection that broke may reach the server after the batch was sent again on
    another one, and after the next batch too."""
    await submit(site, jobs(2), 1)
    await submit(site, jobs(1), 2)
    with pytest.raises(ResponseError):
        await submit(site, jobs(2), 1)
    assert len(await site.events()) == 3
