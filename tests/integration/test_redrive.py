"""Redriving on real servers: what is submitted again, changed and checked, and that no job is doubled however
often it is begun."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest
from msgspec.structs import replace

import jobs_for_tests
from apis import KEY, KEYS, api_settings, problems
from commands import Command
from histories import folded, until
from penstock.core.keys import Keys
from penstock.core.positions import packed
from penstock.core.settings import Secret, Settings
from penstock.core.story import find
from penstock.projections.search import Match, Search, Sought
from penstock.ui.redriving import Redriven
from processes import dismiss, eventually, exit_code
from redrives import Scene, scene_on
from servers import RealServer

WAIT: Final = 30
SEAL: Final = "b2xkIGtleSwgb2YgdGhpcnR5LXR3byBieXRlcyBvay4="


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, api_keys=KEYS, jobs=("jobs_for_tests",))


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    async with scene_on(settings) as scene:
        yield scene


async def test_ended_jobs_are_submitted_again_as_new_ones_with_their_options(scene: Scene) -> None:
    options: dict[str, Any] = {
        "tags": ("vip",),
        "attempts": 2,
        "timeout": 7.0,
        "group": "g",
        "priority": "high",
    }
    [dead] = await scene.ended(1, **options, delay=0, unique="u", key="first", by="bob")
    [done] = await scene.ended(1, fail=False)
    outcome = await scene.redriven()
    assert (outcome.matched, outcome.sent, outcome.refused) == (1, 1, 0)
    [(_, copy)] = await scene.copies()
    assert copy.origin == scene.keys.job_id(dead)
    assert copy.key == f"redrive:again:{copy.origin}"
    assert (copy.by, copy.unique, copy.payload) == ("ada", "", msgspec.Raw(b'{"value":"a"}'))
    assert {name: getattr(copy, name) for name in options} == options
    assert (await scene.redriven("completed", state="completed")).sent == 1
    assert (await scene.copies())[-1][1].origin == scene.keys.job_id(done)
    assert await scene.tags(dead) == ["submitted", "started", "failed"], "the originals stay as they were"


async def test_begun_again_it_doubles_nothing_and_does_not_begin_with_its_own_copies(scene: Scene) -> None:
    await scene.ended(450)
    redriving = await scene.redriving()
    first, second = await asyncio.gather(*(redriving.run(lambda *_: None) for _ in range(2)))
    assert first.sent + second.sent == 450
    assert first.sent + first.known == second.sent + second.known == 450
    await scene.ended(0)  # works off what waits: the copies fail too
    assert (await scene.redriven()).sent == 0, "the same redrive, asked for later"
    assert len(await scene.copies()) == 450
    assert (await scene.redriven("another")).sent == 900, "another one takes all"


async def test_the_new_jobs_are_found_by_the_redrives_name_and_by_each_original(scene: Scene) -> None:
    originals = await scene.ended(3)
    await scene.redriven("outage: mail")
    await scene.ended(0)
    copies = [position for position, _ in await scene.copies()]
    await until(lambda: folded(scene.redis, scene.keys), "all is folded")

    async def found(origin: str) -> list[str]:
        search = Search(scene.redis, Keys(scene.settings.namespace), Sought(origin=origin), 100)
        told = [part async for part in search.run(["test"])]
        return [part.job.id for part in told if isinstance(part, Match)]

    assert await found("outage: mail") == [scene.keys.job_id(it) for it in reversed(copies)]
    assert await found(scene.keys.job_id(originals[0])) == [scene.keys.job_id(copies[0])]
    assert await found("outage") == []


async def test_it_goes_on_from_where_it_was(scene: Scene) -> None:
    jobs = await scene.ended(300)
    told: list[tuple[float, Redriven]] = []

    def report(fraction: float, so_far: Redriven) -> None:
        told.append((fraction, replace(so_far)))
        raise ConnectionError("the worker died")

    redriving = await scene.redriving()
    with pytest.raises(ConnectionError):
        await redriving.run(report)
    [(fraction, so_far)] = told
    assert (so_far.looked, so_far.sent, so_far.queue, so_far.after) == (200, 200, "test", jobs[199])
    assert fraction == pytest.approx(2 / 3)
    outcome = await redriving.run(lambda *_: None, so_far)
    assert (outcome.looked, outcome.sent, outcome.known) == (300, 300, 0)
    assert len(await scene.copies()) == 300


async def test_a_patch_changes_payloads_and_what_does_not_fit_is_named_and_not_sent(
    scene: Scene,
) -> None:
    nap: dict[str, Any] = {"type": "test.nap", "payload": {"seconds": 1}}
    [good] = await scene.ended(1, payload={"value": {"to": "a", "cc": "b"}})
    [bad] = await scene.ended(1, **nap)
    [strange] = await scene.ended(1, type="test.unheard-of")
    patch = {"value": {"to": "c", "cc": None}, "seconds": "soon"}
    preview = await scene.preview(patch=patch)
    assert (preview.count, preview.refused, preview.complete, preview.seconds) == (1, 2, True, None)
    assert [msgspec.to_builtins(it) for it in preview.samples[0].changes] == [
        {"path": "value.to", "before": "a", "after": "c"},
        {"path": "value.cc", "before": "b"},
        {"path": "seconds", "after": "soon"},
    ]
    assert await scene.copies() == [], "a dry run changes nothing"
    outcome = await scene.redriven(patch=patch)
    assert (outcome.matched, outcome.sent, outcome.refused) == (3, 1, 2)
    assert outcome.refusals == preview.refusals
    assert [it.id for it in outcome.refusals] == [scene.keys.job_id(it) for it in (bad, strange)]
    assert "payload.seconds: expected `float`, got `str`" in outcome.refusals[0].problem
    assert "unknown job type 'test.unheard-of'" in outcome.refusals[1].problem
    [(_, copy)] = await scene.copies()
    assert copy.origin == scene.keys.job_id(good)
    assert msgspec.json.decode(copy.payload) == {"value": {"to": "c"}, "seconds": "soon"}


async def test_it_keeps_to_its_rate(scene: Scene) -> None:
    await scene.ended(40)
    assert (await scene.preview(rate=100)).seconds == 0.4
    began = time.monotonic()
    told: list[int] = []
    await (await scene.redriving(rate=100)).run(lambda _, so_far: told.append(so_far.sent))
    # The last tenth of a second's worth goes out at its beginning.
    assert time.monotonic() - began >= 0.3 - 0.01
    assert told[-1] == 40


async def test_it_waits_for_room_in_a_full_backlog(scene: Scene) -> None:
    await scene.ended(40)
    await scene.producer.limit("test", backlog=30)
    task = asyncio.create_task(scene.redriven())

    async def copied(count: int) -> bool:
        return len(await scene.copies()) == count

    await eventually(lambda: copied(30), WAIT, "the backlog is full")
    await scene.ended(0)  # makes room
    assert (await asyncio.wait_for(task, WAIT)).sent == 40
    assert await copied(40)


async def test_what_retention_took_away_is_said(scene: Scene) -> None:
    jobs = await scene.ended(3)

    async def folded() -> bool:
        row = await find(scene.redis, scene.keys, jobs[-1])
        return row is not None and row.state == "failed" and await scene.redis.hlen(scene.keys.jobs) == 3

    await until(folded, "the views have seen it")
    row = await scene.redis.hget(scene.keys.jobs, packed(jobs[0]))
    await scene.redis.xdel(scene.keys.log, jobs[0])  # as if the trimmer came between index and log
    outcome = await scene.redriven()
    assert row is not None
    assert (outcome.looked, outcome.matched, outcome.sent, outcome.gone) == (3, 2, 2, 1)


async def test_how_many_retention_has_removed_is_said_beforehand(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    settings = api_settings(server, namespace, tmp_path, retention_failed=0.01)
    async with scene_on(settings) as scene:
        await scene.ended(5)

        async def trimmed() -> bool:
            return (await scene.preview()).removed == 5

        await until(trimmed, "retention removed them")
        preview = await scene.preview()
        assert (preview.count, preview.removed) == (0, 5)
        assert (await scene.preview(state="completed")).removed == 0


async def test_sealed_payloads_are_opened_changed_and_sealed_again_and_shown_by_right(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    settings = api_settings(server, namespace, tmp_path, payload_keys=Secret(SEAL))
    async with scene_on(settings) as scene:
        assert scene.producer.seals is not None
        handle = await scene.producer.submit(jobs_for_tests.Echo("xyzzy"))
        await scene.ended(0)
        patch = {"value": "plugh"}
        hidden, seen = await scene.preview(patch=patch), await scene.preview(patch=patch, reveal=True)
        assert (hidden.samples[0].sealed, hidden.samples[0].changes) == (True, [])
        assert [(it.before, it.after) for it in seen.samples[0].changes] == [("xyzzy", "plugh")]
        assert (await scene.redriven(patch=patch)).sent == 1
        [(_, copy)] = await scene.copies()
        assert copy.origin == handle.id
        assert bytes(copy.payload).startswith(b'"sealed:')
        opened = scene.producer.seals.open(json.loads(bytes(copy.payload)), "test.echo", "payload")
        assert json.loads(opened) == patch
    without = replace(settings, payload_keys=Secret(""))
    async with scene_on(without) as scene:
        outcome = await scene.redriven("blind")
        assert (outcome.sent, outcome.refused) == (0, 1)
        assert "sealed" in outcome.refusals[0].problem


@pytest.fixture
def api(scene: Scene, api: httpx.AsyncClient) -> httpx.AsyncClient:
    api.headers["Authorization"] = f"Bearer {KEY}"
    return api


async def test_over_http_it_is_a_job_that_is_cancelled_and_goes_on_under_its_id(
    api: httpx.AsyncClient, scene: Scene, operator: Callable[[], Command]
) -> None:
    jobs = await scene.ended(60)
    await scene.producer.limit("test", backlog=30)  # so that it cannot come to its end
    order = {"filter": {"queue": "test"}, "rate": 600, "id": "incident 7", "patch": {"value": "b"}}
    looked = (await api.post("/redrive", json={**order, "dry_run": True})).json()
    assert (looked["count"], looked["seconds"], len(looked["samples"])) == (60, 0.1, 10)
    assert looked["samples"][0]["job"]["id"] == scene.keys.job_id(jobs[0])
    running = operator()
    first = await api.post("/redrive", json=order)
    assert first.status_code == 202
    path = first.headers["location"]

    async def half() -> bool:
        return len(await scene.copies()) == 30

    await eventually(half, WAIT, "it has sent some")
    again = await api.post("/redrive", json=order)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert problems(await api.post("/redrive", json={**order, "rate": 0}), 409) == {}
    assert (await api.post(f"{path}/cancel", json={})).status_code == 200
    await scene.producer.limit("test")
    gone_on = await api.post("/redrive", json=order)
    assert (gone_on.status_code, gone_on.json()["id"]) == (202, first.json()["id"])
    told = (await api.get(path, params={"wait": WAIT})).json()
    assert (told["state"], told["type"], told["by"]) == ("completed", "penstock.redrive", "alice")
    # Known are the thirty, and what the cancelled run still sent before it was told.
    matched, sent, known = (told["result"][name] for name in ("matched", "sent", "known"))
    assert matched == sent + known == 60
    assert known >= 30
    copies = await scene.copies()
    assert sorted(copy.origin for _, copy in copies) == sorted(map(scene.keys.job_id, jobs))
    assert {copy.by for _, copy in copies} == {"alice"}
    assert (await api.post("/redrive", json=order)).status_code == 200, "complete, and stays so"
    await dismiss(running)


async def test_an_order_that_makes_no_sense_is_refused(api: httpx.AsyncClient, scene: Scene) -> None:
    assert "is empty" in problems(await api.post("/redrive", json={"filter": {}}), 422)["filter"]
    wrong = {"filter": {"queue": "test", "state": "active"}, "patch": []}
    assert set(problems(await api.post("/redrive", json=wrong), 422)) >= {"patch"}
    assert await scene.events() == []


async def test_by_the_command_line(
    api: httpx.AsyncClient,
    settings: Settings,
    scene: Scene,
    penstock: Callable[..., Command],
    operator: Callable[[], Command],
) -> None:
    await scene.ended(3)
    environ = {
        "PENSTOCK_API_KEYS": f"alice:{KEY}",
        "PENSTOCK_API_URL": f"http://127.0.0.1:{settings.api_port}",
    }
    words = ["replay", "redrive", "--queue", "test", "--since", "1d", "--patch", '{"value":"b"}', "--id", "x"]
    looked = penstock(*words, "--dry-run", **environ)
    assert await exit_code(looked) == 0
    assert 'value: "a" → "b"' in looked.output
    running = operator()
    done = penstock(*words, "--follow", **environ)
    assert await exit_code(done, 40) == 0, done.output
    assert "completed" in done.output
    assert len(await scene.copies()) == 3
    for wrong in (["--patch", "[1]"], ["--since", "yesterday"], ["--state", "active"]):
        refused = penstock("replay", "redrive", "--queue", "test", *wrong, **environ)
        assert await exit_code(refused) == 2
    await dismiss(running)
