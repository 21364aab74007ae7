"""Jobs and queues do what they are told over HTTP, and who told them stands in the log."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from apis import KEY, KEYS, OTHER_KEY, problems
from jobs_for_tests import Attentive, Block, Echo, Gate, Hang, Hopeless, Nap, Tidy
from penstock.core.contracts import declaration
from penstock.core.settings import Settings
from processes import Site, eventually, working

ALICE = {"Authorization": f"Bearer {KEY}"}
BOB = {"Authorization": f"Bearer {OTHER_KEY}"}
WAIT = 30
COMMANDS = ("cancel", "retry", "promote")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, api_keys=KEYS, queues=("test",), lease=1.0, concurrency=4)


@pytest.fixture
def api(api: httpx.AsyncClient) -> httpx.AsyncClient:
    api.headers.update(ALICE)
    return api


@pytest.fixture
def site(settings: Settings, redis: Redis) -> Site:
    return Site(settings, redis, "test")


async def submit(api: httpx.AsyncClient, payload: msgspec.Struct, **options: Any) -> str:
    """Submit a job; answers its path."""
    declared = declaration(type(payload))
    body = {"type": declared.type, "payload": msgspec.to_builtins(payload), **options}
    answer = await api.post(f"/jobs/{declared.queue}", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


async def ended(api: httpx.AsyncClient, job: str) -> dict[str, Any]:
    """The job after its end."""
    told: dict[str, Any] = (await api.get(job, params={"wait": WAIT})).json()
    assert told["finished_at"], told
    return told


async def until_state(api: httpx.AsyncClient, job: str, state: str) -> None:
    async def reached() -> bool:
        return bool((await api.get(job)).json()["state"] == state)

    await eventually(reached, WAIT, f"{job} is {state}")


async def last_event(api: httpx.AsyncClient, job: str) -> tuple[str, dict[str, Any]]:
    event = (await api.get(f"{job}/events")).json()["events"][-1]
    return event["event"], event["data"]


def told_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    return told


def conflict(answer: httpx.Response, says: str) -> None:
    """409 as a problem that says why."""
    assert problems(answer, 409) == {}
    assert says in answer.json()["detail"]
    assert answer.json()["type"] == "urn:penstock:problem:wrong-state"


@pytest.mark.parametrize("delay", [0, 3600])
async def test_what_waits_is_cancelled(api: httpx.AsyncClient, site: Site, delay: float) -> None:
    job = await submit(api, Echo(1), delay=delay)
    told = told_of(await api.post(f"{job}/cancel", json={"reason": "withdrawn"}), 200)
    assert told == {
        "id": job.rpartition("/")[2],
        "queue": "test",
        "state": "cancelled",
        "was_running": False,
    }
    assert await last_event(api, job) == ("cancelled", {"by": "alice", "reason": "withdrawn"})
    async with working(site.settings):
        await ended(api, await submit(api, Echo(2)))
    await site.consistent()


@pytest.mark.parametrize(("kind", "said"), [(Tidy, "cleaned up"), (Attentive, "noticed")])
async def test_a_running_handler_is_told_and_may_clean_up(
    api: httpx.AsyncClient,
    site: Site,
    tmp_path: Path,
    kind: Callable[[str], msgspec.Struct],
    said: str,
) -> None:
    note = tmp_path / "note"
    async with working(site.settings):
        job = await submit(api, kind(str(note)))
        await until_state(api, job, "active")
        assert told_of(await api.post(f"{job}/cancel"), 200)["was_running"]
        assert (await api.get(job)).json()["state"] == "cancelled"

        async def noted() -> bool:
            return note.exists() and note.read_text() == said

        await eventually(noted, WAIT, "the handler notices")
        conflict(await api.post(f"{job}/cancel"), "is over: cancelled")
    await site.consistent()


async def test_a_handler_in_a_process_is_ended(api: httpx.AsyncClient, site: Site, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    async with working(site.settings):
        job = await submit(api, Hang(str(note), seconds=60))

        async def begun() -> bool:
            return note.exists() and note.read_text().isdigit()

        await eventually(begun, 30, "the process begins")
        assert told_of(await api.post(f"{job}/cancel"), 200)["was_running"]

        async def gone() -> bool:
            try:
                os.kill(int(note.read_text()), 0)
            except ProcessLookupError:
                return True
            return False

        await eventually(gone, WAIT, "the process ends")
    await site.consistent()


async def test_a_failed_job_runs_again_under_its_id(api: httpx.AsyncClient, site: Site) -> None:
    job = await submit(api, Hopeless())
    async with working(site.settings):
        assert (await ended(api, job))["state"] == "failed"
    again = await api.post(f"{job}/retry", headers=BOB)
    assert told_of(again, 202)["state"] == "waiting"
    assert again.headers["location"] == job
    tag, data = await last_event(api, job)
    assert (tag, data["by"]) == ("requeued", "bob")
    conflict(await api.post(f"{job}/retry"), "has not ended: it is waiting")
    async with working(site.settings):
        assert (await ended(api, job))["attempt"] == 1
    assert await site.tags(job.rpartition(".")[2]) == [
        "submitted",
        *("started", "failed", "requeued"),
        *("started", "failed"),
    ]


async def test_with_another_payload_a_new_job_is_linked_to_the_first(
    api: httpx.AsyncClient, site: Site
) -> None:
    first = await submit(api, Block(-1), priority="high", tags=["blue"], attempts=1)
    conflict(await api.post(f"{first}/retry", json={"payload": {"seconds": 0}}), "has not ended")
    async with working(site.settings):
        assert (await ended(api, first))["state"] == "failed"
        wrong = await api.post(f"{first}/retry", json={"payload": {"seconds": "soon"}})
        assert set(problems(wrong, 422)) == {"payload.seconds"}
        once = {"Idempotency-Key": "again-1"}
        answer = await api.post(f"{first}/retry", json={"payload": {"seconds": 0}}, headers=once)
        second = answer.headers["location"]
        assert told_of(answer, 202)["id"] == second.rpartition("/")[2] != first.rpartition("/")[2]
        known = await api.post(f"{first}/retry", json={"payload": {"seconds": 0}}, headers=once)
        assert told_of(known, 200)["id"] == answer.json()["id"]
        job = await ended(api, second)
    assert (job["state"], job["payload"], job["origin"]) == (
        "completed",
        {"seconds": 0},
        first.rpartition("/")[2],
    )
    assert (job["priority"], job["tags"], job["attempts"], job["by"]) == ("high", ["blue"], 1, "alice")
    assert (await api.get(first)).json()["state"] == "failed"


async def test_a_delayed_job_is_promoted(api: httpx.AsyncClient, site: Site) -> None:
    job = await submit(api, Echo("now"), delay=3600)
    assert told_of(await api.post(f"{job}/promote"), 200)["state"] == "waiting"
    tag, data = await last_event(api, job)
    assert (tag, data) == ("rescheduled", {"at_once": True, "by": "alice"})
    conflict(await api.post(f"{job}/promote"), "waits for a worker already")
    async with working(site.settings):
        assert (await ended(api, job))["result"] == "now"
    conflict(await api.post(f"{job}/promote"), "is over: completed")
    await site.consistent()


async def test_the_time_of_a_job_is_changed_until_it_starts(
    api: httpx.AsyncClient, site: Site, tmp_path: Path
) -> None:
    job = await submit(api, Gate(str(tmp_path / "gate")))
    assert told_of(await api.patch(job, json={"delay": 3600}), 200)["state"] == "delayed"
    moment = datetime.now(UTC) + timedelta(days=2)
    assert told_of(await api.patch(job, json={"run_at": moment.isoformat()}), 200)["state"] == "delayed"
    ready = datetime.fromisoformat((await api.get(job)).json()["ready_at"])
    assert abs(ready - moment) < timedelta(milliseconds=2)
    assert told_of(await api.patch(job, json={"delay": 0}), 200)["state"] == "waiting"
    async with working(site.settings):
        await until_state(api, job, "active")
        conflict(await api.patch(job, json={"delay": 1}), "has started")
        conflict(await api.post(f"{job}/promote"), "has started")
        (tmp_path / "gate").touch()
        await ended(api, job)
        conflict(await api.patch(job, json={"priority": "high"}), "is over: completed")
    await site.consistent()


async def test_a_waiting_job_gets_ahead_by_its_priority(api: httpx.AsyncClient, site: Site) -> None:
    slow = [await submit(api, Nap(0)) for _ in range(3)]
    urgent = await submit(api, Echo(1))
    assert told_of(await api.patch(urgent, json={"priority": "high"}), 200)["state"] == "waiting"
    assert (await api.get(urgent)).json()["priority"] == "high"
    async with working(msgspec.structs.replace(site.settings, concurrency=1)):
        for job in [*slow, urgent]:
            await ended(api, job)
    begun = [event.job for event in await site.events() if event.tag == "started"]
    assert begun[0] == urgent.rpartition(".")[2]
    await site.consistent()


async def test_a_delayed_job_gets_a_priority_only_with_a_time(api: httpx.AsyncClient) -> None:
    job = await submit(api, Echo(1), delay=3600)
    conflict(await api.patch(job, json={"priority": "low"}), "when due it goes before all lanes")
    told_of(await api.patch(job, json={"priority": "low", "delay": 7200}), 200)
    assert (await api.get(job)).json()["priority"] == "low"


async def test_a_paused_queue_gives_out_nothing(api: httpx.AsyncClient, site: Site) -> None:
    assert told_of(await api.post("/queues/test/pause"), 200) == {
        "queue": "test",
        "changed": True,
        "paused": True,
    }
    assert told_of(await api.post("/queues/test/pause"), 200)["changed"] is False
    job = await submit(api, Echo(1))
    async with working(site.settings):
        assert (await api.get(job, params={"wait": 0.3})).json()["state"] == "waiting"
        assert told_of(await api.post("/queues/test/resume", headers=BOB), 200)["paused"] is False
        assert (await ended(api, job))["result"] == 1
    facts = [(event.tag, event.body) for event in await site.events() if event.tag.startswith("queue_")]
    assert facts == [("queue_paused", b'{"by":"alice"}'), ("queue_resumed", b'{"by":"bob"}')]


async def test_limits_are_set_as_a_whole(api: httpx.AsyncClient, site: Site) -> None:
    told = told_of(await api.put("/queues/test/limits", json={"concurrency": 1, "backlog": 1_234_567}), 200)
    assert told["changed"]
    assert told["limits"]["backlog"] == 1_234_567
    async with working(site.settings):
        jobs = [await submit(api, Nap(0.05)) for _ in range(4)]
        for job in jobs:
            await ended(api, job)
    running = most = 0
    for event in await site.events():
        running += {"started": 1, "completed": -1}.get(event.tag, 0)
        most = max(most, running)
    assert most == 1
    assert await site.redis.hget(site.keys.control, "backlog") == b"1234567"
    told_of(await api.put("/queues/test/limits", json={"backlog": 2}), 200)
    assert not await site.redis.hexists(site.keys.control, "concurrency")
    for _ in range(2):
        await submit(api, Echo(1))
    full = await api.post("/jobs/test", json={"type": "test.echo", "payload": {}})
    assert problems(full, 429) == {}
    assert full.headers["retry-after"]


async def test_a_queue_is_drained_of_all_that_waits(
    api: httpx.AsyncClient, site: Site, tmp_path: Path
) -> None:
    async with working(site.settings):
        running = await submit(api, Gate(str(tmp_path / "gate")))
        await until_state(api, running, "active")
        await api.post("/queues/test/pause")
        rows = [{"type": "test.echo", "payload": {}, "delay": 3600 * (n % 2)} for n in range(900)]
        rows += [{"type": "test.echo", "payload": {}, "priority": "high"} for n in range(50)]
        told_of(await api.post("/jobs/test/batch", json=rows), 202)
        told = told_of(await api.post("/queues/test/drain"), 200)
        assert told == {"queue": "test", "cancelled": 950, "more": False}
        assert told_of(await api.post("/queues/test/drain"), 200)["cancelled"] == 0
        assert (await api.get(running)).json()["state"] == "active"
        (tmp_path / "gate").touch()
        await ended(api, running)
    stories = await site.consistent()
    reasons = {event.body for told in stories.values() for event in told if event.tag == "cancelled"}
    assert reasons == {b'{"by":"alice","reason":"the queue was drained"}'}


async def test_what_is_not_there_is_404(api: httpx.AsyncClient) -> None:
    known = await submit(api, Echo(1))
    unknown = ["/jobs/test/test.0.1795477369681-0", "/jobs/test/nonsense", known.replace("/test/", "/email/")]
    for job in unknown:
        for act in COMMANDS:
            assert problems(await api.post(f"{job}/{act}"), 404) == {}
        assert problems(await api.patch(job, json={"delay": 1}), 404) == {}
    for act in ("pause", "resume", "drain"):
        assert problems(await api.post(f"/queues/nosuch/{act}"), 404) == {}
    assert problems(await api.put("/queues/nosuch/limits", json={}), 404) == {}
    assert problems(await api.post("/workers/nobody/drain"), 404) == {}


@pytest.mark.parametrize(
    ("method", "path", "body", "wrong"),
    [
        ("PATCH", "", {}, {""}),
        ("PATCH", "", {"delay": 1, "run_at": 5}, {"delay"}),
        ("PATCH", "", {"delay": -1, "priority": "urgent"}, {"delay", "priority"}),
        ("PATCH", "", {"run_at": "2030-01-01T00:00:00"}, {"run_at"}),
        ("PATCH", "", {"when": 1}, {"when"}),
        ("POST", "/cancel", {"reason": 5}, {"reason"}),
        ("POST", "/retry", {"payloads": {}}, {"payloads"}),
        ("PUT", "/limits", {"rate": -1, "concurrency": 1.5}, {"rate", "concurrency"}),
        ("PUT", "/limits", {"burst": 5}, {"burst"}),
        ("PUT", "/limits", {"rate": 1e-320}, {"rate"}),
    ],
)
async def test_a_wrong_field_is_named(
    api: httpx.AsyncClient, method: str, path: str, body: dict[str, Any], wrong: set[str]
) -> None:
    job = await submit(api, Echo(1))
    target = "/queues/test/limits" if method == "PUT" else f"{job}{path}"
    assert set(problems(await api.request(method, target, json=body), 422)) == wrong
    assert (await api.get(job)).json()["state"] == "waiting"


async def test_a_body_that_is_no_json_is_refused(api: httpx.AsyncClient) -> None:
    job = await submit(api, Echo(1))
    as_json = {"content-type": "application/json"}
    assert problems(await api.patch(job, content=b"{", headers=as_json), 400) == {}
    assert problems(await api.patch(job, content=b"{}", headers={"content-type": "text/plain"}), 415) == {}
    assert problems(await api.patch(job, content=b"[" * 70_000, headers=as_json), 413) == {}


async def test_without_a_key_nothing_is_told(api: httpx.AsyncClient, site: Site) -> None:
    job = await submit(api, Echo(1))
    nobody = {"Authorization": ""}
    for act in COMMANDS:
        assert problems(await api.post(f"{job}/{act}", headers=nobody), 401) == {}
    assert problems(await api.patch(job, json={"delay": 1}, headers=nobody), 401) == {}
    for act in ("pause", "resume", "drain"):
        assert problems(await api.post(f"/queues/test/{act}", headers=nobody), 401) == {}
    assert problems(await api.put("/queues/test/limits", json={}, headers=nobody), 401) == {}
    assert problems(await api.get("/workers", headers=nobody), 401) == {}
    assert problems(await api.post("/workers/any/drain", headers=nobody), 401) == {}
    assert [event.tag for event in await site.events()] == ["submitted"]
