"""Payloads encrypted at rest, from end to end: nothing legible in Redis, shown to those with the right."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

import jobs_for_tests  # noqa: F401 (its contracts and handlers)
from apis import api_settings, running_api
from penstock.consumers import Context, handler
from penstock.core import Permanent, contract
from penstock.core.errors import JobFailed
from penstock.core.keys import Keys
from penstock.core.sealing import Unsealable
from penstock.core.settings import Secret
from penstock.producer.client import Producer
from penstock.projections.rebuild import rebuild
from processes import Site, producing, site_on, working
from servers import RealServer

OLD = base64.b64encode(b"old key, of thirty-two bytes ok.").decode()
NEW = base64.b64encode(b"new key, of thirty-two bytes ok.").decode()
WORD = "xyzzy-plugh"
SEES, BLIND = "0123456789abcdef-sees", "0123456789abcdef-blind"
API_KEYS = Secret(f"sees:{SEES}:reveal,blind:{BLIND}")
HIDDEN = {"sealed": True}


@contract("test.confide", attempts=2)
class Confide(msgspec.Struct):
    """Says its word in every way there is."""

    word: str
    fail: bool = False


@handler(Confide)
async def confide(job: Confide, context: Context) -> list[str]:
    context.log(f"the word is {job.word}")
    context.progress(0.5, f"halfway with {job.word}", {"word": job.word})
    if job.fail:
        raise Permanent(f"{job.word} is wrong")
    return [job.word]


async def everything(redis: Redis) -> bytes:
    """All bytes of the database, as far as keys and values go."""
    found = b""
    async for name in redis.scan_iter():
        match await redis.type(name):
            case b"stream":
                found += repr(await redis.xrange(name)).encode()
            case b"hash":
                found += repr(await redis.hgetall(name)).encode()
            case b"string":
                found += repr(await redis.get(name)).encode()
            case _:
                found += repr(name).encode()
    return found


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def ended(site: Site, producer: Producer, fail: bool) -> Any:
    handle = await producer.submit(Confide(WORD, fail))
    if fail:
        with pytest.raises(JobFailed, match=f"{WORD} is wrong"):
            await handle.result(timeout=30)
    else:
        assert await handle.result(timeout=30) == [WORD]
    return handle


async def test_no_word_of_a_job_is_legible_in_redis(own_server: RealServer, namespace: str) -> None:
    async with site_on(own_server, namespace, payload_keys=Secret(NEW)) as site, producing(site) as producer:
        async with working(site.settings):
            done, failed = await ended(site, producer, False), await ended(site, producer, True)
        assert await site.tags(done) == ["submitted", "started", "logged", "progressed", "completed"]
        assert (await site.bodies(failed, "failed"))[0]["error"] == "Permanent"
        written = await everything(site.redis)
        assert b"test.confide" in written
        assert WORD.encode() not in written


async def test_without_keys_all_is_legible(own_server: RealServer, namespace: str) -> None:
    """The test above can see."""
    async with site_on(own_server, namespace) as site, producing(site) as producer, working(site.settings):
        await ended(site, producer, False)
        assert (await everything(site.redis)).count(WORD.encode()) >= 4


async def test_the_api_shows_it_to_those_with_the_right_and_hides_it_from_others(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {"payload_keys": Secret(NEW), "jobs": ("jobs_for_tests",)}
    settings = api_settings(server, namespace, tmp_path, api_keys=API_KEYS, **keys)
    async with (
        site_on(server, namespace, **keys) as site,
        running_api(settings) as api,
        working(site.settings),
    ):
        job = {"type": "test.confide", "payload": {"word": WORD}}
        made = await api.post("/jobs/test", json=job, headers=headers(BLIND))
        assert made.status_code == 202, made.text
        path = made.headers["location"]

        async def get(key: str, tail: str = "?wait=10") -> Any:
            answer = await api.get(path + tail, headers=headers(key))
            assert answer.status_code == 200
            assert (WORD in answer.text) == (key == SEES)
            return answer.json()

        hidden, shown = await get(BLIND), await get(SEES)
        assert (hidden["payload"], hidden["result"]) == (HIDDEN, HIDDEN)
        assert hidden["progress"] == {"fraction": 0.5, "message": "(sealed)", "data": HIDDEN}
        assert (shown["payload"], shown["result"]) == ({"word": WORD}, [WORD])
        assert shown["progress"] == {
            "fraction": 0.5,
            "message": f"halfway with {WORD}",
            "data": {"word": WORD},
        }

        told = {it["event"]: it["data"] for it in (await get(SEES, "/events"))["events"]}
        assert told["logged"] == {"line": f"the word is {WORD}"}
        told = {it["event"]: it["data"] for it in (await get(BLIND, "/events"))["events"]}
        assert told["logged"] == {"line": "(sealed)"}
        assert told["submitted"]["payload"] == told["completed"]["result"] == HIDDEN

        made = await api.post(
            "/jobs/test", json={**job, "payload": {"word": WORD, "fail": True}}, headers=headers(BLIND)
        )
        path = made.headers["location"]
        hidden, shown = await get(BLIND), await get(SEES)
        assert hidden["error"] == {
            "error": "Permanent",
            "message": "(sealed)",
            "reason": "permanent",
            "traceback": "(sealed)",
        }
        assert shown["error"]["message"] == f"{WORD} is wrong"
        assert "Traceback" in shown["error"]["traceback"]

        await rebuild(site.redis, Keys(namespace).partition("test"))
        for key in (SEES, BLIND):
            groups = await api.get("/queues/test/failures", headers=headers(key))
            assert [it["sample"] for it in groups.json()["groups"]] == ["(sealed)"]
            known = await api.get("/known", headers=headers(key))
            assert known.json()["errors"] == ["Permanent"]


async def test_an_api_without_the_key_says_so_to_those_with_the_right(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    async with site_on(server, namespace, payload_keys=Secret(OLD)) as site, producing(site) as producer:
        handle = await producer.submit(Confide(WORD))
    more = {"api_keys": API_KEYS, "payload_keys": Secret(NEW), "jobs": ("jobs_for_tests",)}
    async with running_api(api_settings(server, namespace, tmp_path, **more)) as api:
        shown = (await api.get(f"/jobs/test/{handle.id}", headers=headers(SEES))).json()
        assert shown["payload"]["sealed"] is True
        assert "is not among PENSTOCK_PAYLOAD_KEYS" in shown["payload"]["problem"]
        assert (await api.get(f"/jobs/test/{handle.id}", headers=headers(BLIND))).json()["payload"] == HIDDEN


async def test_jobs_sealed_before_a_rotation_run_after_it(server: RealServer, namespace: str) -> None:
    async with site_on(server, namespace, payload_keys=Secret(OLD)) as site, producing(site) as producer:
        old = await producer.submit(Confide(WORD))
    async with site_on(server, namespace) as site, producing(site) as producer:
        unsealed = await producer.submit(Confide(WORD))
    keys = Secret(f"{NEW},{OLD}")
    async with site_on(server, namespace, payload_keys=keys) as site, producing(site) as producer:
        new = await producer.submit(Confide(WORD))
        async with working(site.settings):
            for handle in (old, unsealed, new):
                assert await producer.handle(handle.id).result(timeout=30) == [WORD]
        ids = {(await site.bodies(it, "completed"))[0]["result"].split(":")[1] for it in (old, unsealed, new)}
        assert len(ids) == 1  # the newest key seals, whatever was opened
        assert (await site.bodies(old, "submitted"))[0]["payload"].split(":")[1] not in ids


@pytest.mark.parametrize(
    ("keys", "words"), [("", "this worker has no keys"), (NEW, "is not among PENSTOCK_PAYLOAD_KEYS here")]
)
async def test_a_worker_without_the_key_gives_the_job_up_and_says_why(
    server: RealServer, namespace: str, keys: str, words: str
) -> None:
    async with site_on(server, namespace, payload_keys=Secret(OLD)) as site, producing(site) as producer:
        handle = await producer.submit(Confide(WORD))
        async with working(site_settings(site, keys)):
            failed = await site.until(handle, "failed")
        assert (failed["reason"], failed["error"]) == ("permanent", "Unsealable")
        assert words in failed["message"]
        with pytest.raises(JobFailed, match=words):
            await handle.result(timeout=30)


async def test_a_payload_that_somebody_changed_is_not_run(server: RealServer, namespace: str) -> None:
    keys = Secret(NEW)
    async with site_on(server, namespace, payload_keys=keys) as site, producing(site) as producer:
        sealed = (await site.bodies(await producer.submit(Confide(WORD)), "submitted"))[0]["payload"]
        flipped = sealed[:40] + ("A" if sealed[40] != "A" else "B") + sealed[41:]
        changed, moved = await site.put(
            f'{{"type":"test.confide","payload":"{flipped}"}}', f'{{"type":"test.echo","payload":"{sealed}"}}'
        )
        async with working(site.settings):
            for job in (changed, moved):
                failed = await site.until(job, "failed")
                assert (failed["reason"], failed["error"]) == ("permanent", "Unsealable")
                assert "was changed, or is that of something else" in failed["message"]


async def test_a_client_without_keys_cannot_read_a_result_and_is_told_so(
    server: RealServer, namespace: str
) -> None:
    async with (
        site_on(server, namespace, payload_keys=Secret(NEW)) as site,
        producing(site) as producer,
        working(site.settings),
    ):
        handle = await ended(site, producer, False)
        async with site_on(server, namespace) as blind, producing(blind) as other:
            with pytest.raises(Unsealable, match="the result is sealed with key"):
                await other.handle(handle.id).result(timeout=30)


def site_settings(site: Site, keys: str) -> Any:
    return msgspec.structs.replace(site.settings, payload_keys=Secret(keys))
