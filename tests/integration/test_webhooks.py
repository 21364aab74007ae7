"""Webhooks from the event to the receiver: signed, filtered, retried, parked, replayed, and kept apart."""

import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from hooks import SECRET, Received, endpoint, endpoints_of, receiving, sending
from jobs_for_tests import Echo, Hopeless, Talk
from penstock.core.control import Control, standing
from penstock.core.endpoints import new_secret
from penstock.core.events import decode
from penstock.core.jobs.webhook import QUEUE as WEBHOOKS
from penstock.core.settings import Secret
from penstock.core.story import tell
from penstock.core.webhooks import WebhookPaused, WebhookReplayed, WebhookResumed, WebhookSet
from processes import Site, eventually, producing, site_on, working
from servers import RealServer
from webserver import reply

ENDS = ("job.completed", "job.failed")


def hooked(server: RealServer, namespace: str, **more: Any) -> Any:
    """A site whose webhooks reach this machine."""
    return site_on(server, namespace, fetch_private=True, lease=5.0, **more)


def deliveries(site: Site) -> Site:
    """The same site, seen through the queue of deliveries."""
    return Site(site.settings, site.redis, WEBHOOKS)


def names(received: list[Received]) -> list[str]:
    return [it.event["type"] for it in received]


async def until_states(site: Site, *states: str) -> None:
    """Wait until the deliveries are in these states."""

    async def there() -> bool:
        return sorted(job.state if job else "" for job in (await deliveries(site).jobs()).values()) == sorted(
            states
        )

    await eventually(there, 30, f"deliveries are {states}")


async def test_an_event_arrives_signed(server: RealServer, namespace: str) -> None:
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving() as receiver:
            await endpoint(site, "crm", f"{receiver.url}/hook", *ENDS)
            async with sending(site.settings), working(site.settings):
                job = await producer.submit(Echo("hello"))
                [got] = await receiver.until(1)
            told = got.verified()
            assert told["type"] == "job.completed"
            assert told["data"]["job"] == job.id
            assert (told["data"]["queue"], told["data"]["type"]) == ("test", "test.echo")
            assert told["data"]["details"]["result"] == "hello"
            assert got.headers["content-type"] == "application/json"
            assert got.id == "msg_test_0_" + (await site.story(job))[-1].position.replace("-", "_")
            with pytest.raises(WebhookVerificationError):
                got.verified(new_secret())
            got.body += b" "
            with pytest.raises(WebhookVerificationError):
                got.verified()


async def test_the_events_of_a_job_arrive_in_order(server: RealServer, namespace: str) -> None:
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving() as receiver:
            await endpoint(site, "all", f"{receiver.url}/hook")
            async with sending(site.settings), working(site.settings):
                jobs = await producer.submit_many([Talk(20) for _ in range(10)])
                for job in jobs:
                    await job.result(timeout=30)
                expected = {job.id: [f"job.{tag}" for tag in await site.tags(job)] for job in jobs}
                got = await receiver.until(sum(map(len, expected.values())))
            for job in jobs:
                arrived = [it for it in got if it.event["data"]["job"] == job.id]
                assert names(arrived) == expected[job.id]
                assert len({it.id for it in arrived}) == len(arrived)


async def test_they_arrive_in_order_from_idle_senders_too(server: RealServer, namespace: str) -> None:
    """Two of them, which wait for the next delivery by a blocking read: job after job, all events at once."""
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving() as receiver:
            await endpoint(site, "all", f"{receiver.url}/hook")
            async with sending(site.settings), sending(site.settings), working(site.settings):
                for number in range(1, 21):
                    job = await producer.submit(Echo(number))
                    got = (await receiver.until(3 * number))[-3:]
                    assert {it.event["data"]["job"] for it in got} == {job.id}
                    assert names(got) == ["job.submitted", "job.started", "job.completed"]


async def test_an_endpoint_is_sent_what_it_asked_for(server: RealServer, namespace: str) -> None:
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving("/failed", "/echo", "/other", "/queue") as receiver:
            await endpoint(site, "failed", f"{receiver.url}/failed", "job.failed")
            await endpoint(site, "echo", f"{receiver.url}/echo", *ENDS, types=("test.echo",))
            await endpoint(site, "other", f"{receiver.url}/other", queues=("other",))
            await endpoint(site, "queue", f"{receiver.url}/queue", "queue.paused")
            async with sending(site.settings), working(site.settings):
                for payload in (Echo(1), Hopeless(), Echo(2)):
                    await producer.submit(payload)
                await receiver.until(2, "/echo")
                await receiver.until(1, "/failed")
                await Control(site.redis, site.keys).pause(by="ada")
                await receiver.until(1, "/queue")
            assert names(receiver.at("/failed")) == ["job.failed"]
            assert names(receiver.at("/echo")) == ["job.completed"] * 2
            assert receiver.at("/queue")[0].event["data"] == {"queue": "test", "details": {"by": "ada"}}
            assert receiver.at("/other") == []


