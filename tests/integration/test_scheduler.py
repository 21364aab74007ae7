"""Schedules on real servers: each tick gets one job, whatever races and whatever is killed between any
two steps. Time is turned by hand, from the server's own clock on.
"""

import asyncio
import random
from collections import Counter
from typing import Any, Final

import msgspec
import pytest
from redis.asyncio import Redis

import jobs_for_tests  # noqa: F401 (their contracts)
from penstock.core.control import Control, standing
from penstock.core.errors import InvalidJob, NotFound
from penstock.core.events import as_builtins
from penstock.core.keys import Keys
from penstock.core.lifecycle import TERMINAL
from penstock.core.log import Log
from penstock.core.positions import parse_job_id
from penstock.core.sealing import is_sealed
from penstock.core.settings import Secret
from penstock.core.story import tell
from penstock.producer.schedules.asking import ScheduleRequest, read_request
from penstock.producer.schedules.clock import server_clock
from penstock.producer.schedules.facts import KEPT, LEDGER
from penstock.producer.schedules.keeping import keep
from penstock.producer.schedules.ledger import Ledger
from penstock.producer.schedules.scheduler import STALE_S, Scheduler
from penstock.producer.schedules.schedules import Schedules
from processes import Site, eventually, site_on, working
from servers import RealServer

MINUTE: Final = 60_000


class TurnedClock:
    """The server's clock, and so much."""

    def __init__(self, redis: Redis) -> None:
        self._server = server_clock(redis)
        self.ahead = 0

    async def __call__(self) -> int:
        return await self._server() + self.ahead

    async def turn_to(self, moment: int) -> None:
        """Make it this time, or a little later."""
        self.ahead = moment - await self._server()


