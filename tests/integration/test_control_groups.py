"""Limits over all workers, and groups that take turns: never above, exact in any interleaving, fair."""

import random
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from floor import Floor, done, ended, floor_on, names, submission
from penstock.core.dispatch import Arrival, Delivery
from penstock.core.events import QueueLimited
from penstock.core.keys import PARKED
from penstock.core.lifecycle import fold_all
from servers import RealServer

ON_A_SERVER = settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


async def limit(floor: Floor, **limits: Any) -> None:
    assert await floor.control.limit(QueueLimited(**limits, by="ada"))


# Any interleaving

ACTS = ("submit", "take", "arrive", "end", "reclaim", "release", "cancel", "requeue", "reschedule")


class Shift:
    """Two workers and everybody's commands, drawn one after the other; all is checked after each."""

    def __init__(self, floor: Floor, seed: int, per_group: int, concurrency: int) -> None:
        self.floor = floor
        self.chance = random.Random(seed)
        self.per_group, self.concurrency = per_group, concurrency
        self.jobs: list[str] = []
        self.running: dict[str, list[Delivery]] = {"w1": [], "w2": []}
        self.arrivals: dict[str, list[Arrival]] = {"w1": [], "w2": []}

    async def act(self, what: str) -> None:
        await getattr(self, what)(self.chance.choice(("w1", "w2")))
        running = await self.floor.check(unnoted=sum(map(len, self.arrivals.values())))
        assert max((n for name, n in running.items() if name), default=0) <= self.per_group
        rows = [row for row in await self.floor.site.pending() if row[2] != PARKED]
        assert len(rows) - sum(map(len, self.arrivals.values())) <= self.concurrency

    async def submit(self, _: str) -> None:
        batch = [
            submission(
                group=self.chance.choice(("", "a", "b", "c")),
                when=self.chance.choice(("", "", "", "+1", "+60000")),
                lane=self.chance.choice(("high", "normal", "low")),
                unique=self.chance.choice(("", "", "u1", "u2")),
                replace=self.chance.random() < 0.5,
                ttl=self.chance.choice((0, 0, 0, 0.001)),
            )
            for _ in range(self.chance.randint(1, 6))
        ]
        self.jobs += await self.floor.send(batch)

    async def take(self, worker: str) -> None:
        arrivals, self.arrivals[worker] = self.arrivals[worker], []
        cycle = await self.floor.dispatch.cycle(worker, self.chance.randint(0, 4), arrivals=arrivals)
        assert cycle.alive
        self.running[worker] += cycle.deliveries

    async def arrive(self, worker: str) -> None:
        self.arrivals[worker] += await self.floor.arrive(worker)

    async def end(self, worker: str) -> None:
        self.chance.shuffle(self.running[worker])
        ends = [self.running[worker].pop() for _ in range(min(len(self.running[worker]), 2))]
        outcomes = ("completed", "completed", "failed", "attempt_failed", "released")
        finished = [
            done(it) if outcome == "completed" else ended(outcome, it, 60_000 * (outcome == "attempt_failed"))
            for it in ends
            for outcome in [self.chance.choice(outcomes)]
        ]
        arrivals, self.arrivals[worker] = self.arrivals[worker], []
        want = self.chance.randint(0, 3)
        cycle = await self.floor.dispatch.cycle(worker, want, finished=finished, arrivals=arrivals)
        self.running[worker] += cycle.deliveries

    async def reclaim(self, worker: str) -> None:
        """Its process was killed; it comes back with nothing in its hands."""
        await self.floor.reclaim(worker)
        await self.floor.enter(worker)
        self.running[worker], self.arrivals[worker] = [], []

    async def release(self, worker: str) -> None:
        """It knows of what it runs, and gives back what only the server thinks it has."""
        kept = [it for it in self.running[worker] if self.chance.random() < 0.5]
        self.running[worker], self.arrivals[worker] = kept, []
        runs = [b"%d:%b" % (it.lane, it.entry) for it in kept]
        await self.floor.dispatch.release(worker, "lost on the way", running=runs)

    async def cancel(self, _: str) -> None:
        for job in self._some():
            await self.floor.control.cancel([await self.floor.standing(job)], by="ada")

    async def requeue(self, _: str) -> None:
        for job in self._some():
            await self.floor.control.requeue([await self.floor.standing(job)], by="ada")

    async def reschedule(self, _: str) -> None:
        how: dict[str, Any] = self.chance.choice(
            (
                {"at_once": True},
                {"delay": 60.0},
                {"priority": "high"},
                {"priority": "low", "at_once": True},
                {"run_at": 1},
            )
        )
        for job in self._some():
            await self.floor.control.reschedule([await self.floor.standing(job)], by="ada", **how)

    def _some(self) -> list[str]:
        return self.chance.sample(self.jobs, min(2, len(self.jobs)))

    async def finish(self) -> None:
        """Everything that is left is brought to its end."""
        for worker in ("w1", "w2"):
            await self.floor.dispatch.release(worker, "the shift is over")
        open_jobs = [
            job
            for job, events in (await self.floor.site.stories()).items()
            if (it := fold_all(events)) is not None and it.state == "delayed"
        ]
        for job in open_jobs:
            await self.floor.control.reschedule([await self.floor.standing(job)], by="ada", at_once=True)
        for worker in ("w1", "w2"):
            await self.floor.dispatch.beat(worker, 60_000)
        await self.floor.work_off()


