"""Nothing is read or changed without a valid key, and the rate limit holds over several processes."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from apis import KEY, KEYS, OTHER_KEY, api_settings, partition, problems, running_api
from penstock.core.connection import connect
from penstock.core.errors import Misconfigured
from penstock.core.events import Submitted, decode
from penstock.core.keys import Keys
from penstock.core.log import Log
from penstock.core.settings import Secret, Settings
from penstock.producer.ratelimit import RateLimit
from penstock.ui.api import create_app
from servers import RealServer

JOB = {"type": "ai.language", "payload": {"text": "Guten Tag"}}
ALICE = {"Authorization": f"Bearer {KEY}"}
BOB = {"X-API-Key": OTHER_KEY}
CLOSED = ["/jobs/ai", "/jobs/ai/ai.0.1-1", "/jobs/ai/ai.0.1-1/events", "/queues", "/queues/ai"]
OPEN = ["/", "/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/start.js"]


async def test_without_a_valid_key_nothing_is_read_or_changed(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    settings = api_settings(server, namespace, tmp_path, api_keys=KEYS)
    async with running_api(settings) as api:
        for headers in ({}, {"Authorization": "Bearer 0123456789abcdef"}, {"X-API-Key": "alice"}):
            answers = [await api.get(path, headers=headers) for path in CLOSED]
            answers.append(await api.post("/jobs/ai", json=JOB, headers=headers))
            answers.append(await api.post("/jobs/ai/batch", json=[JOB], headers=headers))
            answers.append(await api.post("/artifacts", content=b"x", headers=headers))
            answers.append(await api.get(f"/artifacts/sha256-{'0' * 64}", headers=headers))
            for answer in answers:
                assert problems(answer, 401) == {}
                assert answer.headers["www-authenticate"].startswith("Bearer")
        for path in OPEN:
            assert (await api.get(path)).status_code == 200
        with server.client() as client:
            assert list(client.scan_iter(f"{namespace}:*")) == []


async def test_the_key_names_the_actor(server: RealServer, namespace: str, tmp_path: Path) -> None:
    settings = api_settings(server, namespace, tmp_path, api_keys=KEYS)
    async with running_api(settings) as api:
        for headers in (ALICE, BOB):
            assert (await api.post("/jobs/ai", json=JOB, headers=headers)).status_code == 202
    client = connect(settings)
    bodies = [decode(event) for event in await Log(client, partition(settings, "ai")).page("0-0")]
    await client.aclose()
    assert [body.by for body in bodies if isinstance(body, Submitted)] == ["alice", "bob"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example.org"},
        {"Origin": "http://example.org"},
        {"Sec-Fetch-Site": "cross-site"},
        {"X-Forwarded-For": "203.0.113.9"},
    ],
)
async def test_without_keys_other_origins_are_not_served(
    server: RealServer, namespace: str, tmp_path: Path, headers: dict[str, str]
) -> None:
    async with running_api(api_settings(server, namespace, tmp_path)) as api:
        assert problems(await api.post("/jobs/ai", json=JOB, headers=headers), 403) == {}
        assert problems(await api.get("/queues", headers=headers), 403) == {}
        own_page = {"Origin": str(api.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        assert (await api.post("/jobs/ai", json=JOB, headers=own_page)).status_code == 202


def test_an_open_address_without_keys_is_refused_at_start(tmp_path: Path) -> None:
    settings = Settings(redis_url=Secret("redis://127.0.0.1:1"), host="0.0.0.0", data_dir=tmp_path)  # noqa: S104
    with pytest.raises(Misconfigured, match="PENSTOCK_API_KEYS"):
        create_app(settings)


def test_a_module_of_jobs_that_cannot_be_imported_is_named_at_start(tmp_path: Path) -> None:
    settings = Settings(redis_url=Secret("redis://127.0.0.1:1"), data_dir=tmp_path, jobs=("no.such.module",))
    with pytest.raises(Misconfigured, match=r"PENSTOCK_JOBS: no\.such\.module"):
        create_app(settings)


async def test_the_rate_limit_holds_over_two_servers_and_for_each_key(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    limits = {"rate_limit": 0.01, "rate_burst": 20, "api_keys": KEYS}
    first = api_settings(server, namespace, tmp_path, **limits)
    second = api_settings(server, namespace, tmp_path, **limits)
    async with running_api(first) as one, running_api(second) as two:
        calls = [api.get("/queues", headers=ALICE) for _ in range(30) for api in (one, two)]
        answers = await asyncio.gather(*calls)
        passed = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert (len(passed), len(refused)) == (20, 40)
        for answer in refused:
            assert problems(answer, 429) == {}
            assert 1 <= int(answer.headers["retry-after"]) <= 100
            assert answer.headers["ratelimit"].startswith('"default";r=0;t=')
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"default";q=20;w=2000'}
        left = sorted(int(answer.headers["ratelimit"].split("r=")[1].split(";")[0]) for answer in passed)
        assert left == list(range(20))
        assert (await two.get("/queues", headers=BOB)).status_code == 200
        assert (await two.get("/health/ready", headers=ALICE)).status_code == 200


async def test_keys_cannot_be_guessed_faster_than_the_rate_limit(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    limits = {"rate_limit": 0.01, "rate_burst": 3, "api_keys": KEYS}
    async with running_api(api_settings(server, namespace, tmp_path, **limits)) as api:
        guesses = [await api.get("/queues", headers={"X-API-Key": f"guess-{n:012}"}) for n in range(5)]
        assert [answer.status_code for answer in guesses] == [401, 401, 401, 429, 429]
        assert (await api.get("/queues", headers=ALICE)).status_code == 200


async def test_behind_a_trusted_proxy_each_client_has_its_own_limit(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    limits = {"rate_limit": 0.01, "rate_burst": 1, "api_keys": KEYS, "trusted_proxies": 1}

    async def guess(api: httpx.AsyncClient, forwarded: str) -> int:
        return (await api.get("/queues", headers={"X-Forwarded-For": forwarded})).status_code

    async with running_api(api_settings(server, namespace, tmp_path, **limits)) as api:
        assert [await guess(api, "203.0.113.1"), await guess(api, "203.0.113.2")] == [401, 401]
        assert await guess(api, "203.0.113.1") == 429
        assert await guess(api, "198.51.100.7, 203.0.113.2") == 429  # what a client claims does not count


async def test_a_client_that_keeps_to_its_rate_is_never_refused(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    settings = api_settings(server, namespace, tmp_path, rate_limit=50, rate_burst=2)
    redis = connect(settings)
    limit = RateLimit.of(settings, redis)
    assert limit is not None
    passed, refused, begun = 0, 0, time.monotonic()
    while passed < 12:
        verdict = await limit.ask("somebody")
        if verdict.allowed:
            passed += 1
        else:
            refused += 1
            assert 0 < verdict.retry_after <= 0.02
            await asyncio.sleep(verdict.retry_after + 0.001)  # as it was told to
    took = time.monotonic() - begun
    assert took >= 10 / 50 - 0.02, "burst at once, then no faster than the rate"
    assert refused <= passed
    key = Keys(namespace).rate("somebody")
    assert 0 < await redis.pttl(key) <= 40
    await redis.aclose()
