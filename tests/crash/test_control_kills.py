"""Limits, groups, unique keys and commands while a worker is killed at the worst moment.

Two workers are real processes; one gets SIGKILL while it runs what the test is about, and another goes
on. The log is in one order, and the scripts append an event in the same step in which they count: so
what ran at any moment, and whether a limit held, is read from the log alone. In the end every run has
one end and nothing is left over.
"""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from commands import Command
from floor import Floor
from jobs_for_tests import Echo, Flaky, Gate, Hopeless, Nap
from penstock.core.dispatch import Dispatch
from penstock.core.events import QueueLimited
from penstock.core.lifecycle import TERMINAL
from penstock.producer.client import Handle
from penstock.producer.intake import Unique
from processes import Site, eventually, exit_code, producing, site_on, start_worker
from servers import RealServer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]
Penstock = Callable[..., Command]
# What ends an attempt, whoever says it.
AFTER = {*TERMINAL, "attempt_failed", "lease_expired", "released"}


def position(handle: Handle) -> str:
    return handle.id.rsplit(".", maxsplit=1)[1]


def positions(handles: list[Handle]) -> list[str]:
    return [position(handle) for handle in handles]


async def answers_again(site: Site) -> bool:
    try:
        return bool(await site.redis.ping())
    except RedisError:
        return False


async def limit(site: Site, **limits: Any) -> None:
    assert await Floor(site).control.limit(QueueLimited(**limits, by="ada"))


async def running(site: Site, handles: list[Handle]) -> list[Handle]:
    """Those that run now."""
    jobs = await site.jobs()
    return [it for it in handles if (job := jobs[position(it)]) is not None and job.state == "active"]


async def some_run(site: Site, handles: list[Handle], count: int) -> None:
    async def enough() -> bool:
        return len(await running(site, handles)) >= count

    await eventually(enough, 30, f"{count} run")


async def most_at_once(site: Site, groups: dict[str, str] | None = None) -> Counter[str]:
    """How many jobs ran at once at most, of each group; all are one group unless told."""
    now: set[str] = set()
    most: Counter[str] = Counter()
    for event in await site.events():
        if event.tag == "started":
            now.add(event.job)
        elif event.tag in AFTER:
            now.discard(event.job)
        counts = Counter(groups[job] if groups else "" for job in now)
        most = most | counts
    return most


async def settled(site: Site) -> None:
    """Nobody is told any more: who was cancelled in mid-work and died has been reclaimed."""

    async def nobody() -> bool:
        return not await site.redis.exists(site.keys.told)

    await eventually(nobody, 30, "everybody was told")


async def test_limits_hold_while_a_worker_dies_and_its_places_are_given_again(
    penstock: Penstock, site: Site, server: RealServer, namespace: str
) -> None:
    victim = start_worker(penstock, server, namespace, concurrency=8)
    start_worker(penstock, server, namespace, concurrency=8)
    await limit(site, concurrency=5, per_group=2)
    async with producing(site) as producer:
        groups: dict[str, str] = {}
        for number in range(60):
            group = "abc"[number % 3]
            groups[position(await producer.submit(Nap(0.03), group=group))] = group

        async def under_way() -> bool:
            stories = (await site.stories()).values()
            return sum(event.tag == "completed" for events in stories for event in events) >= 10

        await eventually(under_way, 30, "some have ended")
        victim.signal(signal.SIGKILL)
        await site.until_ended(60, timeout=30)
    assert (await most_at_once(site))[""] <= 5
    assert max((await most_at_once(site, groups)).values()) <= 2
    await site.consistent(groups)


