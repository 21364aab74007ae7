"""Redriving as a person types it: what is told beforehand, on the way and afterwards; and beside the server
of the same folder."""

import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from msgspec.structs import replace

from apis import KEY, KEYS
from commands import Command
from penstock.core.jobs.bulk import Filter
from penstock.core.jobs.redrive import Redrive
from penstock.core.settings import Secret, Settings
from penstock.ui.embedded import with_server
from processes import TESTS, dismiss, exit_code
from redrives import Scene, scene_on
from servers import RealServer

WAIT: Final = 60
PATHS: Final = os.pathsep.join(map(str, (TESTS, TESTS.parent / "infra/src")))
Type = Callable[..., Any]

pytestmark = pytest.mark.timeout(180)  # each command is a process, on a machine that may be busy


@pytest.fixture
def server(make_server: Callable[..., RealServer]) -> RealServer:
    """One will do: this is about words."""
    return make_server("redis", aof=False)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, api_keys=KEYS, jobs=("jobs_for_tests",))


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    async with scene_on(settings) as scene:
        yield scene


@pytest.fixture
def typed(penstock: Callable[..., Command], settings: Settings, api: httpx.AsyncClient) -> Type:
    """Run `penstock replay redrive --queue test WORDS`; answers its output, the exit code checked."""

    async def run(*words: str, code: int = 0) -> str:
        environ = {"PENSTOCK_API_KEYS": f"alice:{KEY}", "PENSTOCK_API_URL": str(api.base_url)}
        command = penstock("replay", "redrive", "--queue", "test", *words, **environ)
        assert await exit_code(command, WAIT) == code, command.output
        return command.output

    return run


async def test_beforehand_it_says_what_it_would_do_and_how_long_it_takes(scene: Scene, typed: Type) -> None:
    [good] = await scene.ended(1)
    [bad] = await scene.ended(1, type="test.nap", payload={"seconds": 1})
    told = await typed("--dry-run", "--rate", "4", "--patch", '{"value": "b", "seconds": "soon"}')
    facts, jobs, refused = told.split("\n\n")
    assert facts.splitlines() == ["count     1", "complete  yes", "takes     200 ms at 4/s", "refused   1"]
    head, job = jobs.splitlines()
    assert head.split() == ["job", "type", "state", "submitted", "changes"]
    assert job.startswith(f"{scene.keys.job_id(good)}  test.echo  failed")
    assert job.endswith('value: "a" → "b"  seconds: (none) → "soon"')
    assert refused.splitlines()[1].startswith(f"{scene.keys.job_id(bad)}  payload.seconds: ")
    assert await scene.copies() == []


async def test_followed_it_says_what_was_sent_and_a_second_time_that_it_was_complete(
    scene: Scene, typed: Type, operator: Callable[[], Command]
) -> None:
    await scene.ended(3)
    [strange] = await scene.ended(1, type="test.unheard-of")
    running = operator()
    first = await typed("--id", "x", "--follow")
    facts, refused = first.split("\n\n")
    progress, *rest = facts[facts.index("completed") :].splitlines()
    assert progress == "completed  100%  3 of 4 that fit"
    told = ["state completed", "sent 3", "known 0", "refused 1", "gone 0"]
    assert [" ".join(line.split()) for line in rest[1:]] == told
    job_id = rest[0].split()[1]
    assert refused.splitlines()[1].startswith(f"{scene.keys.job_id(strange)}  unknown job type")
    second = await typed("--id", "x", "--follow")
    assert (
        second == f"Redrive 'x' was complete already: nothing was sent now.\n{first[first.index('id  ') :]}"
    )
    whole = json.loads(await typed("--id", "x", "--follow", "--json"))
    assert (whole["id"], whole["result"]["sent"], whole["payload"]["id"]) == (job_id, 3, "x")
    assert len(await scene.copies()) == 3
    await dismiss(running)


async def test_a_moment_that_is_another_one_next_time_is_told_as_one_that_stays(
    scene: Scene, typed: Type
) -> None:
    await scene.ended(1)
    told = (await typed("--id", "x", "--since", "1d")).splitlines()
    [note] = [line for line in told if line.startswith("to ask for this redrive again, say --since ")]
    moment = note.rsplit(" ", maxsplit=1)[1]
    [job_id] = [line for line in told if line.startswith("id ")]
    assert job_id in (await typed("--id", "x", "--since", moment)).splitlines(), "the same one"
    assert "another redrive under the same name" in await typed("--id", "x", "--since", "2d", code=1)


async def test_a_worker_beside_the_server_of_its_folder_carries_one_out(
    penstock: Callable[..., Command], tmp_path: Path, namespace: str
) -> None:
    environ = {
        "PENSTOCK_NAMESPACE": namespace,
        "PENSTOCK_JOBS": "jobs_for_tests",
        "PYTHONPATH": PATHS,
    }
    server = penstock("server", **environ)
    server.says("on a unix socket")
    worker = penstock("worker", "--queues", "penstock", **environ)
    worker.says("ready: ")
    ours = with_server(Settings(data_dir=tmp_path, namespace=namespace, redis_url=Secret("")))
    async with scene_on(ours) as scene:
        await scene.ended(2)
        redrive = await scene.producer.submit(Redrive(filter=Filter(queue="test")))
        assert (await redrive.result(timeout=WAIT))["sent"] == 2
        assert len(await scene.copies()) == 2
        assert [event.tag for event in await redrive.events()].count("started") == 1
    await dismiss(worker, server)
