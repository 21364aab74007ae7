"""The same questions over HTTP: what is answered, what is refused, and how OpenAPI describes it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from litestar import Litestar
from litestar.di import Provide
from redis.asyncio import Redis

from histories import Author, completed
from penstock.core.connection import connect
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import STATES
from penstock.core.settings import Secret, Settings
from penstock.projections.queries import Queries
from penstock.projections.rebuild import rebuild
from penstock.projections.routes import query_routes
from penstock.ui.problems import EXCEPTION_HANDLERS


@pytest.fixture
async def http(redis: Redis, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(redis, settings) as client:
        yield client


@asynccontextmanager
async def serving(redis: Redis, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that has these routes and nothing else, in this event loop."""
    queries = Queries(redis, settings)
    app = Litestar(
        query_routes,
        dependencies={
            "queries": Provide(lambda: queries, sync_to_thread=False),
            "reveal": Provide(lambda: False, sync_to_thread=False),
        },
        exception_handlers=EXCEPTION_HANDLERS,
        logging_config=None,
    )
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
    await queries.close()


async def get(http: httpx.AsyncClient, path: str, status: int = 200, **query: Any) -> Any:
    answer = await http.get(path, params=query or None)
    assert answer.status_code == status, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


async def test_a_job_can_be_followed_from_its_submission_to_its_end(
    http: httpx.AsyncClient, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys)
    [position] = await author.submit(1, type="mail.send", payload={"n": 1.50})
    path = f"/jobs/mail/{keys.job_id(position)}"
    fresh = await get(http, path)
    assert (fresh["state"], fresh["payload"], fresh["result"], fresh["error"]) == (
        "waiting",
        {"n": 1.5},
        None,
        None,
    )

    worker = await author.enter()
    [one] = await author.take(worker, 1)
    waiting = asyncio.create_task(get(http, path, wait=30))
    assert (await get(http, path, wait=0.05))["state"] == "active"
    await author.finish(worker, [completed(one, 2.5, {"sent": True})])
    done = await waiting
    assert (done["state"], done["result"], done["run_ms"]) == ("completed", {"sent": True}, 2.5)

    story = await get(http, f"{path}/events", limit=2)
    assert [event["event"] for event in story["events"]] == ["submitted", "started"]
    assert story["events"][0]["at"] == done["submitted_at"]
    rest = await get(http, f"{path}/events", after=story["next"])
    assert [(event["event"], event["data"]) for event in rest["events"]] == [
        ("completed", {"ms": 2.5, "result": {"sent": True}})
    ]
    assert rest["next"] is None


async def test_lists_and_figures(http: httpx.AsyncClient, redis: Redis, keys: PartitionKeys) -> None:
    author = Author(redis, keys)
    await author.submit(5, type="mail.send")
    await author.submit(2, type="mail.bulk")
    await rebuild(redis, keys)
    page = await get(http, "/jobs/mail", type="mail.send", limit=3)
    assert [job["id"] for job in page["jobs"]] == [keys.job_id(it) for it in author.jobs[4:1:-1]]
    rest = await get(http, "/jobs/mail", type="mail.send", limit=3, cursor=page["next"])
    assert [job["id"] for job in rest["jobs"]] == [keys.job_id(it) for it in author.jobs[1::-1]]
    assert (await get(http, "/jobs/mail", state="failed"))["jobs"] == []
    queue = await get(http, "/queues/mail")
    assert queue["counts"] == dict.fromkeys(STATES, 0) | {"waiting": 7}
    assert queue["types"]["mail.bulk"]["waiting"] == 2
    assert queue["oldest_waiting_s"] >= 0
    [listed] = (await get(http, "/queues"))["queues"]
    assert (listed["queue"], listed["totals"]) == ("mail", queue["totals"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs/other/{job}", 404),
        ("/jobs/other/{job}/events", 404),
        ("/jobs/mail/nonsense", 404),
        ("/jobs/mail/mail.0.1-1", 404),
        ("/jobs/mail/mail.0.999999999999999-1", 404),
        ("/jobs/none", 404),
        ("/queues/none", 404),
        ("/queues/%00", 404),
        ("/jobs/mail/{job}?wait=61", 400),
        ("/jobs/mail/{job}?wait=-1", 400),
        ("/jobs/mail/{job}?wait=nan", 400),
        ("/jobs/mail?limit=0", 400),
        ("/jobs/mail?limit=501", 400),
        ("/jobs/mail?state=lost", 400),
        ("/jobs/mail?cursor=zzz", 422),
        ("/jobs/mail/{job}/events?after=zzz", 422),
    ],
)
async def test_what_is_wrong_is_refused(
    http: httpx.AsyncClient, redis: Redis, keys: PartitionKeys, path: str, status: int
) -> None:
    [position] = await Author(redis, keys).submit(1)
    problem = await get(http, path.format(job=keys.job_id(position)), status)
    assert problem["status"] == status


async def test_without_redis_the_answer_is_503(namespace: str) -> None:
    settings = Settings(redis_url=Secret("unix:///nowhere"), namespace=namespace)
    async with connect(settings) as redis, serving(redis, settings) as http:
        for path in ("/queues", "/queues/mail", "/jobs/mail", "/jobs/mail/mail.0.1795477369681-0?wait=5"):
            await get(http, path, 503)


def test_openapi_names_every_answer_and_parameter() -> None:
    asked = {name: Provide(lambda: None, sync_to_thread=False) for name in ("queries", "reveal")}
    app = Litestar(query_routes, dependencies=asked)
    document = app.openapi_schema.to_schema()
    assert set(document["paths"]) == {
        "/jobs/{queue}",
        "/jobs/{queue}/{job_id}",
        "/jobs/{queue}/{job_id}/events",
        "/queues",
        "/queues/{queue}",
        "/queues/{queue}/scaling",
        "/span",
    }
    schemas = document["components"]["schemas"]
    assert {"JobDetail", "JobPage", "EventPage", "QueueList", "QueueDetail"} <= set(schemas)
    assert schemas["JobDetail"]["properties"]["payload"] == {}
    for operations in document["paths"].values():
        operation = operations["get"]
        assert operation["summary"]
        assert all(parameter["description"] for parameter in operation.get("parameters", ()))
        assert not any(parameter["name"] == "queries" for parameter in operation.get("parameters", ()))
