"""Schedules over HTTP and on the command line, with a real scheduler behind."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from apis import KEY, KEYS, partition, problems
from commands import Command
from penstock.core.connection import connect
from penstock.core.settings import Settings
from penstock.producer.schedules.scheduler import Scheduler
from processes import TESTS
from servers import RealServer, wait_until

NIGHTLY: dict[str, Any] = {
    "cron": "0 3 * * *",
    "tz": "Europe/Berlin",
    "job": {"type": "ai.language", "payload": {"text": "Good night"}, "tags": ["night"]},
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, api_keys=KEYS)


@pytest.fixture
def api(api: httpx.AsyncClient) -> httpx.AsyncClient:
    api.headers["X-API-Key"] = KEY
    return api


async def test_a_schedule_is_created_changed_shown_and_removed(api: httpx.AsyncClient) -> None:
    created = await api.put("/schedules/nightly", json=NIGHTLY)
    assert created.status_code == 201, created.text
    told = created.json()
    assert (told["name"], told["queue"], told["set_by"], told["paused"]) == ("nightly", "ai", "alice", False)
    assert len(told["next"]) == 3
    assert told["job"]["payload"] == {"text": "Good night"}
    assert (await api.put("/schedules/nightly", json=NIGHTLY)).status_code == 200
    changed = await api.put("/schedules/nightly", json={**NIGHTLY, "overlap": "queue"})
    assert (changed.status_code, changed.json()["overlap"]) == (200, "queue")
    assert (await api.get("/schedules")).json() == {"schedules": [changed.json()]}
    assert (await api.get("/schedules/nightly")).json() == changed.json()
    assert (await api.delete("/schedules/nightly")).status_code == 204
    assert (await api.delete("/schedules/nightly")).status_code == 404
    assert (await api.get("/schedules/nightly")).status_code == 404
    history = (await api.get("/schedules/nightly/events", params={"limit": 2})).json()
    assert [it["event"] for it in history["events"]] == ["schedule_removed", "schedule_set"]
    older = await api.get("/schedules/nightly/events", params={"before": history["next"]})
    assert [it["data"]["by"] for it in older.json()["events"]] == ["alice"]
    assert older.json()["next"] is None


async def test_a_preview_tells_the_ticks_and_all_that_is_wrong_and_writes_nothing(
    api: httpx.AsyncClient,
) -> None:
    async def preview(name: str, **changes: Any) -> tuple[list[str], dict[str, str]]:
        answer = await api.post(f"/schedules/{name}/preview", json={**NIGHTLY, **changes})
        assert answer.status_code == 200, answer.text
        return answer.json()["next"], {it["path"]: it["message"] for it in answer.json()["errors"]}

    ticks, wrong = await preview("nightly")
    assert (len(ticks), wrong) == (3, {})
    assert (await api.get("/schedules")).json() == {"schedules": []}
    job = {"type": "ai.language", "payload": {}}
    assert await preview("Nightly", job=job) == (
        ticks,
        {"name": "give up to 100 of a-z, 0-9, dot, - and _", "job.payload.text": "this field is required"},
    )
    ticks, wrong = await preview("nightly", cron="0 25 * * *")
    assert (ticks, [*wrong]) == ([], ["cron"])


async def test_pause_resume_and_trigger(api: httpx.AsyncClient, settings: Settings) -> None:
    await api.put("/schedules/nightly", json=NIGHTLY)
    paused = (await api.post("/schedules/nightly/pause")).json()
    assert (paused["paused"], paused["next"]) == (True, [])
    for _ in range(2):
        told = await api.post("/schedules/nightly/trigger", headers={"Idempotency-Key": "now"})
        assert told.status_code == 202
    async with connect(settings) as redis:
        assert told.json()["waiting"] == 1
        await Scheduler(redis, settings).step()
        assert await redis.xlen(partition(settings, "ai").log) == 1
    resumed = (await api.post("/schedules/nightly/resume")).json()
    assert (resumed["paused"], len(resumed["next"])) == (False, 3)
    assert resumed["last"]["event"] == "schedule_fired"
    job = (await api.get(f"/jobs/ai/{resumed['last_job']}")).json()
    assert (job["id"], job["payload"], job["tags"]) == (
        resumed["last_job"],
        {"text": "Good night"},
        ["night"],
    )


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"cron": "0 25 * * *"}, "cron"),
        ({"every": 5}, "cron"),
        ({"cron": ""}, "cron"),
        ({"tz": "Berlin/Europe"}, "tz"),
        ({"overlap": "maybe"}, "overlap"),
        ({"sometimes": True}, "sometimes"),
        ({"end": "2001-01-01T00:00:00Z"}, "cron"),
        ({"job": {"type": "ai.language", "payload": {"txt": ""}}}, "job.payload.text"),
        ({"job": {"type": "nobody.knows", "payload": {}}}, "job.type"),
        ({"job": {"type": "ai.language", "payload": {"text": "x"}, "key": "mine"}}, "job.key"),
        ({"job": {"type": "ai.language", "payload": {"text": "x"}, "queue": "email"}}, "job.type"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_set(
    api: httpx.AsyncClient, change: dict[str, Any], path: str
) -> None:
    refused = await api.put("/schedules/nightly", json={**NIGHTLY, **change})
    assert path in problems(refused, 422)
    assert (await api.get("/schedules")).json() == {"schedules": []}


async def test_names_bodies_and_cursors_that_are_none(api: httpx.AsyncClient) -> None:
    assert "name" in problems(await api.put("/schedules/Nightly", json=NIGHTLY), 422)
    malformed = await api.put("/schedules/n", content=b"{", headers={"Content-Type": "application/json"})
    assert malformed.status_code == 400
    assert (await api.put("/schedules/n", content=b"x")).status_code == 415
    assert (await api.get("/schedules/n/events", params={"before": "yesterday"})).status_code == 400
    for act in ("pause", "resume", "trigger"):
        assert (await api.post(f"/schedules/n/{act}")).status_code == 404


OWN_JOBS = """
import msgspec
from penstock.core import contract
from penstock.producer.schedules import schedule

