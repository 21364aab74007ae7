"""From the log to deliveries: each event once for each endpoint, whoever dies, races or loses the log."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from hooks import SECRET, endpoint, endpoints_of, receiving, sending
from jobs_for_tests import Echo
from penstock.core.connection import command
from penstock.core.endpoints import FACTS_KEPT, MAX_ENDPOINTS
from penstock.core.errors import NotFound, Refused, Unavailable
from penstock.core.jobs.webhook import QUEUE as WEBHOOKS
from penstock.core.jobs.webhook import DeliverWebhook  # noqa: F401 (its contract)
from penstock.core.webhooks import WebhookReplayed, WebhookSet
from penstock.producer.client import Producer
from penstock.projections import webhooks as module
from penstock.projections.webhooks import Delivery, HandOver, PartitionWebhooks, Roster
from penstock.ui.webhooks import handing_over
from processes import Site, producing, site_on
from servers import RealServer

URL = "https://example.org/hook"


class Killed(Exception):
    """The process ended here."""


async def reader(site: Site, hand_over: HandOver) -> PartitionWebhooks:
    roster = Roster()
    roster.update(await endpoints_of(site).all())
    return PartitionWebhooks(site.redis, site.keys, roster, hand_over)


async def read_all(site: Site, hand_over: HandOver) -> None:
    """As one process reads until it has seen all."""
    one = await reader(site, hand_over)
    lines = await one.lines()
    while await one.step(lines):
        pass


async def delivered(site: Site) -> Counter[tuple[str, str]]:
    """How many jobs there are for each endpoint and message."""
    queue = Site(site.settings, site.redis, WEBHOOKS)
    found: Counter[tuple[str, str]] = Counter()
    for job in await queue.stories():
        [body] = await queue.bodies(job, "submitted")
        found[body["payload"]["endpoint"], body["payload"]["id"]] += 1
    return found


async def positions(site: Site) -> list[str]:
    return ["msg_test_0_" + event.position.replace("-", "_") for event in await site.events()]


@pytest.mark.parametrize("seed", range(4))
async def test_each_event_becomes_one_delivery_wherever_the_reader_dies(
    server: RealServer, namespace: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the deliveries are submitted, after it and before the cursor moves, or later."""
    chance = random.Random(seed)
    monkeypatch.setattr(module, "PAGE", 7)
    async with site_on(server, namespace) as site, producing(site) as producer:
        for name in ("one", "two"):
            await endpoint(site, name, URL)
        await producer.submit_many([Echo(number) for number in range(60)])
        submit = handing_over(producer)

        async def mortal(deliveries: Sequence[Delivery]) -> Sequence[str]:
            fate = chance.random()
            if fate < 0.25:
                raise Killed
            ids = await submit(deliveries)
            if fate < 0.5:
                raise Killed
            return ids

        deaths = 0
        while True:
            try:
                await asyncio.gather(*(read_all(site, mortal) for _ in range(chance.choice((1, 2)))))
                break
            except Killed:
                deaths += 1
        assert deaths > 0
        expected = {(name, it): 1 for name in ("one", "two") for it in await positions(site)}
        assert await delivered(site) == expected


async def test_readers_that_race_make_each_delivery_once(server: RealServer, namespace: str) -> None:
    async with site_on(server, namespace) as site, producing(site) as producer:
        await endpoint(site, "crm", URL)
        await producer.submit_many([Echo(number) for number in range(1_200)])
        async with Producer(site.settings) as other:
            await asyncio.gather(
                *(read_all(site, handing_over(it)) for it in (producer, other, producer, other))
            )
        assert await delivered(site) == {("crm", it): 1 for it in await positions(site)}


async def test_a_cursor_stands_beside_its_log_and_goes_with_its_endpoint(
    server: RealServer, namespace: str
) -> None:
    async with site_on(server, namespace) as site, producing(site) as producer:
        found = await endpoint(site, "crm", URL)
        await endpoint(site, "elsewhere", URL, queues=("other",))
        await producer.submit(Echo(1))
        await read_all(site, handing_over(producer))
        tip = await site.log.tip()
        cursors = await command(site.redis, "HGETALL", site.keys.readers)
        assert cursors == {found.reader("test").encode(): tip.encode()}
        assert await endpoints_of(site).reached(found) == {"test": tip}

        await command(site.redis, "HSET", site.keys.readers, "another reader", "5-0")
        await endpoints_of(site).remove("crm", by="ada")
        await read_all(site, handing_over(producer))
        assert await command(site.redis, "HGETALL", site.keys.readers) == {b"another reader": b"5-0"}


