"""Facts come into a log once, together, and into the place their writer had seen."""

import asyncio

from penstock.core.append import Appender, Fact
from penstock.core.dispatch import Dispatch
from penstock.core.keys import Keys
from penstock.core.log import Log
from processes import Site

A = Fact("schedule_paused", b'{"by":"a"}', "nightly")
B = Fact("schedule_resumed", b"{}", "nightly")


async def test_facts_stand_next_to_one_another_in_the_order_given(site: Site) -> None:
    keys = Keys(site.settings.namespace).ledger("schedules")
    positions = await Appender(site.redis, keys).append([A, B], token="1")
    events = await Log(site.redis, keys).page("0-0")
    assert [event.position for event in events] == positions
    assert [(event.tag, event.job, event.body) for event in events] == [
        ("schedule_paused", "nightly", b'{"by":"a"}'),
        ("schedule_resumed", "nightly", b"{}"),
    ]


async def test_a_token_sent_again_writes_nothing_and_is_answered_alike(site: Site) -> None:
    keys = Keys(site.settings.namespace).ledger("schedules")
    racing = [Appender(site.redis, keys) for _ in range(8)]
    answers = await asyncio.gather(*(one.append([A, B], token="same") for one in racing))
    assert all(answer == answers[0] for answer in answers)
    assert await site.redis.xlen(keys.log) == 2
    assert await racing[0].append([A, B], token="same", after="0-0") == answers[0]


async def test_what_was_decided_on_an_older_log_is_not_written(site: Site) -> None:
    keys = Keys(site.settings.namespace).ledger("schedules")
    appender = Appender(site.redis, keys)
    [first] = await appender.append([A], token="1", after="0-0")
    assert await appender.append([B], token="2", after="0-0") == []
    assert await site.redis.xlen(keys.log) == 1
    [second] = await appender.append([B], token="2", after=first)
    assert await Log(site.redis, keys).tip() == second


async def test_a_ledger_is_a_log_an_epoch_and_tokens_that_end(site: Site) -> None:
    keys = Keys(site.settings.namespace).ledger("schedules")
    await Appender(site.redis, keys, life_ms=60_000).append([A], token="1")
    found = {key.decode() async for key in site.redis.scan_iter(match=f"{site.settings.namespace}:*")}
    assert found == {keys.log, keys.epoch, keys.token("1")}
    assert 0 < await site.redis.pttl(keys.token("1")) <= 60_000


async def test_the_lanes_of_a_queue_come_before_its_first_fact(site: Site) -> None:
    keys = Keys(site.settings.namespace).partition("email")
    positions = await Appender(site.redis, keys).append([A], token="1")
    assert await Log(site.redis, keys).tip() == positions[0]
    assert [await site.redis.exists(lane) for lane in keys.lanes] == [1, 1, 1, 1]
    assert await site.redis.get(keys.epoch) == (await Dispatch(site.redis, keys).open()).encode()