@contract("greet.person")
class Greet(msgspec.Struct):
    name: str

schedule("hello", every=1, overlap="allow", priority="high")(Greet(name="Ada"))
"""


def test_schedules_of_the_code_are_set_by_the_scheduler_and_seen_on_the_command_line(
    penstock: Callable[..., Command], server: RealServer, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "ownjobs.py").write_text(OWN_JOBS)
    environ = {
        "PENSTOCK_REDIS_URL": server.url,
        "PENSTOCK_NAMESPACE": settings.namespace,
        "PENSTOCK_API_PORT": settings.api_port,
        "PENSTOCK_JOBS": "ownjobs",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(TESTS.parent / "infra/src")]),
    }
    penstock("api", **environ).says("API on")
    schedulers = [penstock("scheduler", **environ) for _ in range(2)]
    for scheduler in schedulers:
        scheduler.says("ready: 1 schedules")

    def run(*words: str) -> Any:
        command = penstock("schedules", *words, **environ)
        assert command.wait() == 0, command.output
        return command.output

    def fired() -> int:
        told = json.loads(run("events", "hello", "--limit", "500", "--json"))
        ticks = [it["data"]["tick"] for it in told if it["event"] == "schedule_fired"]
        assert len(ticks) == len(set(ticks))
        return len(ticks)

    wait_until(lambda: fired() >= 1, 30, "it ticks")
    [hello] = json.loads(run("list", "--json"))
    assert (hello["set_by"], hello["every"], hello["job"]["priority"]) == ("code", 1.0, "high")
    schedulers[0].process.kill()
    before = fired()
    wait_until(lambda: fired() > before, 30, "the other one goes on")
    assert "hello" in run("pause", "hello")
    assert "paused" in run("list").splitlines()[1]
    run("set", "daily", "greet.person", '{"name": "Bob"}', "--cron", "@daily", "--tz", "Asia/Tokyo")
    assert "@daily Asia/Tokyo" in run("list")
    assert "removed" in run("remove", "daily")
    told = [it["event"] for it in json.loads(run("events", "hello", "--json"))]
    assert told.count("schedule_set") == 1
