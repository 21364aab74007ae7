"""`penstock flow …` against a real API, with coordinator and worker as processes."""

import json
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

import flow_jobs
import jobs_for_tests
from apis import running_api
from commands import Command
from penstock.core.settings import Settings
from processes import exit_code, start_worker
from servers import RealServer

FLOW = {
    "name": "sums",
    "nodes": [
        {"name": "one", "type": "test.sum", "payload": {"own": 1}},
        {"name": "two", "type": "test.sum", "payload": {"own": 2}, "after": ["one"]},
    ],
}


@pytest.fixture
async def settings(settings: Settings) -> AsyncIterator[Settings]:
    settings = replace(settings, jobs=(flow_jobs.__name__, jobs_for_tests.__name__))
    async with running_api(settings):
        yield settings


async def test_flows_from_the_command_line(
    settings: Settings, server: RealServer, namespace: str, penstock: Callable[..., Command], tmp_path: Path
) -> None:
    async def ask(*words: str, code: int = 0) -> str:
        command = penstock(*words, PENSTOCK_API_PORT=settings.api_port)
        assert await exit_code(command) == code, command.output
        return command.output

    coordinator = penstock("flows", PENSTOCK_REDIS_URL=server.url, PENSTOCK_NAMESPACE=namespace)
    coordinator.says("ready")
    worker = start_worker(penstock, server, namespace, jobs=",".join(settings.jobs))
    file = tmp_path / "flow.json"
    file.write_text(json.dumps(FLOW))

    done = await ask("flow", "submit", str(file), "--wait", "20", "--key", "k")
    assert re.search(r"^state +completed$", done, re.MULTILINE)
    assert re.search(r"^two +completed +one +test\.0\.\d+-\d+$", done, re.MULTILINE)
    flow = json.loads(await ask("flow", "submit", str(file), "--key", "k", "--json"))
    assert flow["id"] in done
    assert re.search(rf"^{flow['id']} +sums +completed +100%", await ask("flow", "list"), re.MULTILINE)
    assert "is completed" in await ask("flow", "cancel", flow["id"], code=1)

    gate = {"name": "gate", "type": "test.gate", "payload": {"file": str(tmp_path / "gate")}}
    file.write_text(json.dumps({"nodes": [gate]}))
    waiting = json.loads(await ask("flow", "submit", str(file), "--json"))
    await ask("flow", "cancel", waiting["id"], "--reason", "enough")
    ended = json.loads(await ask("flow", "show", waiting["id"], "--wait", "10", "--json"))
    assert ended["state"] == "cancelled"

    file.write_text('{"nodes": [{"name": "a", "type": "test.sum", "payload": {}, "after": ["b"]}]}')
    assert "nodes[0].after[0]: no node 'b'" in await ask("flow", "submit", str(file), code=2)
    assert "is no flow as JSON" in await ask("flow", "submit", __file__, code=2)
    assert "no flow flow.1-1" in await ask("flow", "show", "flow.1-1", code=1)

    for process in (coordinator, worker):
        process.signal(signal.SIGTERM)
        assert await exit_code(process) == 0, process.output