@ON_A_SERVER
@given(
    st.lists(st.sampled_from(ACTS), max_size=40),
    st.integers(0, 2**32),
    st.integers(1, 3),
    st.integers(1, 6),
)
async def test_limits_hold_and_accounts_are_exact_in_any_interleaving(
    server: RealServer, acts: list[str], seed: int, per_group: int, concurrency: int
) -> None:
    async with floor_on(server, f"t{uuid4().hex[:12]}", "w1", "w2") as floor:
        await limit(floor, per_group=per_group, concurrency=concurrency)
        shift = Shift(floor, seed, per_group, concurrency)
        for what in ("submit", *acts):
            await shift.act(what)
        await shift.finish()
        await floor.site.consistent(shift.jobs)


# Fairness. The bound, for groups that wait (have an entry that is due and room to run), as long as no
# more jobs wait than are looked at (64 and what is wanted): between two starts of one group every other
# group that waits all the while starts exactly once.


def rounds(starts: list[str], left: Counter[str]) -> None:
    """Check the bound. `starts`: whose turn it was; `left`: how many of each group waited at first."""
    assert Counter(starts) == left
    for at, name in enumerate(starts):
        left = left - Counter([name])
        following = starts[at + 1 :]
        if name in following:
            between = Counter(following[: following.index(name)])
            later = Counter(following[following.index(name) :])
            waiting = {other for other in left if other != name and (between[other] or later[other])}
            assert between == Counter(waiting), (starts, at)


@ON_A_SERVER
@given(st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=1, max_size=60), st.integers(1, 3))
async def test_with_one_slot_groups_start_in_turn_whatever_their_backlogs(
    server: RealServer, backlog: list[str], per_group: int
) -> None:
    async with floor_on(server, f"t{uuid4().hex[:12]}", "w1") as floor:
        await limit(floor, per_group=per_group)
        jobs = await floor.send([submission(group=name) for name in backlog])
        group_of = dict(zip(jobs, backlog, strict=True))
        order, deliveries = [], await floor.take(want=1)
        while deliveries:
            order += names(deliveries)
            deliveries = (await floor.report(*map(done, deliveries), want=1)).deliveries
        rounds([group_of[job] for job in order], Counter(backlog))
        for name in set(backlog):
            assert [job for job in order if group_of[job] == name] == [
                job for job in jobs if group_of[job] == name
            ]
        await floor.site.consistent(jobs)


