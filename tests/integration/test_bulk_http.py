"""Many at once and retention as people meet them: HTTP, the command line, a worker process that may die."""

import json
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from apis import KEY, KEYS, problems
from commands import Command
from penstock.core.settings import Settings
from processes import JOB, Site, dismiss, eventually, exit_code
from projectors import projecting

WAIT = 30


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, api_keys=KEYS, jobs=("jobs_for_tests",), retention_completed=0.01)


@pytest.fixture
async def api(settings: Settings, api: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """With a projector beside the API."""
    api.headers["Authorization"] = f"Bearer {KEY}"
    async with projecting(settings):
        yield api


@pytest.fixture
async def site(settings: Settings, redis: Redis) -> Site:
    site = Site(settings, redis, "test")
    await site.dispatch.open()
    return site


async def ended(api: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    told: dict[str, Any] = (await api.get(f"/jobs/penstock/{job_id}", params={"wait": WAIT})).json()
    assert told["finished_at"], told
    return told


async def begin(api: httpx.AsyncClient, status: int = 202, **order: Any) -> str:
    """Order something; answers the operation's id."""
    answer = await api.post("/bulk", json=order)
    assert answer.status_code == status, answer.text
    assert answer.headers["location"] == f"/jobs/penstock/{answer.json()['id']}"
    return str(answer.json()["id"])


async def under_way(api: httpx.AsyncClient, job_id: str) -> None:
    """Wait until an operation has done something."""

    async def some() -> bool:
        progress = (await api.get(f"/jobs/penstock/{job_id}")).json()["progress"]
        return bool(progress and progress["data"]["done"])

    await eventually(some, WAIT, f"{job_id} has done something")


async def counts(site: Site) -> dict[str, int]:
    """Events of the log by tag."""
    found: dict[str, int] = {}
    for event in await site.events():
        found[event.tag] = found.get(event.tag, 0) + 1
    return found


async def test_an_operation_is_looked_at_first_then_run_and_is_a_job_of_whoever_asked(
    api: httpx.AsyncClient, site: Site, operator: Callable[[], Command]
) -> None:
    jobs = await site.put(*[JOB] * 300)
    order = {"act": "cancel", "filter": {"queue": "test", "type": "test.echo"}}
    looked = (await api.post("/bulk", json={**order, "dry_run": True})).json()
    assert (looked["count"], looked["complete"], len(looked["samples"])) == (300, True, 10)
    assert looked["samples"][0]["id"] == site.keys.job_id(jobs[0])
    assert "cancelled" not in await counts(site)
    running = operator()
    headers = {"Idempotency-Key": "spring cleaning"}
    first = await api.post("/bulk", json=order, headers=headers)
    again = await api.post("/bulk", json=order, headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    told = await ended(api, first.json()["id"])
    assert (told["state"], told["type"], told["by"]) == ("completed", "penstock.bulk", "alice")
    assert told["result"] == {"looked": 300, "matched": 300, "done": 300}
    assert (await site.bodies(jobs[0], "cancelled"))[0]["by"] == "alice"
    assert (await counts(site))["cancelled"] == 300
    await dismiss(running)


async def test_an_order_that_makes_no_sense_is_refused_and_nothing_is_written(
    api: httpx.AsyncClient, site: Site
) -> None:
    async def refused(**order: Any) -> dict[str, str]:
        return problems(await api.post("/bulk", json=order), 422)

    assert "is empty" in (await refused(act="retry", filter={}))["filter"]
    [words] = (await refused(act="retry", filter={"state": "waiting"})).values()
    assert "does not apply to waiting jobs" in words
    assert set(await refused(act="burn", filter={"queue": "test", "state": "old"})) == {
        "act",
        "filter.state",
    }
    assert (await api.post("/bulk", content="{}")).status_code == 415
    assert (await api.post("/bulk", json={}, headers={"Authorization": ""})).status_code == 401
    assert (await api.get("/jobs/penstock")).status_code == 404


async def test_an_operation_survives_its_process_and_acts_on_each_job_once(
    api: httpx.AsyncClient, site: Site, operator: Callable[[], Command]
) -> None:
    for _ in range(10):
        await site.put(*[JOB] * 1000)
    first = operator()
    operation = await begin(api, act="cancel", filter={"queue": "test"})
    await under_way(api, operation)
    first.signal(signal.SIGKILL)
    await exit_code(first)
    done = (await counts(site))["cancelled"]
    assert 0 < done < 10_000
    second = operator()
    told = await ended(api, operation)
    assert told["state"] == "completed"
    assert told["result"]["done"] == 10_000 - done
    assert (await counts(site)) == {"submitted": 10_000, "cancelled": 10_000}
    await dismiss(second)


async def test_an_operation_can_be_stopped_and_what_is_done_is_done(
    api: httpx.AsyncClient, site: Site, operator: Callable[[], Command]
) -> None:
    for _ in range(15):
        await site.put(*[JOB] * 1000)
    running = operator()
    operation = await begin(api, act="cancel", filter={"queue": "test"})
    await under_way(api, operation)
    assert (await api.post(f"/jobs/penstock/{operation}/cancel")).status_code == 200
    assert (await ended(api, operation))["state"] == "cancelled"
    await dismiss(running)  # and so it does nothing any more
    assert 0 < (await counts(site))["cancelled"] < 15_000


async def test_what_is_kept_no_longer_answers_404_and_says_why(
    api: httpx.AsyncClient, site: Site, penstock: Callable[..., Command], settings: Settings
) -> None:
    [job, waiting] = await site.put(JOB, JOB)
    answer = await api.put("/queues/test/retention", json={"cancelled": 0.01, "failed": 5})
    assert answer.json() == {
        "queue": "test",
        "changed": True,
        "retention": {"completed": 0.0, "failed": 5.0, "cancelled": 0.01},
    }
    path = f"/jobs/test/{site.keys.job_id(job)}"
    assert (await api.post(f"{path}/cancel")).status_code == 200

    async def gone() -> bool:
        return (await api.get(path)).status_code == 404

    await eventually(gone, WAIT, "the job is gone")
    assert "kept no longer" in (await api.get(path)).json()["detail"]
    assert (await api.post(f"{path}/retry")).status_code == 404

    async def trimmed() -> bool:
        return bool((await api.get("/queues/test")).json()["trimmed"].get("cancelled") == 1)

    await eventually(trimmed, WAIT, "the figures say so")
    found = (await api.get("/queues/test")).json()
    assert (found["totals"]["submitted"], found["counts"]["cancelled"]) == (2, 0)
    assert found["retention"] == {"failed": 5.0, "cancelled": 0.01, "by": "alice"}
    listed = (await api.get("/jobs/test")).json()["jobs"]
    assert [row["id"] for row in listed] == [site.keys.job_id(waiting)]
    assert "failed" in problems(await api.put("/queues/test/retention", json={"failed": -1}), 422)
    assert (await api.put("/queues/none/retention", json={})).status_code == 404
    environ = {"PENSTOCK_API_PORT": settings.api_port, "PENSTOCK_API_KEYS": f"alice:{KEY}"}
    command = penstock("retain", "test", "--failed", "60", "--json", **environ)
    assert await exit_code(command) == 0, command.output
    assert json.loads(command.output)["retention"]["failed"] == 60


async def test_many_at_once_from_the_command_line(
    api: httpx.AsyncClient,
    site: Site,
    operator: Callable[[], Command],
    penstock: Callable[..., Command],
    settings: Settings,
) -> None:
    async def ask(*words: str, code: int = 0) -> str:
        environ = {"PENSTOCK_API_PORT": settings.api_port, "PENSTOCK_API_KEYS": f"alice:{KEY}"}
        command = penstock("bulk", *words, **environ)
        assert await exit_code(command) == code, command.output
        return command.output

    jobs = await site.put(JOB, JOB, JOB)
    looked = await ask("cancel", "--queue", "test", "--dry-run")
    assert "count" in looked
    assert site.keys.job_id(jobs[0]) in looked
    running = operator()
    done = json.loads(await ask("cancel", "--queue", "test", "--wait", "20", "--json"))
    assert done["result"]["done"] == 3
    assert "is empty" in await ask("cancel", code=2)
    assert "give a priority" in await ask("reprioritize", "--tag", "a", code=2)
    await dismiss(running)