async def test_a_busy_receiver_says_when_to_come_again(server: RealServer, namespace: str) -> None:
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving() as receiver:
            calm = threading.Event()

            def busy(request: BaseHTTPRequestHandler) -> None:
                if calm.is_set():
                    reply(request, 200, b"thanks")
                else:
                    calm.set()
                    reply(request, 503, b"not now,\nplease", retry_after="1")

            receiver.answers["/hook"] = busy
            await endpoint(site, "crm", f"{receiver.url}/hook", *ENDS)
            async with sending(site.settings), working(site.settings):
                await producer.submit(Echo(1))
                first, second = await receiver.until(2)
                await until_states(site, "completed")
            [job] = await deliveries(site).stories()
            [failed] = await deliveries(site).bodies(job, "attempt_failed")
            assert failed["delay"] == 1.0
            assert failed["message"] == "127.0.0.1 answered 503: not now, please"
            assert first.id == second.id
            assert first.verified() == second.verified()
            assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])


async def test_a_receiver_that_is_gone_is_paused_and_its_dead_letter_can_be_sent_again(
    server: RealServer, namespace: str
) -> None:
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving() as receiver:
            receiver.answers["/hook"] = lambda request: reply(request, 410)
            await endpoint(site, "crm", f"{receiver.url}/hook", *ENDS)
            async with sending(site.settings), working(site.settings):
                await producer.submit(Echo(1))
                await until_states(site, "failed")
                found = await endpoints_of(site).get("crm")
                assert (found.paused, found.reason) == (True, "it answered 410 Gone")

                del receiver.answers["/hook"]
                await endpoints_of(site).say("crm", WebhookResumed(by="ada"))
                [letter] = await deliveries(site).stories()
                queue = deliveries(site)
                dead = standing(await tell(site.redis, queue.keys, letter))
                assert dead is not None
                assert await Control(site.redis, queue.keys).requeue([dead], by="ada") == [True]
                first, second = await receiver.until(2)
                await until_states(site, "completed")
            assert first.id == second.id
            assert second.verified()["data"]["details"]["result"] == 1


@pytest.mark.parametrize(("status", "location"), [(302, "/elsewhere"), (404, ""), (500, "")])
async def test_any_other_answer_is_tried_again(
    server: RealServer, namespace: str, status: int, location: str
) -> None:
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving("/hook", "/elsewhere") as receiver:
            receiver.answers["/hook"] = lambda request: reply(request, status, location=location)
            await endpoint(site, "crm", f"{receiver.url}/hook", *ENDS)
            async with sending(site.settings), working(site.settings):
                await producer.submit(Echo(1))
                await until_states(site, "delayed")
            [job] = await deliveries(site).stories()
            [failed] = await deliveries(site).bodies(job, "attempt_failed")
            assert failed["error"] == "RemoteFailure"
            assert f"answered {status}" in failed["message"]
            assert failed["delay"] == pytest.approx(5, abs=1.1)
            assert receiver.at("/elsewhere") == []


async def test_private_addresses_are_not_reached(server: RealServer, namespace: str) -> None:
    async with site_on(server, namespace) as site, producing(site) as producer:
        with receiving() as receiver:
            port = receiver.url.rpartition(":")[2]
            await endpoint(site, "number", f"{receiver.url}/hook", *ENDS)
            await endpoint(site, "name", f"http://localhost:{port}/hook", *ENDS)
            async with sending(site.settings), working(site.settings):
                await producer.submit(Echo(1))
                await until_states(site, "failed", "failed")
            for job in await deliveries(site).stories():
                [failed] = await deliveries(site).bodies(job, "failed")
                assert failed["reason"] == "permanent"
                assert "which is no public address" in failed["message"]
            assert receiver.requests == []


async def test_a_receiver_that_never_answers_holds_up_nobody(server: RealServer, namespace: str) -> None:
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving("/dead", "/live") as receiver:
            let_go = threading.Event()

            def hang(request: BaseHTTPRequestHandler) -> None:
                let_go.wait(20)
                reply(request, 204)

            receiver.answers["/dead"] = hang
            await endpoint(site, "dead", f"{receiver.url}/dead", *ENDS)
            await endpoint(site, "live", f"{receiver.url}/live", *ENDS)
            try:
                async with sending(site.settings), working(site.settings):
                    await producer.submit_many([Echo(number) for number in range(100)])
                    await receiver.until(100, "/live", 10)
                    assert 0 < len(receiver.at("/dead")) <= 8
                    let_go.set()
                    await receiver.until(100, "/dead", 20)
            finally:
                let_go.set()