@ON_A_SERVER
@given(st.integers(0, 2**32), st.integers(2, 4), st.integers(1, 2))
@example(10876, 4, 2)  # a group's only job starts, and its next one comes after two of another
async def test_who_frees_a_slot_last_does_not_matter(
    server: RealServer, seed: int, slots: int, per_group: int
) -> None:
    """Several slots, ends in any order, jobs come meanwhile: a group with room that waits from one start
    of another group to that group's next but one has started in between."""
    chance = random.Random(seed)
    async with floor_on(server, f"t{uuid4().hex[:12]}", "w1") as floor:
        await limit(floor, per_group=per_group)
        group_of: dict[str, str] = {}
        starts: list[str] = []
        had_room: list[set[str]] = []
        running: list[Delivery] = []
        for step in range(40):
            if step < 20:
                fresh = [chance.choice("abcd") for _ in range(chance.randint(0, 3))]
                sent = await floor.send([submission(group=name) for name in fresh]) if fresh else []
                group_of.update(zip(sent, fresh, strict=True))
            chance.shuffle(running)
            finished = [running.pop()] if running else []
            waiting = Counter(group_of.values()) - Counter(starts)
            busy = Counter(group_of[it.job.decode()] for it in running)
            able = {name for name in waiting if busy[name] < per_group}
            cycle = await floor.report(*map(done, finished), want=slots - len(running))
            # Nobody waits in vain: what is free goes to those who may run.
            assert len(cycle.deliveries) == min(
                slots - len(running), sum(min(waiting[name], per_group - busy[name]) for name in able)
            )
            running += cycle.deliveries
            for group in (group_of[job] for job in names(cycle.deliveries)):
                starts.append(group)
                had_room.append({name for name in able if waiting[name] > 0 and busy[name] < per_group})
                waiting[group] -= 1
                busy[group] += 1
        for name in "abcd":
            mine = [at for at, it in enumerate(starts) if it == name]
            for first, third in zip(mine, mine[2:], strict=False):
                for other in set.intersection(*had_room[first : third + 1]) - {name}:
                    assert other in starts[first : third + 1], (starts, first, third, other)
        assert await floor.check() == Counter(group_of[it.job.decode()] for it in running)


async def test_a_long_backlog_hides_the_others_no_longer_than_it_takes_to_sort_it(floor: Floor) -> None:
    await limit(floor, per_group=1)
    await floor.put(300, group="a")
    (small,) = await floor.put(group="b")
    starts, deliveries = 0, await floor.take(want=1)
    while small not in names(deliveries):
        starts += 1
        deliveries = (await floor.report(*map(done, deliveries), want=1)).deliveries
    assert starts <= 300 // 64 + 2


async def test_a_hundred_full_groups_do_not_hide_the_one_with_room(floor: Floor) -> None:
    await limit(floor, per_group=1)
    full = [f"g{number}" for number in range(100)]
    await floor.send([submission(group=name) for name in [*full, "z"]])
    running = [it for _ in range(4) for it in await floor.take(want=200)]
    assert len(running) == 101
    await floor.send([submission(group=name) for name in full])
    (last,) = await floor.put(group="z")
    assert await floor.take("w2", want=200) == []
    z = next(it for it in running if it.job == running[-1].job)
    assert names((await floor.report(done(z), want=1)).deliveries) == [last]


async def test_a_cycle_gives_few_in_turn_and_says_that_there_is_more(floor: Floor) -> None:
    await limit(floor, per_group=100)
    await floor.put(70, group="a")
    cycles = [await floor.dispatch.cycle("w1", 100) for _ in range(3)]
    assert [len(cycle.deliveries) for cycle in cycles] == [32, 32, 6]
    assert [cycle.held for cycle in cycles] == [True, True, False]
    assert cycles[0].again_ms == 2


async def test_the_jobs_of_a_group_start_in_the_order_of_their_lane_and_log(floor: Floor) -> None:
    """A batch of one millisecond has positions that end in -9, -10, …: their text sorts otherwise."""
    await limit(floor, per_group=1)
    low = await floor.put(3, group="a", lane="low")
    normal = await floor.put(25, group="a")
    high = await floor.put(2, group="a", lane="high")
    assert await floor.work_off() == [*high, *normal, *low]


