"""Charts, failures by error and the search, over HTTP on real servers; each against the log itself."""

import json
import time
from typing import Any

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from apis import partition, problems
from histories import Author, completed
from penstock.core.dispatch import Delivery, Finished, Submission
from penstock.core.events import Failed, Submitted, encode
from penstock.core.positions import order
from penstock.core.settings import Settings
from penstock.projections import children, search
from penstock.projections.failures import normalised
from penstock.projections.rebuild import rebuild


async def queue(redis: Redis, settings: Settings, name: str = "mail") -> Author:
    found = Author(redis, partition(settings, name))
    await redis.sadd(found.keys.queues, name)
    return found


def dead(one: Delivery, error: str, message: str) -> Finished:
    """The end of an attempt that fails for good."""
    body = encode(Failed("permanent", error, message, one.attempt))
    return Finished("failed", one.lane, one.entry, one.attempt, one.job, body)


async def searched(api: httpx.AsyncClient, **query: Any) -> tuple[list[str], dict[str, Any], list[Any]]:
    """The ids that a search found, its end, and what else it said."""
    answer = await api.get("/jobs", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [*lines[-1]] == ["end"]
    ids = [line["match"]["job"]["id"] for line in lines if "match" in line]
    return ids, lines[-1]["end"], [line["progress"] for line in lines if "progress" in line]


async def test_series_add_up_to_what_has_happened(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    author = await queue(redis, settings)
    await author.enter()
    await author.scene(40)
    await rebuild(redis, author.keys)
    totals = (await api.get("/queues/mail")).json()["totals"]
    now = int(time.time() * 1000)
    for step, since in ((60, now - 3_600_000), (3600, now - 47 * 3_600_000), (0, now - 24 * 3_600_000)):
        query = {"from": since, "to": now + 60_000, "step": step}
        told = (await api.get("/queues/mail/series", params=query)).json()
        for name in ("submitted", "started", "completed", "failed", "retried", "cancelled"):
            assert sum(told[name]) == totals[name], name
            assert len(told[name]) == len(told["at"])
        assert told["step_s"] == step or (not step and told["step_s"] % 60 == 0)
        assert {b - a for a, b in zip(told["at"], told["at"][1:], strict=False)} <= {told["step_s"] * 1000}
        assert len(told["wait_ms"]["p95"]) == len(told["at"]) <= 1_500
        assert any(it is not None for it in told["run_ms"]["p50"])
    assert len((await api.get("/queues/mail/series")).json()["at"]) in (60, 61)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": 2, "to": 1}, "to"),
        ({"from": "now"}, "from"),
        ({"step": 61}, "step"),
        ({"from": 1, "to": 172_800_000, "step": 60}, "step"),
    ],
)
async def test_series_that_cannot_be_are_refused(
    api: httpx.AsyncClient, redis: Redis, settings: Settings, query: dict[str, Any], field: str
) -> None:
    await queue(redis, settings)
    assert field in problems(await api.get("/queues/mail/series", params=query), 422)
    problems(await api.get("/queues/none/series"), 404)


