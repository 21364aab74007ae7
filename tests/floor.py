"""Workers played by hand, on a real server: each call is one script call, so that a test decides who
comes first. `Floor` submits, takes, reports, gives commands, and `check` compares all that the
scripts keep beside the lanes with what the lanes and the log say."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from penstock.core.contracts import Priority
from penstock.core.control import Control, Standing, extra_of, standing
from penstock.core.dispatch import LANE_NUMBER, Arrival, Cycle, Delivery, Finished, Submission
from penstock.core.events import Submitted, encode
from penstock.core.keys import GROUP, PARKED
from processes import Site, site_on
from servers import RealServer

LEASE_MS: Final = 60_000
CRASH_LIMIT: Final = 3
ENDS: Final = {
    "failed": b'{"reason":"permanent","error":"E","message":"m"}',
    "attempt_failed": b'{"attempt":1,"error":"E","message":"m","delay":0}',
    "released": b'{"worker":"w","reason":"r"}',
}


def done(it: Delivery, body: bytes = b'{"ms":1.0}') -> Finished:
    """The attempt came to its result."""
    return Finished("completed", it.lane, it.entry, it.attempt, it.job, body)


def ended(outcome: Any, it: Delivery, delay_ms: int = 0) -> Finished:
    """It ended otherwise."""
    return Finished(outcome, it.lane, it.entry, it.attempt, it.job, ENDS[outcome], delay_ms)


def names(deliveries: list[Delivery]) -> list[str]:
    """The jobs of deliveries."""
    return [it.job.decode() for it in deliveries]


class Floor:
    """One queue and whoever works on it."""

    def __init__(self, site: Site) -> None:
        self.site: Final = site
        self.keys: Final = site.keys
        # Any: the types of redis-py are unions of all that it could answer.
        self.redis: Final[Any] = site.redis
        self.dispatch: Final = site.dispatch
        self.control: Final = Control(site.redis, site.keys)
        self._batches = 0

    async def enter(self, *workers: str) -> None:
        for worker in workers:
            await self.dispatch.beat(worker, LEASE_MS, enter=True)

    async def put(
        self, count: int = 1, *, when: str = "", lane: Priority = "normal", **options: Any
    ) -> list[str]:
        """Submit jobs with the options of `submission`, in one batch."""
        return await self.send([submission(when=when, lane=lane, **options) for _ in range(count)])

    async def send(self, jobs: list[Submission], producer: str = "floor") -> list[str]:
        """One batch; answers the jobs' positions, known ones too."""
        self._batches += 1
        accepted = await self.dispatch.submit(jobs, producer=producer, batch=self._batches, once_ms=60_000)
        return [it.position for it in accepted]

    async def take(self, worker: str = "w1", want: int = 100) -> list[Delivery]:
        return (await self.dispatch.cycle(worker, want)).deliveries

    async def report(self, *finished: Finished, worker: str = "w1", want: int = 0) -> Cycle:
        return await self.dispatch.cycle(worker, want, finished=finished)

    async def arrive(self, worker: str = "w1") -> list[Arrival]:
        """What the blocking read of a worker brings: at most one entry of each lane."""
        streams = dict.fromkeys(self.keys.lanes[:3], ">")
        lanes = [key.encode() for key in self.keys.lanes]
        found = await self.redis.xreadgroup(GROUP, worker, streams, count=1) or ()
        return [Arrival(lanes.index(lane) + 1, entries[0][0]) for lane, entries in found]

    async def silence(self, worker: str) -> None:
        """Make the worker's last sign of life older than its lease."""
        await self.redis.zadd(self.keys.workers, {worker: 1}, xx=True)

    async def reclaim(self, worker: str, limit: int = CRASH_LIMIT) -> tuple[int, int]:
        """The worker died, and was found out."""
        await self.silence(worker)
        return await self.dispatch.reclaim(worker, LEASE_MS, limit)

    async def standing(self, job: str) -> Standing:
        found = standing(await self.site.story(job))
        assert found is not None
        return found

    async def due(self, job: str) -> int | None:
        """When the job is due, in Unix ms; None if it has no time."""
        for entry in (await self.standing(job)).entries:
            for number in LANE_NUMBER.values():
                score = await self.redis.zscore(self.keys.due, f"{number}:{entry}")
                if score is not None:
                    return int(score)
        return None

    async def work_off(self, worker: str = "w1") -> list[str]:
        """Take and complete until nothing is given any more; the jobs, in the order of their starts."""
        order: list[str] = []
        deliveries = await self.take(worker, 10)
        while deliveries:
            order += names(deliveries)
            deliveries = (await self.report(*map(done, deliveries), worker=worker, want=10)).deliveries
        return order

    async def hash(self, name: str) -> dict[str, str]:
        found = await self.redis.hgetall(self.keys.prefix + name)
        return {field.decode(): value.decode() for field, value in found.items()}

    async def check(self, unnoted: int = 0) -> Counter[str]:
        """What the scripts keep agrees with the lanes; answers how many of each group run.

        `unnoted`: how many entries came by a blocking read and wait for their cycle.
        """
        groups: dict[str, str] = {}
        owners: dict[str, str] = {}
        for number, (lane, key) in enumerate(zip(LANE_NUMBER, self.keys.lanes, strict=True), 1):
            for entry, fields in await self.redis.xrange(key):
                told = dict(zip(fields[::2], fields[1::2], strict=True))
                groups[f"{number}:{entry.decode()}"] = told.get(b"group", b"").decode()
            for row_lane, entry, owner, _ in await self.site.pending():
                if row_lane == lane:
                    owners[f"{number}:{entry}"] = owner
        assert set(owners) <= set(groups), "a pending entry that is in no lane"
        due = {it.decode() for it in await self.redis.zrange(self.keys.due, 0, -1)}
        held = [it.decode().split("\x1f") for it in await self.redis.zrange(self.keys.prefix + "held", 0, -1)]
        held_members = {member.replace(" ", ""): name for name, member in held}
        parked = {member for member, owner in owners.items() if owner == PARKED}
        assert due | set(held_members) == parked
        assert not due & set(held_members), "an entry has a time and waits for its turn"
        assert all(groups[member] == name for member, name in held_members.items())
        turns = {it.decode() for it in await self.redis.zrange(self.keys.prefix + "turns", 0, -1)}
        assert turns == set(held_members.values())
        running = {member: groups[member] for member, owner in owners.items() if owner != PARKED}
        group_of = await self.hash("group_of")
        counted = {member: name for member, name in group_of.items() if member not in held_members}
        missed = {member for member, name in running.items() if name and member not in counted}
        assert set(counted) <= set(running), "an entry counts that does not run"
        assert len(missed) <= unnoted
        assert Counter(counted.values()) == {name: int(n) for name, n in (await self.hash("groups")).items()}
        return Counter(name for name in counted.values())


def submission(
    *,
    when: str = "",
    lane: Priority = "normal",
    key: str = "",
    life_ms: int = 60_000,
    replace: bool = False,
    **options: Any,
) -> Submission:
    """One job; `options` are fields of its `submitted` event."""
    options.setdefault("type", "test.echo")
    options["payload"] = msgspec.Raw(options.get("payload", b"{}"))
    if when.startswith("+"):
        options["delay"] = int(when) / 1000
    elif when:
        options["run_at"] = int(when)
    body = Submitted(priority=lane, key=key, **options)
    unique = {"unique": body.unique, "life": life_ms, "replace": replace} if body.unique else {}
    return Submission(lane, encode(body), when, key, extra_of(body, **unique))


@asynccontextmanager
async def floor_on(server: RealServer, namespace: str, *workers: str) -> AsyncIterator[Floor]:
    """A floor with these workers on it."""
    async with site_on(server, namespace) as site:
        floor = Floor(site)
        await site.dispatch.open()
        await floor.enter(*workers)
        yield floor
