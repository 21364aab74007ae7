"""Flows over HTTP: the real app on a real port, a real coordinator, a real worker."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

import flow_jobs
import jobs_for_tests
from apis import KEY, KEYS, OTHER_KEY, problems, running_api
from penstock.consumers.worker import run_worker
from penstock.core.settings import Settings
from penstock.producer.flows.coordinator import run_flows
from penstock.producer.flows.intake import MAX_FLOW_BYTES

CHAIN: dict[str, Any] = {
    "name": "two",
    "nodes": [
        {"name": "b", "type": "test.sum", "payload": {"own": 2}, "after": ["a"]},
        {"name": "a", "type": "test.sum", "payload": {"own": 1}},
    ],
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    jobs = (flow_jobs.__name__, jobs_for_tests.__name__)
    return replace(settings, api_keys=KEYS, queues=("test",), jobs=jobs)


@pytest.fixture
def api(api: httpx.AsyncClient) -> httpx.AsyncClient:
    api.headers["authorization"] = f"Bearer {KEY}"
    return api


@pytest.fixture
async def at_work(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(run(settings, stop)) for run in (run_flows, run_worker)]
    yield
    stop.set()
    await asyncio.gather(*tasks)


async def submitted(api: httpx.AsyncClient, flow: Any) -> str:
    answer = await api.post("/flows", json=flow)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/flows/{answer.json()['id']}"
    return str(answer.json()["id"])


@pytest.mark.usefixtures("at_work")
async def test_a_flow_is_submitted_and_waited_for(api: httpx.AsyncClient) -> None:
    flow_id = await submitted(api, CHAIN)
    flow = (await api.get(f"/flows/{flow_id}", params={"wait": 10})).json()
    assert (flow["id"], flow["name"], flow["by"]) == (flow_id, "two", "alice")
    assert (flow["state"], flow["counts"]) == ("completed", {"completed": 2})
    first, second = flow["nodes"]
    assert (first["name"], second["name"], second["after"]) == ("a", "b", ["a"])
    assert second["job"].startswith("test.0.")


async def test_it_can_be_read_as_soon_as_it_was_accepted(api: httpx.AsyncClient) -> None:
    flow_id = await submitted(api, CHAIN)
    answer = await api.get(f"/flows/{flow_id}")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["state"] == "active"
    assert [node["state"] for node in answer.json()["nodes"]] == ["waiting", "waiting"]
    listed = (await api.get("/flows")).json()
    assert [flow["id"] for flow in listed["flows"]] == [flow_id]
    assert "nodes" not in listed["flows"][0]
    assert (await api.get("/flows", params={"state": "completed"})).json() == {"flows": [], "next": None}


async def test_pages_follow_one_another(api: httpx.AsyncClient) -> None:
    ids = [await submitted(api, CHAIN) for _ in range(5)]
    found, before = [], ""
    while True:
        page = (await api.get("/flows", params={"limit": 2, "before": before})).json()
        found += [flow["id"] for flow in page["flows"]]
        before = page["next"]
        if not before:
            break
    assert found == ids[::-1]


async def test_a_key_answers_with_the_first(api: httpx.AsyncClient) -> None:
    answers = [
        (await api.post("/flows", json=CHAIN, headers={"idempotency-key": '"k"'})).json() for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert (await api.post("/flows", json={**CHAIN, "key": "k"})).json() == answers[0]
    both = await api.post("/flows", json={**CHAIN, "key": "k"}, headers={"idempotency-key": "other"})
    assert problems(both, 422).keys() == {"key"}


async def test_every_wrong_field_is_named_and_nothing_is_written(api: httpx.AsyncClient) -> None:
    nodes = [
        {"name": "a", "type": "test.sum", "payload": {"own": "x"}},
        {"name": "b", "type": "test.sum", "payload": {}, "after": ["z"]},
    ]
    found = problems(await api.post("/flows", json={"nodes": nodes}), 422)
    assert found.keys() == {"nodes[0].payload.own", "nodes[1].after[0]"}
    wrong = {"nodes": [{"name": "a", "type": "test.sum", "payload": {}, "on_failure": "x", "delai": 1}]}
    found = problems(await api.post("/flows", json=wrong), 422)
    assert found.keys() == {"nodes[0].on_failure", "nodes[0].delai"}
    assert "did you mean `delay`?" in found["nodes[0].delai"]
    circle = [{"name": "a", "type": "test.sum", "payload": {}, "after": ["a"]}]
    assert "circle" in problems(await api.post("/flows", json={"nodes": circle}), 422)["nodes"]
    assert (await api.get("/flows")).json()["flows"] == []


async def test_what_is_no_flow_at_all(api: httpx.AsyncClient) -> None:
    problems(await api.post("/flows", content=b"{", headers={"content-type": "application/json"}), 400)
    problems(await api.post("/flows", content=b"{}", headers={"content-type": "text/plain"}), 415)
    huge = b'{"nodes": [' + b" " * (4 * MAX_FLOW_BYTES) + b"]}"
    problems(await api.post("/flows", content=huge, headers={"content-type": "application/json"}), 413)
    for path in ("/flows/flow.1-1", "/flows/nothing", "/flows/test.0.1-1"):
        problems(await api.get(path), 404)
        problems(await api.post(f"{path}/cancel"), 404)
    problems(await api.get("/flows", params={"limit": 0}), 400)
    problems(await api.get("/flows", params={"state": "asleep"}), 400)
    async with httpx.AsyncClient(base_url=api.base_url) as stranger:
        problems(await stranger.get("/flows"), 401)
        problems(await stranger.post("/flows", json=CHAIN), 401)


@pytest.mark.usefixtures("at_work")
async def test_cancelling_says_who_did_it_and_only_once(api: httpx.AsyncClient, tmp_path: Path) -> None:
    file = str(tmp_path / "gate")
    nodes = [
        {"name": "gate", "type": "test.gate", "payload": {"file": file}},
        {"name": "then", "type": "test.sum", "payload": {}, "after": ["gate"]},
    ]
    flow_id = await submitted(api, {"nodes": nodes})
    headers = {"authorization": f"Bearer {OTHER_KEY}"}
    answer = await api.post(f"/flows/{flow_id}/cancel", json={"reason": "enough"}, headers=headers)
    assert (answer.status_code, answer.json()["cancelled"]) == (200, True)
    flow = (await api.get(f"/flows/{flow_id}", params={"wait": 10})).json()
    assert (flow["state"], flow["counts"]) == ("cancelled", {"cancelled": 2})
    problems(await api.post(f"/flows/{flow_id}/cancel"), 409)
    job = flow["nodes"][0].get("job")
    if job:  # it was faster than we
        story = (await api.get(f"/jobs/test/{job}/events")).json()["events"]
        assert story[-1]["data"]["by"] == "bob"


async def test_who_waits_is_answered_when_the_api_leaves(settings: Settings) -> None:
    stop = asyncio.Event()
    async with running_api(settings, stop) as api:
        api.headers["authorization"] = f"Bearer {KEY}"
        flow_id = await submitted(api, CHAIN)
        began = time.monotonic()
        waiting = asyncio.create_task(api.get(f"/flows/{flow_id}", params={"wait": 30}))
        while not (await api.get("/flows")).json()["flows"]:
            pass
        stop.set()
        answer = await waiting
    assert (answer.status_code, answer.json()["state"]) == (200, "active")
    assert time.monotonic() - began < 25


async def test_the_description_has_flows(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    assert {"post", "get"} <= document["paths"]["/flows"].keys()
    assert document["paths"]["/flows/{flow_id}/cancel"]["post"]["operationId"] == "cancelFlow"
    node = document["components"]["schemas"]["NodeRequest"]
    assert {"name", "type", "payload", "after", "on_failure"} <= node["properties"].keys()