async def test_a_replay_sends_again_what_happened_since(server: RealServer, namespace: str) -> None:
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving("/hook", "/late") as receiver:
            await endpoint(site, "crm", f"{receiver.url}/hook", *ENDS)
            async with sending(site.settings), working(site.settings):
                for number in range(3):
                    await (await producer.submit(Echo(number))).result(timeout=30)
                before = await receiver.until(3)
                await endpoints_of(site).say("crm", WebhookReplayed((await site.events())[3].position))
                again = (await receiver.until(5))[3:]
                # Of several jobs whichever is delivered first: ids sort as events do.
                assert sorted(it.id for it in again) == sorted(it.id for it in before)[1:]
                await endpoint(site, "late", f"{receiver.url}/late", *ENDS)
                await endpoints_of(site).say("late", WebhookReplayed("0-0"))
                assert len({it.id for it in await receiver.until(3, "/late")}) == 3
            await until_states(site, *["completed"] * 8)


async def test_what_happens_during_a_pause_is_passed_over(server: RealServer, namespace: str) -> None:
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving() as receiver:
            found = await endpoint(site, "crm", f"{receiver.url}/hook", *ENDS)
            async with sending(site.settings), working(site.settings):
                await (await producer.submit(Echo("before"))).result(timeout=30)
                await receiver.until(1)
                await endpoints_of(site).say("crm", WebhookPaused(by="ada"))
                await (await producer.submit(Echo("meanwhile"))).result(timeout=30)
                tip = await site.log.tip()

                async def passed_over() -> bool:
                    return bool((await endpoints_of(site).reached(found)).get("test") == tip)

                await eventually(passed_over, 30, "the pause is read")
                await endpoints_of(site).say("crm", WebhookResumed(by="ada"))
                await (await producer.submit(Echo("after"))).result(timeout=30)
                got = await receiver.until(2)
            assert [it.event["data"]["details"]["result"] for it in got] == ["before", "after"]


async def test_after_a_change_of_secret_both_signatures_are_right(server: RealServer, namespace: str) -> None:
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving() as receiver:
            await endpoint(site, "crm", f"{receiver.url}/hook", *ENDS)
            new = new_secret()
            told = WebhookSet(f"{receiver.url}/hook", new, ENDS, by="ada")
            _, shown = await endpoints_of(site).set("crm", told)
            assert shown == new
            async with sending(site.settings), working(site.settings):
                await producer.submit(Echo(1))
                [got] = await receiver.until(1)
            assert got.verified(SECRET) == got.verified(new)
            assert len(got.headers["webhook-signature"].split(" ")) == 2


async def test_deliveries_are_told_of_only_to_who_asks_and_never_in_a_loop(
    server: RealServer, namespace: str
) -> None:
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving("/jobs", "/both", "/each") as receiver:
            await endpoint(site, "jobs", f"{receiver.url}/jobs", *ENDS)
            await endpoint(site, "both", f"{receiver.url}/both", *ENDS, queues=("test", WEBHOOKS))
            await endpoint(site, "each", f"{receiver.url}/each", *ENDS, queues=(WEBHOOKS,))
            async with sending(site.settings), working(site.settings):
                await producer.submit(Echo(1))
                # One to each of the two that hear of jobs; of each of these one to the two who hear of that.
                await until_states(site, *["completed"] * 6)
                await (await producer.submit(Echo(2))).result(timeout=30)
                await until_states(site, *["completed"] * 12)
            assert len(receiver.at("/jobs")) == 2
            assert len(receiver.at("/both")) == 2 + 4
            assert len(receiver.at("/each")) == 4
            assert {it.event["data"]["queue"] for it in receiver.at("/each")} == {WEBHOOKS}


async def test_with_keys_set_no_secret_is_legible_and_nothing_sealed_is_sent(
    own_server: RealServer, namespace: str
) -> None:
    keys = Secret("b2xkIGtleSwgb2YgdGhpcnR5LXR3byBieXRlcyBvay4=")
    async with hooked(own_server, namespace, payload_keys=keys) as site, producing(site) as producer:
        with receiving() as receiver:
            await endpoint(site, "crm", f"{receiver.url}/hook", "job.submitted", *ENDS)
            async with sending(site.settings), working(site.settings):
                await producer.submit(Echo("xyzzy"))
                submitted, completed = await receiver.until(2)
            assert submitted.verified()["data"]["details"]["payload"] == {"sealed": True}
            assert completed.verified()["data"]["details"]["result"] == {"sealed": True}
            ledger = repr(await site.redis.xrange(endpoints_of(site).keys.log))
            assert "webhook_set" in ledger
            assert SECRET not in ledger


async def test_a_delivery_says_what_it_is_about(server: RealServer, namespace: str) -> None:
    """So that deliveries can be found by endpoint and by job; and no secret is in them."""
    async with hooked(server, namespace) as site, producing(site) as producer:
        with receiving() as receiver:
            await endpoint(site, "crm", f"{receiver.url}/hook", *ENDS)
            async with sending(site.settings), working(site.settings):
                job = await producer.submit(Echo(1))
                await receiver.until(1)
            [(_, events)] = (await deliveries(site).stories()).items()
            submitted: Any = decode(events[0])
            assert submitted.tags == ("endpoint:crm", f"job:{job.id}")
            assert submitted.by == "webhooks"
            assert submitted.attempts == 10
            assert b"whsec" not in events[0].body
