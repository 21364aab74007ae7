"""A job sent over HTTP is in the log when it is answered with 202, once; a wrong one is nowhere."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from apis import api_settings, partition, problems, running_api
from penstock.core.connection import connect
from penstock.core.events import Submitted, decode
from penstock.core.log import Log
from penstock.core.settings import Settings
from penstock.producer import bodies
from servers import RealServer

JOB: dict[str, Any] = {"type": "ai.language", "payload": {"text": "Guten Tag"}}
THUMBNAILS = {"source": f"sha256-{'0' * 64}", "sizes": [{"width": 10}]}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, max_payload=2_000, max_batch=200)


async def submitted(redis: Redis, settings: Settings, queue: str = "ai") -> list[Submitted]:
    """The `submitted` events in a queue's log."""
    events = await Log(redis, partition(settings, queue)).page("0-0")
    found = [decode(event) for event in events]
    return [body for body in found if isinstance(body, Submitted)]


async def test_an_accepted_job_is_in_the_log_and_can_be_read_at_once(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    answer = await api.post("/jobs/ai", json=JOB)
    assert answer.status_code == 202
    job = answer.json()
    assert job == {
        "id": job["id"],
        "queue": "ai",
        "type": "ai.language",
        "state": "waiting",
        "submitted_at": job["submitted_at"],
    }
    assert answer.headers["location"] == f"/jobs/ai/{job['id']}"
    [event] = await submitted(redis, settings)
    assert (event.by, bytes(event.payload)) == ("local", b'{"text":"Guten Tag"}')
    read = (await api.get(answer.headers["location"])).json()
    assert {name: read[name] for name in job} == job


async def test_all_options_reach_the_log(api: httpx.AsyncClient, redis: Redis, settings: Settings) -> None:
    backoff = {"kind": "fixed", "base": 2.0, "jitter": 0.0}
    options = {"priority": "high", "attempts": 7, "backoff": backoff, "timeout": 5, "tags": ["a", "b"]}
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    delayed = await api.post("/jobs/ai", json={**JOB, **options, "delay": 60}, headers={"traceparent": trace})
    later = await api.post("/jobs/ai", json={**JOB, "run_at": "2040-01-02T03:04:05+00:00"})
    assert (delayed.status_code, delayed.json()["state"]) == (202, "delayed")
    assert (later.status_code, later.json()["state"]) == (202, "delayed")
    first, second = await submitted(redis, settings)
    assert (first.priority, first.attempts, first.timeout, first.tags) == ("high", 7, 5.0, ("a", "b"))
    assert (first.backoff.kind, first.backoff.base, first.delay, first.trace) == ("fixed", 2.0, 60, trace)
    assert second.run_at == 2_209_086_245_000


async def test_an_idempotency_key_answers_with_the_first_job(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first = await api.post("/jobs/ai", json={**JOB, "delay": 60}, headers=headers)
    again = await api.post("/jobs/ai", json=JOB, headers={"Idempotency-Key": '"order-17"'})
    in_body = await api.post("/jobs/ai", json={**JOB, "key": "order-17"})
    assert (first.status_code, again.status_code, in_body.status_code) == (202, 200, 200)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == in_body.headers["idempotency-replayed"] == "true"
    assert first.headers["location"] == again.headers["location"] == in_body.headers["location"]
    assert first.json() == again.json() == in_body.json()
    assert len(await submitted(redis, settings)) == 1


@pytest.mark.parametrize(
    ("key", "body", "path"),
    [("", {}, "Idempotency-Key"), ("k" * 256, {}, "Idempotency-Key"), ("one", {"key": "two"}, "key")],
)
async def test_an_idempotency_key_that_is_none_is_refused(
    api: httpx.AsyncClient, key: str, body: dict[str, Any], path: str
) -> None:
    answer = await api.post("/jobs/ai", json={**JOB, **body}, headers={"Idempotency-Key": key})
    assert list(problems(answer, 422)) == [path]


async def test_every_wrong_field_is_named_and_nothing_is_written(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    payload = {"source": "nowhere", "sizes": [{"width": 0}, {"heigth": 5}]}
    wrong = {
        "type": "image.thumbnails",
        "payload": payload,
        "attempts": 0,
        "backoff": {"base": "x"},
        "dealy": 1,
    }
    answer = await api.post("/jobs/image", json=wrong)
    assert set(problems(answer, 422)) == {
        "attempts",
        "backoff.base",
        "dealy",
        "payload.source",
        "payload.sizes[0].width",
        "payload.sizes[1].heigth",
    }
    right_options = await api.post("/jobs/image", json={"type": "image.thumbnails", "payload": payload})
    assert set(problems(right_options, 422)) == {
        "payload.source",
        "payload.sizes[0].width",
        "payload.sizes[1].heigth",
    }
    both = await api.post("/jobs/ai", json={**JOB, "delay": 1, "run_at": 5})
    assert set(problems(both, 422)) == {"delay"}
    assert [key async for key in redis.scan_iter(f"{settings.namespace}:*")] == []


async def test_an_unknown_type_is_answered_with_the_known_ones(api: httpx.AsyncClient) -> None:
    answer = await api.post("/jobs/ai", json={"type": "ai.nonsense", "payload": {}})
    assert set(problems(answer, 422)) == {"type"}
    assert answer.json()["type"] == "urn:penstock:problem:unknown-type"
    assert {"ai.language", "email.send", "image.resize"} <= set(answer.json()["known"])
    with_more = await api.post("/jobs/ai", json={"type": "ai.nonsense", "payload": {}, "attempts": "x"})
    assert set(problems(with_more, 422)) == {"type", "attempts"}


@pytest.mark.parametrize("options", [{}, {"attempts": 0}])
async def test_a_type_of_another_queue_is_answered_with_its_queue(
    api: httpx.AsyncClient, options: dict[str, Any]
) -> None:
    told = problems(await api.post("/jobs/email", json={**JOB, **options}), 422)
    assert told["type"] == "ai.language belongs to queue 'ai', not 'email'"


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"type": 5', b"\xff", b'{"type": "\xff"}', b'{"payload":' + b"[" * 50_000]
)
async def test_a_body_that_is_no_json_is_malformed(api: httpx.AsyncClient, body: bytes) -> None:
    for path in ("/jobs/ai", "/jobs/ai/batch"):
        answer = await api.post(path, content=body, headers={"Content-Type": "application/json"})
        assert problems(answer, 400) == {}
        assert answer.json()["type"] == "urn:penstock:problem:malformed"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_another_content_type_is_not_taken(api: httpx.AsyncClient, kind: str) -> None:
    for path in ("/jobs/ai", "/jobs/ai/batch"):
        answer = await api.post(path, content=b"{}", headers={"Content-Type": kind})
        assert problems(answer, 415) == {}


async def test_what_is_over_a_bound_is_too_large(api: httpx.AsyncClient, settings: Settings) -> None:
    long = {"type": "ai.language", "payload": {"text": "x" * 2_000}}
    assert problems(await api.post("/jobs/ai", json=long), 413) == {}
    huge = await api.post("/jobs/ai", json={**JOB, "tags": ["x" * 200_000]})
    assert problems(huge, 413) == {}

    async def endless() -> AsyncIterator[bytes]:  # no Content-Length: counted as it comes
        yield b'{"type": "ai.language", "payload": {"text": "'
        for _ in range(10_000):
            yield b"x" * 1_000

    headers = {"Content-Type": "application/json"}
    streamed = await api.post("/jobs/ai", content=endless(), headers=headers)
    assert problems(streamed, 413) == {}
    batch = await api.post("/jobs/ai/batch", json=[JOB] * (settings.max_batch + 1))
    assert problems(batch, 413) == {}
    lines = b'{"type": "ai.language"}\n' * (settings.max_batch + 1)
    lined = await api.post("/jobs/ai/batch", content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert problems(lined, 413) == {}


async def test_a_body_that_stops_coming_is_given_up(
    api: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PAUSE_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.api_port)
    writer.write(b"POST /jobs/ai HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: 100\r\n\r\n{")
    status = await asyncio.wait_for(reader.readline(), 10)
    assert status.split()[1] == b"408"
    writer.close()


async def test_a_batch_is_answered_job_by_job_in_order(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    wrong = {"type": "ai.language", "payload": {"text": 5}, "attempts": 0}
    answer = await api.post("/jobs/ai/batch", json=[JOB, wrong, {**JOB, "key": "k"}, {**JOB, "key": "k"}])
    assert answer.status_code == 202
    told = answer.json()
    assert (told["accepted"], told["refused"]) == (3, 1)
    assert [item["status"] for item in told["items"]] == [202, 422, 202, 200]
    assert {error["path"] for error in told["items"][1]["errors"]} == {"attempts", "payload.text"}
    assert told["items"][3]["id"] == told["items"][2]["id"]
    assert len(await submitted(redis, settings)) == 2


async def test_a_batch_may_come_as_lines(api: httpx.AsyncClient, redis: Redis, settings: Settings) -> None:
    lines = b'{"type": "ai.language", "payload": {"text": "one"}}\n\n{"type":\r\n'
    lines += b'{"type": "ai.language", "payload": {"text": "two"}}'
    answer = await api.post(
        "/jobs/ai/batch", content=lines, headers={"Content-Type": "application/x-ndjson; charset=utf-8"}
    )
    assert [item["status"] for item in answer.json()["items"]] == [202, 400, 202]
    payloads = [bytes(event.payload) for event in await submitted(redis, settings)]
    assert payloads == [b'{"text": "one"}', b'{"text": "two"}']


async def test_a_batch_with_no_right_job_is_refused(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    wrong = {"type": "ai.language", "payload": {"text": ""}}
    answer = await api.post("/jobs/ai/batch", json=[wrong, {"type": "x", "payload": {}}])
    assert set(problems(answer, 422)) == {"[0].payload.text", "[1].type"}
    assert [item["status"] for item in answer.json()["items"]] == [422, 422]
    assert set(problems(await api.post("/jobs/ai/batch", json=[]), 422)) == {""}
    assert set(problems(await api.post("/jobs/ai/batch", json=JOB), 422)) == {""}
    keyed = await api.post("/jobs/ai/batch", json=[JOB], headers={"Idempotency-Key": "k"})
    assert set(problems(keyed, 422)) == {"Idempotency-Key"}
    assert await submitted(redis, settings) == []


async def script_calls(redis: Redis, settings: Settings) -> int:
    """How many batches the one producer of the app has sent."""
    [key] = [key async for key in redis.scan_iter(f"{settings.namespace}:*sender:*")]
    said: Any = await redis.get(key)
    return int(said.split()[0])


async def test_a_batch_is_one_script_call(api: httpx.AsyncClient, redis: Redis, settings: Settings) -> None:
    answer = await api.post("/jobs/ai/batch", json=[JOB] * settings.max_batch)
    assert answer.json()["accepted"] == settings.max_batch
    assert await script_calls(redis, settings) == 1


async def test_500_submissions_at_once_are_all_kept_in_few_script_calls(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    answers = await asyncio.gather(*(api.post("/jobs/ai", json=JOB) for _ in range(500)))
    assert {answer.status_code for answer in answers} == {202}
    ids = {answer.json()["id"] for answer in answers}
    events = await Log(redis, partition(settings, "ai")).page("0-0")
    assert {f"ai.0.{event.position}" for event in events} == ids
    assert len(ids) == 500
    assert await script_calls(redis, settings) < 250


async def test_unknown_paths_and_methods_are_problems(api: httpx.AsyncClient) -> None:
    assert problems(await api.get("/api/nothing"), 404) == {}
    assert problems(await api.get("/jobs/ai/ai.0.1-1"), 404) == {}
    assert problems(await api.get("/queues/nothing"), 404) == {}
    refused = await api.put("/jobs/ai", json=JOB)
    assert problems(refused, 405) == {}
    assert "POST" in refused.headers["allow"]
    assert "wait" in problems(await api.get("/jobs/ai/ai.0.1-1?wait=1000"), 400)


async def test_an_error_of_the_server_tells_a_client_nothing(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    await redis.set(partition(settings, "ai").log, "no stream")
    answer = await api.post("/jobs/ai", json=JOB)
    assert problems(answer, 500) == {}
    assert "WRONGTYPE" not in answer.text


async def test_while_redis_is_away_the_answer_is_503(own_server: RealServer, tmp_path: Path) -> None:
    settings = api_settings(own_server, "away", tmp_path)
    async with running_api(settings) as api:
        assert (await api.post("/jobs/ai", json=JOB)).status_code == 202
        assert (await api.get("/health/ready")).status_code == 200
        own_server.kill()
        refused, ready, read = await asyncio.gather(
            api.post("/jobs/ai", json=JOB), api.get("/health/ready"), api.get("/queues")
        )
        for answer in (refused, ready, read):
            assert problems(answer, 503) == {}
            assert int(answer.headers["retry-after"]) >= 1
        assert (await api.get("/health/live")).status_code == 200
        own_server.start()
        deadline = time.monotonic() + 30
        while (answer := await api.post("/jobs/ai", json=JOB)).status_code != 202:
            assert answer.status_code == 503
            assert time.monotonic() < deadline
        async with connect(settings) as redis:
            assert len(await submitted(redis, settings)) == 2


async def test_a_server_that_may_evict_is_not_ready(own_server: RealServer, tmp_path: Path) -> None:
    async with running_api(api_settings(own_server, "evicts", tmp_path)) as api:
        with own_server.client() as client:
            client.config_set("maxmemory", "100mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
        answer = await api.get("/health/ready")
        assert problems(answer, 503) == {}
        assert "noeviction" in answer.json()["detail"]


async def test_who_waits_for_an_end_is_answered_when_the_server_leaves(
    settings: Settings, redis: Redis
) -> None:
    stop = asyncio.Event()
    async with running_api(settings, stop) as api:
        job = (await api.post("/jobs/ai", json=JOB)).headers["location"]
        before = (await redis.info("clients"))["blocked_clients"]
        waiting = asyncio.create_task(api.get(f"{job}?wait=60"))
        deadline = time.monotonic() + 30
        while (await redis.info("clients"))["blocked_clients"] == before:  # it reads the log
            assert time.monotonic() < deadline
        stop.set()
        answer = await asyncio.wait_for(waiting, 10)
        assert (answer.status_code, answer.json()["state"]) == (200, "waiting")