class Stage:
    """A namespace with schedules, a clock to turn, and as many schedulers as a test likes."""

    def __init__(self, site: Site, now: int) -> None:
        self.site = site
        self.clock = TurnedClock(site.redis)
        self.first = (now // MINUTE + 2) * MINUTE
        self.schedules = Schedules(site.redis, site.settings, clock=self.clock)

    def scheduler(self, redis: Any = None) -> Scheduler:
        return Scheduler(redis or self.site.redis, self.site.settings, clock=self.clock)

    def request(self, **told: Any) -> ScheduleRequest:
        """Once a minute from `first` on unless said otherwise, with a small job."""
        rhythm = {} if "cron" in told else {"every": 60, "start": self.first}
        job = {"type": "test.echo", "payload": {"value": 1}, **told.pop("job", {})}
        return read_request(msgspec.json.encode({**rhythm, **told, "job": job}))

    async def turn_to(self, number: int, ms: int = 0) -> None:
        """To the time of a tick, the first being 0, or so many ms later."""
        await self.clock.turn_to(self.tick(number) + ms)

    def tick(self, number: int) -> int:
        return self.first + number * MINUTE

    async def told(self) -> list[tuple[str, dict[str, Any]]]:
        """All decisions, in order."""
        events = await Log(self.site.redis, Keys(self.site.settings.namespace).ledger(LEDGER)).page(
            "0-0", 10**6
        )
        return [(it.tag, as_builtins(it)) for it in events if it.tag not in KEPT]

    async def fired(self) -> list[str]:
        return [body["tick"] for tag, body in await self.told() if tag == "schedule_fired"]

    async def skipped(self) -> list[str]:
        return [body["reason"] for tag, body in await self.told() if tag == "schedule_skipped"]

    async def submitted(self) -> list[str]:
        """The ticks that jobs were submitted for, in the order of the log."""
        bodies = [as_builtins(it) for it in await self.site.events() if it.tag == "submitted"]
        return [body["key"].rsplit(":", 1)[1] for body in bodies]

    async def end(self, job_id: str) -> None:
        """Let a job be over."""
        _, _, position = parse_job_id(job_id)
        job = standing(await tell(self.site.redis, self.site.keys, position))
        assert job is not None
        await Control(self.site.redis, self.site.keys).cancel([job], by="test")

    async def last_job(self, name: str = "s") -> str:
        return (await self.schedules.get(name)).last_job


@pytest.fixture
async def stage(site: Site) -> Stage:
    return Stage(site, await server_clock(site.redis)())


async def test_a_tick_is_submitted_once_when_its_time_has_come(stage: Stage) -> None:
    await stage.schedules.set("s", stage.request(overlap="allow", job={"priority": "high"}), by="alice")
    scheduler = stage.scheduler()
    await stage.turn_to(0, -20_000)
    await scheduler.step()
    assert await stage.submitted() == []
    for number in range(3):
        await stage.turn_to(number)
        await scheduler.step()
        await scheduler.step()
    due = [str(stage.tick(number)) for number in range(3)]
    assert await stage.submitted() == due
    assert await stage.fired() == due
    body = as_builtins(next(it for it in await stage.site.events() if it.tag == "submitted"))
    assert (body["by"], body["priority"], body["payload"]) == ("schedule:s", "high", {"value": 1})
    jobs = [parse_job_id(body["job"]).position for tag, body in await stage.told() if tag == "schedule_fired"]
    assert jobs == [it.position for it in await stage.site.events() if it.tag == "submitted"]


async def test_the_server_says_when_to_look_again(stage: Stage) -> None:
    await stage.schedules.set("s", stage.request(), by="alice")
    await stage.turn_to(0, -700)
    assert 0.3 < await stage.scheduler().step() <= 0.7


async def test_schedulers_that_race_fire_each_tick_once(stage: Stage) -> None:
    names = [f"s{number}" for number in range(5)]
    for name in names:
        await stage.schedules.set(name, stage.request(overlap="allow"), by="alice")
    schedulers = [stage.scheduler() for _ in range(3)]
    for number in range(6):
        await stage.turn_to(number)
        await asyncio.gather(*(one.step() for one in schedulers))
    due = Counter({str(stage.tick(number)): len(names) for number in range(6)})
    assert Counter(await stage.submitted()) == due
    assert Counter(await stage.fired()) == due
    assert [tag for tag, _ in await stage.told() if tag == "schedule_due"] == ["schedule_due"] * due.total()


class Killed(Exception):
    """The process ends here."""


class Mortal:
    """A connection that dies before or after one of its commands: what was sent may have been done."""

    def __init__(self, redis: Redis, dice: random.Random) -> None:
        self._redis, self._dice = redis, dice

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        fate = self._dice.random()
        if fate < 0.06:
            raise Killed
        answer = await self._redis.execute_command(*words, **options)  # type: ignore[no-untyped-call]
        if fate > 0.94:
            raise Killed
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("overlap", ["allow", "queue", "cancel"])
async def test_schedulers_killed_at_random_points_fire_each_tick_once(
    stage: Stage, overlap: str, seed: int
) -> None:
    dice = random.Random(seed)
    await stage.schedules.set("s", stage.request(overlap=overlap, catch_up="all"), by="alice")
    deaths = 0

    async def live_and_die() -> None:
        nonlocal deaths
        try:
            await stage.scheduler(Mortal(stage.site.redis, dice)).step()
        except Killed:
            deaths += 1

    for number in range(12):
        await stage.turn_to(number)
        await asyncio.gather(live_and_die(), live_and_die())
    due = [str(stage.tick(number)) for number in range(12)]
    await stage.scheduler().step()
    while overlap == "queue" and (await stage.schedules.get("s")).waiting:
        await stage.end(await stage.last_job())
        await stage.scheduler().step()
    assert deaths > 5
    told = await stage.told()
    superseded = [str(body["first"]) for tag, body in told if body.get("reason") == "superseded"]
    assert sorted([*await stage.submitted(), *superseded]) == due
    assert await stage.fired() == await stage.submitted()
    live = [job for job in (await stage.site.jobs()).values() if job and job.state not in TERMINAL]
    if overlap == "cancel":
        assert len(live) == 1


@pytest.mark.parametrize(("catch_up", "late"), [("none", []), ("last", [10]), ("all", [6, 7, 8, 9, 10])])
async def test_after_a_stop_the_policy_decides(stage: Stage, catch_up: str, late: list[int]) -> None:
    asked = stage.request(catch_up=catch_up, overlap="allow", limit=5, window=3600)
    await stage.schedules.set("s", asked, by="alice")
    await stage.turn_to(10, 30_000)
    ticks = [str(stage.tick(number)) for number in range(11)]
    # The tick of half a minute ago is on time for all but `last`, where it stands for all of them.
    expected = [ticks[number] for number in late] if catch_up != "none" else [ticks[10]]
    if catch_up == "all":
        expected = ticks[5:]
    await stage.scheduler().step()
    assert await stage.submitted() == expected
    [(_, missed)] = [one for one in await stage.told() if one[0] == "schedule_skipped"]
    assert (missed["reason"], missed["first"], missed["until"]) == ("missed", stage.first, int(expected[0]))
    await stage.turn_to(11)
    await stage.scheduler().step()
    assert (await stage.submitted())[-1] == str(stage.tick(11))


async def test_what_was_missed_before_the_window_is_not_made_up_for(stage: Stage) -> None:
    await stage.schedules.set(
        "s", stage.request(catch_up="all", overlap="allow", window=300, limit=500), by="alice"
    )
    await stage.turn_to(600)
    await stage.scheduler().step()
    assert await stage.submitted() == [str(stage.tick(number)) for number in range(596, 601)]


async def test_skip_leaves_out_ticks_while_the_job_is_not_over(stage: Stage) -> None:
    await stage.schedules.set("s", stage.request(overlap="skip"), by="alice")
    scheduler = stage.scheduler()
    for number in range(3):
        await stage.turn_to(number)
        await scheduler.step()
    assert await stage.submitted() == [str(stage.first)]
    assert await stage.skipped() == ["overlap", "overlap"]
    assert (await stage.schedules.get("s")).last.job == await stage.last_job()  # type: ignore[union-attr]
    await stage.end(await stage.last_job())
    await stage.turn_to(3)
    await scheduler.step()
    assert await stage.submitted() == [str(stage.first), str(stage.tick(3))]


async def test_queue_lets_each_tick_wait_for_the_job_before(stage: Stage) -> None:
    await stage.schedules.set("s", stage.request(overlap="queue"), by="alice")
    scheduler = stage.scheduler()
    for number in range(3):
        await stage.turn_to(number)
        assert await scheduler.step() <= 2.0
    assert await stage.submitted() == [str(stage.first)]
    assert (await stage.schedules.get("s")).waiting == 2
    assert await scheduler.step() <= 0.5
    for number in (1, 2):
        await stage.end(await stage.last_job())
        await scheduler.step()
        assert await stage.submitted() == [str(stage.tick(each)) for each in range(number + 1)]


async def test_cancel_ends_the_old_job_for_the_new_one(stage: Stage) -> None:
    await stage.schedules.set("s", stage.request(overlap="cancel"), by="alice")
    scheduler = stage.scheduler()
    for number in range(2):
        await stage.turn_to(number)
        await scheduler.step()
    [old, new] = (await stage.site.stories()).values()
    assert [it.tag for it in old] == ["submitted", "cancelled"]
    assert [it.tag for it in new] == ["submitted"]
    assert as_builtins(old[1]) == {"by": "schedule:s", "reason": "its schedule runs again"}


async def test_a_paused_schedule_does_not_tick_and_goes_on_from_where_it_is_resumed(stage: Stage) -> None:
    await stage.schedules.set("s", stage.request(overlap="allow", catch_up="all"), by="alice")
    assert await stage.schedules.pause("s", by="bob")
    assert not await stage.schedules.pause("s", by="bob")
    await stage.turn_to(1)
    await stage.scheduler().step()
    assert await stage.submitted() == []
    assert (await stage.schedules.get("s")).next == []
    stage.clock.ahead = 0
    assert await stage.schedules.resume("s", by="bob")
    await stage.turn_to(0)
    await stage.scheduler().step()
    assert await stage.submitted() == [str(stage.first)]


async def test_a_trigger_runs_once_for_its_key_paused_or_not(stage: Stage) -> None:
    await stage.schedules.set("s", stage.request(overlap="skip"), by="alice")
    await stage.schedules.pause("s", by="alice")
    for _ in range(2):
        await stage.schedules.trigger("s", by="bob", key="once")
    await asyncio.gather(stage.scheduler().step(), stage.scheduler().step())
    await stage.schedules.trigger("s", by="bob")
    await stage.scheduler().step()
    assert len(await stage.submitted()) == 2


async def test_setting_the_same_changes_nothing_and_another_payload_loses_no_tick(stage: Stage) -> None:
    assert await stage.schedules.set("s", stage.request(overlap="allow"), by="alice") == "created"
    assert await stage.schedules.set("s", stage.request(overlap="allow"), by="bob") == "same"
    await stage.turn_to(0)
    changed = stage.request(overlap="allow", job={"payload": {"value": 2}})
    assert await stage.schedules.set("s", changed, by="bob") == "changed"
    await stage.scheduler().step()
    assert await stage.submitted() == [str(stage.first)]
    assert [tag for tag, _ in await stage.told()].count("schedule_set") == 2
    assert (await stage.schedules.get("s")).job["payload"] == {"value": 2}


async def test_what_was_decided_runs_in_the_queue_it_was_decided_for(stage: Stage) -> None:
    """A scheduler dies between decision and submission, and the schedule is set to something else."""
    await stage.schedules.set("s", stage.request(), by="alice")
    await stage.turn_to(0)
    scheduler = stage.scheduler()
    await scheduler.ledger.refresh()
    assert await scheduler._decide()
    await stage.schedules.set("s", stage.request(job={"type": "other.echo", "payload": {}}), by="alice")
    await stage.scheduler().step()
    assert await stage.submitted() == [str(stage.first)]
    assert await stage.site.redis.xlen(Keys(stage.site.settings.namespace).partition("other").log) == 0


async def test_jitter_moves_the_job_and_is_the_same_for_all(stage: Stage) -> None:
    await stage.schedules.set("s", stage.request(jitter=30, overlap="allow"), by="alice")
    for number in range(8):
        await stage.turn_to(number)
        await asyncio.gather(stage.scheduler().step(), stage.scheduler().step())
    bodies = [as_builtins(it) for it in await stage.site.events() if it.tag == "submitted"]
    waits = [body["run_at"] - stage.tick(number) for number, body in enumerate(bodies)]
    assert len(bodies) == 8
    assert all(0 <= wait < 30_000 for wait in waits)
    assert len(set(waits)) > 4


async def test_a_full_queue_holds_up_no_other_and_its_ticks_wait(stage: Stage) -> None:
    from penstock.core.events import QueueLimited

    await stage.schedules.set("s", stage.request(overlap="allow"), by="alice")
    await stage.schedules.set("t", stage.request(job={"type": "other.echo", "payload": {}}), by="alice")
    await stage.site.put('{"type":"test.echo","payload":{}}')
    await Control(stage.site.redis, stage.site.keys).limit(QueueLimited(backlog=1))
    await stage.turn_to(0)
    assert await stage.scheduler().step() <= 1.0
    assert await stage.last_job("t")
    assert (await stage.schedules.get("s")).waiting == 1
    await Control(stage.site.redis, stage.site.keys).limit(QueueLimited())
    await stage.scheduler().step()
    assert (await stage.schedules.get("s")).waiting == 0


async def test_what_waits_for_a_day_is_given_up_and_says_so(stage: Stage) -> None:
    """Longer than its key is remembered nothing may be submitted again."""
    await stage.schedules.set("s", stage.request(overlap="queue", catch_up="none"), by="alice")
    for number in range(2):
        await stage.turn_to(number)
        await stage.scheduler().step()
    await stage.schedules.pause("s", by="alice")
    await stage.turn_to(2, round(STALE_S * 1000))
    await stage.scheduler().step()
    assert await stage.submitted() == [str(stage.first)]
    assert await stage.skipped() == ["stale"]
    assert (await stage.schedules.get("s")).waiting == 0


async def test_a_ledger_that_is_kept_short_tells_the_same(stage: Stage) -> None:
    for name in ("a", "b", "gone"):
        await stage.schedules.set(name, stage.request(overlap="queue", catch_up="all"), by="alice")
    await stage.schedules.pause("b", by="bob")
    scheduler = stage.scheduler()
    lengths = []
    for number in range(40):
        if number == 20:
            await stage.schedules.remove("gone", by="bob")
        await stage.turn_to(number)
        await scheduler.step()
        before = dict((await scheduler.ledger.refresh()).standings)
        await keep(scheduler.ledger, limit=10)
        fresh = Ledger(stage.site.redis, stage.site.settings.namespace)
        assert (await fresh.refresh()).standings == before
        lengths.append(await stage.site.redis.xlen(fresh.keys.log))
    assert set(before) == {"a", "b"}
    assert max(lengths) < 50
    await stage.end(await stage.last_job("a"))
    await stage.scheduler().step()
    assert len(await stage.submitted()) == 3


async def test_a_lost_ledger_is_begun_anew(stage: Stage) -> None:
    """The server came back without its data: what this process knows is not there any more."""
    scheduler = stage.scheduler()
    await stage.schedules.set("s", stage.request(overlap="allow"), by="alice")
    await scheduler.step()
    await stage.site.redis.delete(scheduler.ledger.keys.log, scheduler.ledger.keys.epoch)
    with pytest.raises(NotFound):
        await stage.schedules.pause("s", by="alice")
    assert (await scheduler.ledger.refresh()).standings == {}
    assert await stage.schedules.set("s", stage.request(overlap="allow"), by="alice") == "created"
    await stage.turn_to(0)
    await scheduler.step()
    assert await stage.submitted() == [str(stage.first)]


async def test_the_history_is_read_in_pages_and_outlives_the_schedule(stage: Stage) -> None:
    await stage.schedules.set("other", stage.request(), by="alice")
    await stage.schedules.set("s", stage.request(), by="alice")
    for _ in range(3):
        await stage.schedules.pause("s", by="alice")
        await stage.schedules.resume("s", by="alice")
    await stage.schedules.remove("s", by="bob")
    page = await stage.schedules.events("s", limit=3)
    assert [it.event for it in page.events] == ["schedule_removed", "schedule_resumed", "schedule_paused"]
    assert page.next is not None
    rest = await stage.schedules.events("s", before=page.next, limit=10)
    assert [it.event for it in rest.events][-1] == "schedule_set"
    assert (len(rest.events), rest.next) == (5, None)
    for act in (stage.schedules.get, stage.schedules.events):
        with pytest.raises(NotFound):
            await act("never")


async def test_a_sealed_payload_is_sealed_in_the_ledger_and_opened_by_the_worker(
    server: RealServer, namespace: str
) -> None:
    keys = Secret("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    async with site_on(server, namespace, payload_keys=keys) as site:
        stage = Stage(site, await server_clock(site.redis)())
        await stage.schedules.set("s", stage.request(overlap="allow"), by="alice")
        assert await stage.schedules.set("s", stage.request(overlap="allow"), by="alice") == "same"
        [(_, body)] = await stage.told()
        assert is_sealed(body["schedule"]["job"]["payload"])
        assert (await stage.schedules.get("s")).job["payload"] == {"sealed": True}
        assert (await stage.schedules.get("s", reveal=True)).job["payload"] == {"value": 1}
        [shown] = (await stage.schedules.events("s")).events
        assert shown.data["schedule"]["job"]["payload"] == {"sealed": True}
        await stage.schedules.trigger("s", by="alice")
        await stage.scheduler().step()
        async with working(site.settings):
            [job] = await site.stories()
            await site.until(job, "completed")


async def test_a_scheduler_runs_until_it_is_stopped_and_sees_what_is_set_meanwhile(stage: Stage) -> None:
    """With the server's own clock: an interval of a second."""
    stop = asyncio.Event()
    scheduler = Scheduler(stage.site.redis, stage.site.settings)
    running = asyncio.create_task(scheduler.run(stop))
    await stage.schedules.set("s", stage.request(every=1, start=None, overlap="allow"), by="alice")

    async def ticked() -> bool:
        return len(await stage.fired()) >= 2

    await eventually(ticked, 30, "two ticks")
    stop.set()
    await asyncio.wait_for(running, 5)
    positions = [it.position for it in await stage.site.events() if it.tag == "submitted"]
    for position, tick in zip(positions, await stage.submitted(), strict=True):
        assert 0 <= int(position.split("-")[0]) - int(tick) < 500


async def test_wrong_fields_are_all_named(stage: Stage) -> None:
    wrong = stage.request(
        cron="61 * * * *", tz="Mars/Base", start=5, end=3, job={"payload": {"value": 1, "x": 2}}
    )
    with pytest.raises(InvalidJob) as refused:
        await stage.schedules.set("s", wrong, by="alice")
    assert {it.path for it in refused.value.problems} == {"cron", "tz", "end"}
    with pytest.raises(InvalidJob) as refused:
        await stage.schedules.set("s", stage.request(job={"type": "test.nap", "payload": {}}), by="alice")
    assert {it.path for it in refused.value.problems} == {"job.payload.seconds"}
    with pytest.raises(InvalidJob):
        await stage.schedules.set("No Name", stage.request(), by="alice")
    with pytest.raises(InvalidJob, match="never"):
        await stage.schedules.set("s", stage.request(start=None, end=5), by="alice")
    assert (await stage.schedules.all()).schedules == []