async def test_held_jobs_go_on_when_the_worker_of_their_group_is_killed(
    penstock: Penstock, site: Site, server: RealServer, namespace: str, tmp_path: Path
) -> None:
    victim = start_worker(penstock, server, namespace, concurrency=4)
    await limit(site, per_group=2)
    async with producing(site) as producer:
        gates = await producer.submit_many([Gate(str(tmp_path / "gate"))] * 2, group="a")
        await some_run(site, gates, 2)
        behind = await producer.submit_many([Echo(number) for number in range(10)], group="a")
        start_worker(penstock, server, namespace, concurrency=4)
        other = await producer.submit(Echo("b"), group="b")
        assert await other.result(timeout=30) == "b"
        assert [job.state for job in (await site.jobs()).values() if job].count("completed") == 1
        victim.signal(signal.SIGKILL)
        (tmp_path / "gate").touch()
        assert [await handle.result(timeout=30) for handle in behind] == list(range(10))
        await site.until_ended(13, timeout=30)
    groups = {position(it): "a" for it in [*gates, *behind]} | {position(other): "b"}
    assert (await most_at_once(site, groups))["a"] == 2
    await site.consistent(groups)


async def test_a_running_job_is_cancelled_while_its_worker_is_killed(
    penstock: Penstock, site: Site, server: RealServer, namespace: str, tmp_path: Path
) -> None:
    """Whichever comes first: it ends as cancelled, once, and does not run again."""
    victim = start_worker(penstock, server, namespace, concurrency=20)
    async with producing(site) as producer:
        gates = await producer.submit_many([Gate(str(tmp_path / "never"))] * 10, group="a")
        await some_run(site, gates, 10)
        start_worker(penstock, server, namespace, concurrency=20)
        floor = Floor(site)
        standings = [await floor.standing(position(gate)) for gate in gates]
        first = asyncio.create_task(floor.control.cancel(standings[:5], by="ada"))
        await asyncio.sleep(0)
        victim.signal(signal.SIGKILL)
        assert await first == ["running"] * 5
        await exit_code(victim)
        # And the others when they have been taken back, wherever they are then.
        for gate in gates[5:]:
            await site.until(gate, "lease_expired")
        again = await floor.control.cancel([await floor.standing(position(it)) for it in gates[5:]], by="ada")
        assert set(again) <= {"running", "waiting"}
        assert await (await producer.submit(Echo("on"))).result(timeout=30) == "on"
    await settled(site)
    for gate in gates[:5]:
        assert await site.tags(gate) == ["submitted", "started", "cancelled"]
    await site.consistent(positions(gates))


async def test_a_unique_key_is_held_over_the_death_of_a_worker_and_free_after_the_end(
    penstock: Penstock, site: Site, server: RealServer, namespace: str, tmp_path: Path
) -> None:
    victim = start_worker(penstock, server, namespace)
    async with producing(site) as producer:
        holder = await producer.submit(Gate(str(tmp_path / "gate")), unique=Unique("u"))
        await some_run(site, [holder], 1)
        victim.signal(signal.SIGKILL)
        await exit_code(victim)
        assert (await producer.submit(Echo(1), unique=Unique("u"))).id == holder.id
        start_worker(penstock, server, namespace)
        await site.until(holder, "lease_expired")
        assert (await producer.submit(Echo(1), unique=Unique("u", replace=True))).id == holder.id
        (tmp_path / "gate").touch()
        assert await holder.result(timeout=30) == "through"
        after = await producer.submit(Echo(2), unique=Unique("u"))
        assert after.id != holder.id
        assert await after.result(timeout=30) == 2
    await site.consistent([position(holder), position(after)])


async def test_failures_are_requeued_once_while_a_worker_dies(
    penstock: Penstock, site: Site, server: RealServer, namespace: str
) -> None:
    """Two people press the button for all, again and again, and one of the workers is killed."""
    victim = start_worker(penstock, server, namespace, concurrency=4)
    start_worker(penstock, server, namespace, concurrency=4)
    floor = Floor(site)
    async with producing(site) as producer:
        handles = await producer.submit_many([Hopeless()] * 40)
        await site.until_ended(40, timeout=30)
        standings = [await floor.standing(position(handle)) for handle in handles]
        asks = [
            asyncio.create_task(floor.control.requeue([standing], by=who))
            for standing in standings
            for who in ("ada", "bob")
        ]
        await asks[0]
        victim.signal(signal.SIGKILL)
        answers = [answer for (answer,) in await asyncio.gather(*asks)]
        await site.until_ended(80, timeout=30)
    assert Counter(answers) == Counter({True: 40, False: 40})
    for events in (await site.consistent(positions(handles))).values():
        tags = [event.tag for event in events]
        assert (tags.count("failed"), tags.count("requeued")) == (2, 1)