async def test_a_retry_and_a_delayed_job_wait_for_their_turn_too(floor: Floor) -> None:
    await limit(floor, per_group=1)
    (first,) = await floor.put(group="a")
    (it,) = await floor.take(want=1)
    (second,) = await floor.put(group="a", when="1")
    (third,) = await floor.put(group="a")
    assert await floor.take("w2") == []
    again = await floor.report(ended("attempt_failed", it), want=5)
    assert len(again.deliveries) == 1
    assert await floor.check() == Counter(a=1)
    order = [*names(again.deliveries)]
    deliveries = (await floor.report(*map(done, again.deliveries), want=5)).deliveries
    while deliveries:
        assert len(deliveries) == 1
        order += names(deliveries)
        deliveries = (await floor.report(*map(done, deliveries), want=5)).deliveries
    assert sorted(order) == sorted([first, second, third])
    assert [body["attempt"] for body in await floor.site.bodies(first, "started")] == [1, 2]
    await floor.site.consistent([first, second, third])


# When the limit changes


async def test_a_higher_limit_lets_held_jobs_go_at_the_next_cycle(floor: Floor) -> None:
    await limit(floor, per_group=1)
    jobs = await floor.put(5, group="a")
    assert names(await floor.take()) == jobs[:1]
    await limit(floor, per_group=3)
    assert names(await floor.take("w2")) == jobs[1:3]
    assert await floor.take("w2") == []
    assert await floor.check() == Counter(a=3)


async def test_without_the_limit_all_held_jobs_go_and_nothing_is_kept(floor: Floor) -> None:
    await limit(floor, per_group=1)
    jobs = await floor.put(5, group="a")
    running = await floor.take()
    plain = await floor.put(2)
    await limit(floor)
    rest = await floor.take("w2")
    assert sorted(names(rest)) == sorted([*jobs[1:], *plain])
    await floor.report(*map(done, running))
    await floor.report(*map(done, rest), worker="w2")
    await floor.site.consistent([*jobs, *plain])


async def test_a_limit_counts_what_ran_before_it_was_set(floor: Floor) -> None:
    jobs = await floor.put(4, group="a")
    running = await floor.take(want=3)
    await limit(floor, per_group=2)
    assert await floor.take("w2") == []
    assert (await floor.report(done(running[0]), want=5)).deliveries == []
    last = await floor.report(done(running[1]), want=5)
    assert names(last.deliveries) == jobs[3:]
    await floor.report(done(running[2]), *map(done, last.deliveries))
    await floor.site.consistent(jobs)


async def test_a_lower_limit_waits_for_those_that_run(floor: Floor) -> None:
    await limit(floor, per_group=3)
    jobs = await floor.put(5, group="a")
    running = await floor.take()
    await limit(floor, per_group=1)
    for it in running[:2]:
        assert (await floor.report(done(it), want=5)).deliveries == []
    after = await floor.report(done(running[2]), want=5)
    assert names(after.deliveries) == jobs[3:4]


# No leak, whatever becomes of the job that ran


@pytest.mark.parametrize(
    "end", ["failed", "cancelled", "reclaimed", "given up", "released", "retried", "late"]
)
async def test_a_group_has_room_again_after(floor: Floor, end: str) -> None:
    await limit(floor, per_group=1)
    first, _ = await floor.put(2, group="a")
    (it,) = await floor.take(want=1)
    assert await floor.take("w2") == []
    match end:
        case "failed":
            await floor.report(ended("failed", it))
        case "cancelled":
            assert await floor.control.cancel([await floor.standing(first)], by="ada") == ["running"]
        case "reclaimed" | "late":
            assert await floor.reclaim("w1") == (1, 0)
        case "given up":
            assert await floor.reclaim("w1", limit=1) == (0, 1)
        case "released":
            await floor.report(ended("released", it, 60_000))
        case "retried":
            await floor.report(ended("attempt_failed", it, 60_000))
    if end == "late":
        # Found dead, it was only slow: its result counts, and frees no second place.
        await floor.report(done(it))
    assert await floor.check() == Counter()
    assert len(await floor.take("w2")) == 1
    assert await floor.check() == Counter(a=1)


async def test_a_cancelled_held_job_leaves_nothing_behind(floor: Floor) -> None:
    await limit(floor, per_group=1)
    jobs = await floor.put(3, group="a")
    (it,) = await floor.take()
    standings = [await floor.standing(job) for job in jobs[1:]]
    assert await floor.control.cancel(standings, by="ada") == ["waiting", "waiting"]
    await floor.check()
    await floor.report(done(it))
    await floor.site.consistent(jobs)