async def test_one_that_reads_what_is_old_holds_up_nobody(
    server: RealServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turn: each step is a page for each place at which endpoints are."""
    monkeypatch.setattr(module, "PAGE", 5)
    async with site_on(server, namespace) as site, producing(site) as producer:
        await endpoint(site, "fresh", URL)
        await endpoint(site, "late", URL)
        await producer.submit_many([Echo(number) for number in range(100)])
        await read_all(site, handing_over(producer))
        await endpoints_of(site).say("late", WebhookReplayed("0-0"))
        handed: list[Delivery] = []

        async def keep(deliveries: Sequence[Delivery]) -> Sequence[str]:
            handed.extend(deliveries)
            return []

        one = await reader(site, keep)
        lines = await one.lines()
        new = await producer.submit(Echo("new"))
        await one.step(lines)
        of_new = [it for it in handed if f"job:{new.id}" in it.tags]
        assert [it.payload.endpoint for it in of_new] == ["fresh"]
        assert 1 < len(handed) <= 6
        while await one.step(lines):
            pass
        assert Counter(it.payload.endpoint for it in handed) == {"fresh": 1, "late": 101}
        assert len({line.position for line in lines}) == 1  # from here on they read together


async def test_a_log_that_is_still_empty_is_listened_to(server: RealServer, namespace: str) -> None:
    async with site_on(server, namespace) as site, producing(site) as producer:
        await endpoint(site, "crm", URL)
        await endpoints_of(site).say("crm", WebhookReplayed("0-0"))
        heard = asyncio.Event()

        async def hear(deliveries: Sequence[Delivery]) -> Sequence[str]:
            heard.set()
            return []

        running = asyncio.create_task((await reader(site, hear)).run())
        await asyncio.sleep(0)
        await producer.submit(Echo(1))
        await asyncio.wait_for(heard.wait(), 10)
        running.cancel()


async def test_a_full_queue_of_deliveries_loses_nothing(server: RealServer, namespace: str) -> None:
    async with site_on(server, namespace) as site, producing(site) as producer:
        await endpoint(site, "crm", URL)
        await producer.submit(Echo(1))
        submit, refusals = handing_over(producer), iter([True, True, False])
        ready = asyncio.Event()

        async def full(deliveries: Sequence[Delivery]) -> Sequence[str]:
            if next(refusals):
                raise Unavailable("as many wait as may", retry_after=0.01)
            ids = await submit(deliveries)
            ready.set()
            return ids

        running = asyncio.create_task((await reader(site, full)).run())
        await asyncio.wait_for(ready.wait(), 10)
        running.cancel()
        assert (await delivered(site)).total() == 1


async def test_after_the_server_lost_all_it_goes_on_with_what_is_new(
    own_server: RealServer, namespace: str
) -> None:
    async with site_on(own_server, namespace, fetch_private=True) as site, producing(site) as producer:
        with receiving() as receiver:
            await endpoint(site, "crm", f"{receiver.url}/hook", "job.submitted")
            async with sending(site.settings):
                await producer.submit(Echo("before"))
                await receiver.until(1)
                await site.redis.flushall()
                await endpoint(site, "crm", f"{receiver.url}/hook", "job.submitted")
                await producer.submit(Echo("after"))
                got = await receiver.until(2, timeout=30)
            payloads = [it.verified(SECRET)["data"]["details"]["payload"]["value"] for it in got]
            assert payloads == ["before", "after"]


async def test_the_ledger_stays_short(server: RealServer, namespace: str) -> None:
    """However often endpoints change; who reads on and who begins anew see the same."""
    async with site_on(server, namespace) as site:
        follower, writer = endpoints_of(site), endpoints_of(site)
        await endpoint(site, "still", URL)
        for number in range(FACTS_KEPT + 20):
            told = WebhookSet(f"{URL}/{number}", "", ("*",), by="ada")
            await writer.set("crm", told)
            if number % 50 == 0:
                await follower.all()
        assert await site.redis.xlen(writer.keys.log) <= FACTS_KEPT
        found = await writer.all()
        assert found == await follower.all() == await endpoints_of(site).all()
        assert found["crm"].told.url == f"{URL}/{FACTS_KEPT + 19}"
        assert found["still"].told.secret == SECRET


async def test_endpoints_are_written_once_and_bounded(server: RealServer, namespace: str) -> None:
    async with site_on(server, namespace) as site:
        endpoints = endpoints_of(site)

        async def race(number: int) -> Any:
            return await endpoints_of(site).set(f"e{number % 10}", WebhookSet(URL, "", ("*",), by="ada"))

        shown = [
            secret for _, secret in await asyncio.gather(*(race(number) for number in range(30))) if secret
        ]
        assert len(shown) == len(set(shown)) == len(await endpoints.all()) == 10
        assert await site.redis.xlen(endpoints.keys.log) == 10
        for number in range(10, MAX_ENDPOINTS):
            await endpoints.set(f"e{number}", WebhookSet(URL, SECRET, ("*",)))
        with pytest.raises(Refused, match=f"there are {MAX_ENDPOINTS} webhook endpoints already"):
            await endpoints.set("one-more", WebhookSet(URL, SECRET, ("*",)))
        await endpoints.set("e1", WebhookSet(f"{URL}/2", "", ("*",)))
        with pytest.raises(NotFound, match="no webhook endpoint 'one-more'"):
            await endpoints.remove("one-more", by="ada")
