"""Webhook endpoints over HTTP and on the command line: made, changed, tested, paused, replayed, removed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from apis import KEY, KEYS, api_settings, problems, running_api
from commands import Command
from hooks import receiving, sending
from jobs_for_tests import Echo
from penstock.core.settings import Settings
from penstock.core.webhooks import ENDS
from penstock.producer.client import Producer
from penstock.ui.openapi_webhooks import COMMANDS
from processes import eventually, exit_code, working
from servers import RealServer

URL = "https://example.org/hook"
ALICE = {"Authorization": f"Bearer {KEY}"}


def hooked(server: RealServer, namespace: str, folder: Path) -> Settings:
    """Settings of an API whose webhooks reach this machine."""
    more: dict[str, Any] = {"fetch_private": True, "jobs": ("jobs_for_tests",), "queues": ("test",)}
    return api_settings(server, namespace, folder, **more)


async def test_the_life_of_an_endpoint(server: RealServer, namespace: str, tmp_path: Path) -> None:
    async with running_api(api_settings(server, namespace, tmp_path, api_keys=KEYS)) as api:
        api.headers.update(ALICE)
        made = await api.put("/webhooks/crm", json={"url": URL})
        assert made.status_code == 201
        view = made.json()
        secret = view.pop("secret")
        assert secret.startswith("whsec_")
        changed_at = view.pop("changed_at")
        assert view == {
            "name": "crm",
            "url": URL,
            "events": list(ENDS),
            "types": [],
            "queues": [],
            "paused": False,
            "by": "alice",
        }
        again = await api.put("/webhooks/crm", json={"url": URL})
        assert again.status_code == 200
        assert again.json() == {**view, "changed_at": changed_at}  # nothing was written

        body = {"url": f"{URL}/2", "events": ["*"], "types": ["email.send"], "queues": ["email"]}
        changed = await api.put("/webhooks/crm", json=body)
        assert {name: changed.json()[name] for name in body} == body
        assert "secret" not in changed.json()
        assert secret not in (await api.get("/webhooks/crm")).text
        assert [it["name"] for it in (await api.get("/webhooks")).json()["webhooks"]] == ["crm"]

        assert (await api.post("/webhooks/crm/pause")).json()["paused"] is True
        assert (await api.post("/webhooks/crm/resume")).json()["paused"] is False
        rotated = (await api.post("/webhooks/crm/rotate")).json()["secret"]
        assert rotated.startswith("whsec_")
        assert rotated != secret
        assert (await api.post("/webhooks/crm/replay", json={"since": 1795477369681})).status_code == 202

        assert (await api.delete("/webhooks/crm")).status_code == 204
        assert problems(await api.get("/webhooks/crm"), 404) == {}
        for act in ("pause", "resume", "rotate", "test"):
            assert problems(await api.post(f"/webhooks/crm/{act}"), 404) == {}
        assert problems(await api.post("/webhooks/crm/replay", json={"after": "5-0"}), 404) == {}
        assert problems(await api.delete("/webhooks/crm"), 404) == {}


@pytest.mark.parametrize(
    ("name", "body", "paths"),
    [
        ("crm", {}, {"url"}),
        ("crm", {"url": "ftp://example.org"}, {"url"}),
        ("crm", {"url": "https://ada:word@example.org"}, {"url"}),
        ("crm", {"url": "https://example.org:22"}, {"url"}),
        ("crm", {"url": "http://127.0.0.1:8000/hook"}, {"url"}),
        ("crm", {"url": "http://[::1]/hook"}, {"url"}),
        ("crm", {"url": "http://localhost/hook"}, {"url"}),
        ("crm", {"url": "http://169.254.169.254/latest"}, {"url"}),
        ("crm", {"url": "nonsense"}, {"url"}),
        ("crm", {"url": "x" * 2_001, "events": []}, {"url", "events"}),
        ("CRM", {"url": URL}, {"endpoint"}),
        ("crm", {"url": URL, "events": ["job.completed", "job.exploded"]}, {"events[1]"}),
        ("crm", {"url": URL, "types": ["Not One"], "queues": ["a", "Not One"]}, {"types[0]", "queues[1]"}),
        ("crm", {"url": URL, "secret": "whsec_short"}, {"secret"}),
        ("crm", {"url": URL, "secret": "A" * 44}, {"secret"}),
        ("crm", {"url": URL, "retries": 3}, {"retries"}),
    ],
)
async def test_what_is_wrong_is_named(
    server: RealServer, namespace: str, tmp_path: Path, name: str, body: dict[str, Any], paths: set[str]
) -> None:
    async with running_api(api_settings(server, namespace, tmp_path)) as api:
        assert problems(await api.put(f"/webhooks/{name}", json=body), 422).keys() == paths
        assert (await api.get("/webhooks")).json() == {"webhooks": []}


async def test_a_replay_says_from_where(server: RealServer, namespace: str, tmp_path: Path) -> None:
    async with running_api(api_settings(server, namespace, tmp_path)) as api:
        await api.put("/webhooks/crm", json={"url": URL})
        for body in ({}, {"since": 1, "after": "1-0"}):
            assert problems(await api.post("/webhooks/crm/replay", json=body), 422).keys() == {"since"}
        assert problems(await api.post("/webhooks/crm/replay", json={"after": "x"}), 422).keys() == {"after"}
        for since in ("2030-01-31T09:00:00", "yesterday", -1):
            answer = await api.post("/webhooks/crm/replay", json={"since": since})
            assert problems(answer, 422).keys() == {"since"}
        good = await api.post("/webhooks/crm/replay", json={"since": "2026-01-31T09:00:00+01:00"})
        assert good.status_code == 202


async def test_nobody_without_a_key_learns_or_changes_anything(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    async with running_api(api_settings(server, namespace, tmp_path, api_keys=KEYS)) as api:
        for command in COMMANDS:
            path = command.path.replace("{endpoint}", "crm")
            answer = await api.request(command.method.upper(), path, json={"url": URL})
            assert problems(answer, 401) == {}


async def test_the_description_has_every_operation(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    async with running_api(api_settings(server, namespace, tmp_path)) as api:
        paths = (await api.get("/openapi.json")).json()["paths"]
        for command in COMMANDS:
            assert paths[command.path][command.method]["operationId"] == command.id
        assert "content" not in paths["/webhooks/{endpoint}"]["delete"]["responses"]["204"]


async def test_a_test_arrives_and_its_job_says_so(server: RealServer, namespace: str, tmp_path: Path) -> None:
    settings = hooked(server, namespace, tmp_path)
    with receiving() as receiver:
        async with running_api(settings) as api, sending(settings):
            secret = (await api.put("/webhooks/crm", json={"url": f"{receiver.url}/hook"})).json()["secret"]
            sent = await api.post("/webhooks/crm/test")
            assert sent.status_code == 202
            job = (await api.get(f"/jobs/webhooks/{sent.json()['job']}?wait=10")).json()
            assert (job["state"], job["result"]) == ("completed", {"status": 204})
            [got] = receiver.requests
            told = got.verified(secret)
            assert (told["type"], told["data"]) == ("webhook.test", {"endpoint": "crm"})
            assert got.id.startswith("msg_test_")
            assert "." not in got.id


async def test_how_far_the_logs_were_read_is_shown(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    settings = hooked(server, namespace, tmp_path)
    with receiving() as receiver:
        async with running_api(settings) as api, sending(settings), working(settings):
            await api.put("/webhooks/crm", json={"url": f"{receiver.url}/hook"})
            async with Producer(settings) as producer:
                job = await producer.submit(Echo(1))
                await job.result(timeout=30)
                events = await job.events()
            await receiver.until(1)

            async def reached() -> bool:
                view = (await api.get("/webhooks/crm")).json()
                return bool(view.get("reached") == {"test": events[-1].position})

            await eventually(reached, 30, "its log is read to the end")


async def test_the_command_line(
    server: RealServer, namespace: str, tmp_path: Path, penstock: Callable[..., Command]
) -> None:
    settings = hooked(server, namespace, tmp_path)
    with receiving() as receiver:
        async with running_api(settings) as api, sending(settings):
            made = await run(
                penstock, api, "set", "crm", f"{receiver.url}/hook", "--events", "job.failed, queue.paused"
            )
            assert made["secret"].startswith("whsec_")
            assert made["events"] == ["job.failed", "queue.paused"]
            assert [it["name"] for it in await run(penstock, api, "list")] == ["crm"]
            job = (await run(penstock, api, "test", "crm"))["job"]
            assert (await api.get(f"/jobs/webhooks/{job}?wait=10")).json()["state"] == "completed"
            assert (await run(penstock, api, "pause", "crm"))["paused"] is True
            assert (await run(penstock, api, "resume", "crm"))["paused"] is False
            assert (await run(penstock, api, "rotate", "crm"))["secret"] != made["secret"]
            since = "2026-01-31T09:00:00+01:00"
            assert (await run(penstock, api, "replay", "crm", "--since", since))["name"] == "crm"
            assert (await run(penstock, api, "show", "crm"))["url"] == f"{receiver.url}/hook"
            removed = penstock("webhook", "remove", "crm", "--api", str(api.base_url))
            assert (await exit_code(removed), removed.output) == (0, "crm removed\n")
            gone = penstock("webhook", "show", "crm", "--api", str(api.base_url))
            assert (await exit_code(gone), gone.output) == (1, "penstock: no webhook endpoint 'crm'\n")


async def run(penstock: Callable[..., Command], api: httpx.AsyncClient, *words: str) -> Any:
    command = penstock("webhook", *words, "--json", "--api", str(api.base_url))
    assert await exit_code(command) == 0, command.output
    return msgspec.json.decode(command.output)