async def test_what_a_killed_worker_had_waits_while_the_queue_is_paused(
    penstock: Penstock, site: Site, server: RealServer, namespace: str, tmp_path: Path
) -> None:
    victim = start_worker(penstock, server, namespace, concurrency=5)
    control = Floor(site).control
    async with producing(site) as producer:
        gates = await producer.submit_many([Gate(str(tmp_path / "gate"))] * 5)
        await some_run(site, gates, 5)
        await control.pause(by="ada")
        victim.signal(signal.SIGKILL)
        (tmp_path / "gate").touch()
        start_worker(penstock, server, namespace, concurrency=5)
        for gate in gates:
            await site.until(gate, "lease_expired")
        fresh = await producer.submit(Echo("fresh"))
        await control.resume(by="ada")
        assert await fresh.result(timeout=30) == "fresh"
        await site.until_ended(6, timeout=30)
    paused = False
    for event in await site.events():
        paused = (paused or event.tag == "queue_paused") and event.tag != "queue_resumed"
        assert not (paused and event.tag == "started")
    await site.consistent(positions([*gates, fresh]))


async def test_everything_at_once_with_workers_and_a_server_that_die(
    penstock: Penstock, make_server: Callable[..., RealServer], namespace: str
) -> None:
    """Groups, unique keys, ttl, delays, failures, cancellations, requeues, changing limits; meanwhile two
    workers and the server itself are killed. Each run ends once and the accounts are empty."""
    server = make_server("redis", fsync="always")
    chance = random.Random(7)
    async with site_on(server, namespace) as site, producing(site) as producer:
        await Dispatch(site.redis, site.keys).open()
        await limit(site, concurrency=6, per_group=2, rate=400.0, burst=40)
        workers = [start_worker(penstock, server, namespace, concurrency=4) for _ in range(3)]
        floor, jobs = Floor(site), set[str]()
        for number in range(150):
            what = chance.choice((Nap(0.02), Echo(number), Flaky(1), Hopeless()))
            options: dict[str, Any] = {"group": chance.choice("abcd")} if number % 4 else {}
            if number % 5 == 0:
                options["unique"] = Unique(chance.choice("uvw"), life=2.0, replace=number % 2 == 0)
            if number % 7 == 0:
                options["delay"] = 0.1
            if number % 11 == 0:
                options["ttl"] = 0.2
            jobs.add(position(await producer.submit(what, **options)))
            if number % 10 == 9:
                job = chance.choice(sorted(jobs))
                await floor.control.cancel([await floor.standing(job)], by="ada")
            if number % 10 == 5:
                job = chance.choice(sorted(jobs))
                await floor.control.requeue([await floor.standing(job)], by="ada")
            match number:
                case 40 | 110:
                    workers.pop().signal(signal.SIGKILL)
                    workers.append(start_worker(penstock, server, namespace, concurrency=4))
                case 70:
                    await limit(site, concurrency=8, per_group=3)
                case 80:
                    server.kill()
                    server.start()
                    await eventually(lambda: answers_again(site), 30, "it is back")

        async def all_ended() -> bool:
            return all(job and job.state in TERMINAL for job in (await site.jobs()).values())

        await eventually(all_ended, 30, "all end", pause=0.1)
        await settled(site)
        assert (await most_at_once(site))[""] <= 8
        await site.consistent(jobs)