async def test_failures_are_grouped_by_what_went_wrong(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    author = await queue(redis, settings)
    worker = await author.enter()
    await author.submit(30, type="mail.send")
    await author.submit(5, type="mail.bulk")
    taken = await author.take(worker, 40)
    ends = [
        dead(one, "TimeoutError", f"no answer from 10.0.0.{n} after {n} s")
        for n, one in enumerate(taken[:20])
    ]
    ends += [dead(one, "ValueError", f"no mailbox 'user{n}'") for n, one in enumerate(taken[20:33])]
    await author.finish(worker, [*ends, *(completed(one, 1.0) for one in taken[33:])])
    await rebuild(redis, author.keys)
    told = (await api.get("/queues/mail/failures")).json()
    assert (told["failed"], told["looked_at"]) == (33, 33)
    first, second = told["groups"]
    assert (first["error"], first["message"], first["count"]) == (
        "TimeoutError",
        "no answer from # after # s",
        20,
    )
    assert first["sample"].startswith("no answer from 10.0.0.")
    assert (second["message"], second["count"], second["reasons"]) == (
        "no mailbox '…'",
        13,
        {"permanent": 13},
    )
    assert second["types"] == {"mail.send": 10, "mail.bulk": 3}
    assert sum(first["bars"]) == 20
    assert told["from_at"] <= first["first_at"] <= first["last_at"] <= told["to_at"]
    assert len(first["jobs"]) == 5
    assert (await api.get(f"/jobs/mail/{first['jobs'][0]}")).json()["error"]["error"] == "TimeoutError"
    of_type = (await api.get("/queues/mail/failures", params={"type": "mail.bulk"})).json()
    assert [it["count"] for it in of_type["groups"]] == [3]
    problems(await api.get("/queues/none/failures"), 404)

    [more] = await author.submit(1)
    [one] = await author.take(worker, 1)
    await author.finish(worker, [dead(one, "KeyError", more)])
    await rebuild(redis, author.keys)
    assert len((await api.get("/queues/mail/failures")).json()["groups"]) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTP 503 from https://a.example/x?y=1", "HTTP 429 from http://b.example/"),
        ("no user ada@example.org", "no user bob@mail.example.com"),
        ("no /var/lib/a/b.txt", "no /tmp/c/d.png"),
        ("job 6f9619ff-8b86-d011-b42d-00c04fc964ff", "job 7f9619ff-8b86-d011-b42d-00c04fc964fe"),
        ("bad digest deadbeef01", "bad digest 0badcafe77"),
        (f"no artifact sha256-{'0' * 64}", f"no artifact sha256-{'5a' * 32}"),
        ("at 12:30:01.5", "at 9:05:59.25"),
        ("'a' is not\n   'b'", "'c' is not 'd'"),
    ],
)
def test_what_differs_only_in_its_particulars_is_the_same(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


def test_what_differs_in_words_is_not() -> None:
    assert normalised("connection refused") != normalised("connection reset")
    assert normalised("the feedface of it") == "the feedface of it"


async def scenery(redis: Redis, settings: Settings) -> tuple[Author, Author, dict[str, list[str]]]:
    """Two queues, and the jobs of the first by what can be said of them."""
    author, other = await queue(redis, settings), await queue(redis, settings, "post")
    one, two = await author.enter(), await author.enter()
    batch = [
        Submission(
            "normal", encode(Submitted("mail.send", msgspec.Raw(encode_text(n)), tags=(f"t{n % 3}",))), ""
        )
        for n in range(30)
    ]
    accepted = await author.dispatch.submit(batch, producer="scenery", batch=1, once_ms=60_000)
    jobs = [it.position for it in accepted]
    await other.submit(7, type="post.send", payload={"text": "Größe 3"})
    first, second = await author.take(one, 10), await author.take(two, 5)
    await author.finish(one, [dead(it, "ValueError", "no mailbox") for it in first[:4]])
    await author.finish(one, [completed(it, 1.0, {"answer": "forty-two"}) for it in first[4:]])
    await rebuild(redis, author.keys)
    await rebuild(redis, other.keys)
    return (
        author,
        other,
        {
            "all": jobs,
            "tag": [it for n, it in enumerate(jobs) if n % 3 == 1],
            "worker": [it.job.decode() for it in second],
            "error": [it.job.decode() for it in first[:4]],
            "result": [it.job.decode() for it in first[4:]],
            "text": [it for n, it in enumerate(jobs) if n == 3],
        },
    )


def encode_text(number: int) -> bytes:
    # Every other payload as another client may send it: with escapes.
    return json.dumps({"text": f"Größe {number}"}, ensure_ascii=bool(number % 2)).encode()


async def test_a_search_finds_what_fits_and_nothing_else(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    author, other, known = await scenery(redis, settings)

    def ids(*positions: str) -> list[str]:
        return [author.keys.job_id(it) for it in sorted(positions, key=order, reverse=True)]

    assert set((await searched(api))[0]) == {
        *ids(*known["all"]),
        *(other.keys.job_id(it) for it in other.jobs),
    }
    assert (await searched(api, queue="mail", tag="t1"))[0] == ids(*known["tag"])
    assert (await searched(api, worker="worker-2"))[0] == ids(*known["worker"])
    assert (await searched(api, error="ValueError: no"))[0] == ids(*known["error"])
    assert (await searched(api, text="FORTY-TWO"))[0] == ids(*known["result"])
    assert (await searched(api, queue="mail", text="größe 3", limit=1000))[0] == [
        *ids(*known["text"]),
    ]
    assert (await searched(api, state="failed", text="mailbox"))[0] == ids(*known["error"])
    assert (await searched(api, state="completed", text="mailbox"))[0] == []
    assert (await searched(api, state="waiting", queue="post", type="post.send"))[1]["found"] == 7
    cut = known["all"][10].split("-")[0]
    found, _, _ = await searched(api, queue="mail", to=cut)
    assert found == ids(*(it for it in known["all"] if order(it)[0] < int(cut)))
    found, _, _ = await searched(api, **{"queue": "mail", "from": cut})
    assert found == ids(*(it for it in known["all"] if order(it)[0] >= int(cut)))


async def test_what_jobs_can_be_found_by_is_known_and_finds_them(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    author, _, known = await scenery(redis, settings)
    told = (await api.get("/known")).json()
    assert told["types"] == ["mail.send", "post.send"]
    assert sorted(told["tags"]) == ["t0", "t1", "t2"]
    assert told["workers"] == ["worker-1", "worker-2"]
    assert told["errors"] == ["ValueError", "ValueError: no mailbox"]
    for error in told["errors"]:
        assert (await searched(api, error=error))[1]["found"] == len(known["error"])
    found = [(await searched(api, worker=it))[1]["found"] for it in told["workers"]]
    assert found == [len(known["error"]) + len(known["result"]), len(known["worker"])]
    assert (await api.get("/known", params={"queue": "post"})).json() == {
        "types": ["post.send"],
        "tags": [],
        "workers": [],
        "errors": [],
    }
    problems(await api.get("/known", params={"queue": "none"}), 404)
    await author.submit(1, type="mail.new")
    await rebuild(redis, author.keys)
    assert (await api.get("/known")).json() == told  # kept for a while, whoever asks


async def test_an_error_is_known_as_far_as_it_is_the_same_for_many(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    author = await queue(redis, settings)
    worker = await author.enter()
    await author.submit(6)
    taken = await author.take(worker, 6)
    words = ["no answer after 5 s", "no answer after 7 s", "'x' is wrong", "", "two  spaces", "plain"]
    await author.finish(worker, [dead(it, "OSError", say) for it, say in zip(taken, words, strict=True)])
    await rebuild(redis, author.keys)
    told = (await api.get("/known")).json()["errors"]
    assert told[:2] == ["OSError", "OSError: no answer after"]
    assert sorted(told[2:]) == ["OSError: plain"]


async def test_the_children_of_a_job_are_found_and_a_look_that_ends_early_says_so(
    api: httpx.AsyncClient, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await api.post("/jobs/ai", json={"type": "ai.language", "payload": {"text": "one"}})
    parent = made.json()["id"]
    author = Author(redis, partition(settings, "ai"))
    await rebuild(redis, author.keys)
    nothing = {"jobs": [], "looked_at": 0, "complete": True}
    assert (await api.get(f"/jobs/ai/{parent}/children")).json() == nothing  # it has not ended yet
    worker = await author.enter()
    [one] = await author.take(worker, 1)
    await author.finish(worker, [dead(one, "ValueError", "no")])

    async def edited(text: str) -> str:
        again = await api.post(f"/jobs/ai/{parent}/retry", json={"payload": {"text": text}})
        assert again.status_code == 202, again.text
        return str(again.json()["id"])

    ids = [await edited("two")]
    await author.submit(450, type="ai.language", payload={"text": parent})
    ids.append(await edited("three"))
    await rebuild(redis, author.keys)
    told = (await api.get(f"/jobs/ai/{parent}/children")).json()
    assert [it["id"] for it in told["jobs"]] == ids
    assert (told["looked_at"], told["complete"]) == (452, True)
    assert (await searched(api, origin=parent))[0] == ids[::-1]
    assert (await searched(api, origin=parent, text="three"))[0] == ids[1:]
    monkeypatch.setattr(children, "MAX_LOOKED_AT", 400)
    told = (await api.get(f"/jobs/ai/{parent}/children")).json()
    assert ([it["id"] for it in told["jobs"]], told["looked_at"], told["complete"]) == (ids[:1], 400, False)
    problems(await api.get("/jobs/ai/ai.0.1-1/children"), 404)
    problems(await api.get(f"/jobs/mail/{parent}/children"), 404)


async def test_a_search_goes_on_where_it_ended_over_all_queues(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    _, other, known = await scenery(redis, settings)
    found, cursor, rounds = list[str](), "", 0
    while True:
        some, end, _ = await searched(api, limit=4, **({"cursor": cursor} if cursor else {}))
        found += some
        rounds += 1
        cursor = end["next"]
        if not cursor:
            break
    assert rounds == 10
    assert len(found) == len(set(found)) == len(known["all"]) + len(other.jobs)


async def test_a_long_search_tells_how_far_it_is_and_ends_in_time(
    api: httpx.AsyncClient, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    author = await queue(redis, settings)
    await author.submit(2000)
    await rebuild(redis, author.keys)
    monkeypatch.setattr(search, "PROGRESS_S", 0.0)
    _, end, progress = await searched(api, text="nowhere")
    assert end == {"looked": 2000, "found": 0, "next": None}
    assert [it["looked"] for it in progress] == [*range(200, 2001, 200)]
    assert {it["of"] for it in progress} == {2000}
    _, rest, _ = await searched(api, text="nowhere", cursor=progress[3]["next"])
    assert rest == {"looked": 1200, "found": 0, "next": None}
    monkeypatch.setattr(search, "MAX_SECONDS", 0.0)
    _, end, _ = await searched(api, text="nowhere")
    assert end["looked"] == 200
    _, rest, _ = await searched(api, text="nowhere", cursor=end["next"])
    assert rest["looked"] == 200


async def test_searches_are_bounded_and_one_that_is_left_makes_room(
    api: httpx.AsyncClient, redis: Redis, settings: Settings
) -> None:
    await (await queue(redis, settings)).submit(1)
    problems(await api.get("/jobs", params={"queue": "none"}), 404)
    assert "cursor" in problems(await api.get("/jobs", params={"cursor": "zzz"}), 422)
    assert (await api.get("/jobs", params={"limit": 1001})).status_code == 400
    for _ in range(10):
        async with api.stream("GET", "/jobs") as answer:
            assert answer.status_code == 200
