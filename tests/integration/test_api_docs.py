"""The description says what the API does, and its page works without the internet."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from apis import KEYS, api_settings, problems, running_api
from penstock.core.contracts import contracts
from penstock.core.errors import Misconfigured
from penstock.core.settings import Settings
from penstock.ui.api import create_app, serve_api
from servers import RealServer

OWN_JOB = '''
from typing import Annotated
import msgspec
from penstock.core import Backoff, contract

@contract("greet.hello", attempts=9, backoff=Backoff(base=3.0))
class Problem(msgspec.Struct):
    """Say hello."""
    name: Annotated[str, msgspec.Meta(max_length=20)]

# Two Structs that share their name, as a factory of contracts would make them.
contract("greet.count")(msgspec.defstruct("Twin", [("number", int)], module=__name__))
contract("greet.call")(msgspec.defstruct("Twin", [("name", str)], module=__name__))
'''


@pytest.fixture
def settings(
    make_server: type[RealServer], namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    (tmp_path / "own_greetings.py").write_text(OWN_JOB)
    monkeypatch.syspath_prepend(str(tmp_path))
    server = make_server("redis", aof=False)
    return api_settings(server, namespace, tmp_path, jobs=("own_greetings",), api_keys=KEYS)


@pytest.fixture
async def document(api: httpx.AsyncClient) -> dict[str, Any]:
    answer = await api.get("/openapi.json")
    assert answer.status_code == 200
    told: dict[str, Any] = answer.json()
    return told


async def test_it_is_valid_openapi(document: dict[str, Any]) -> None:
    errors = [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]
    assert errors == []
    assert document["openapi"].startswith("3.1")


async def test_contracts_whose_structs_share_a_name_are_told_apart(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for type, field in (("greet.count", "number"), ("greet.call", "name")):
        payload = schemas[f"job.{type}"]["properties"]["payload"]
        assert set(schemas[payload["$ref"].removeprefix("#/components/schemas/")]["properties"]) == {field}


async def test_every_route_is_described_and_no_other(document: dict[str, Any], settings: Settings) -> None:
    served = {
        (route.path_format, method)
        for route in create_app(settings).routes
        for method in getattr(route, "methods", ())
        if method not in ("OPTIONS", "HEAD")
    }
    described = {
        (path, method.upper()) for path, operations in document["paths"].items() for method in operations
    }
    unlisted = {("/", "GET"), ("/docs", "GET"), ("/docs/{name}", "GET"), ("/openapi.json", "GET")}
    assert described == served - unlisted
    for operations in document["paths"].values():
        assert all(operation["summary"] and operation["operationId"] for operation in operations.values())


async def test_every_contract_can_be_submitted_by_its_description(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    post = document["paths"]["/jobs/{queue}"]["post"]
    assert post["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/job")
    mapping = schemas["job"]["discriminator"]["mapping"]
    assert set(mapping) == {contract.type for contract in contracts()}
    assert {"greet.hello", "image.resize", "email.send", "ai.language"} <= set(mapping)
    own = schemas["job.greet.hello"]
    assert own["properties"]["attempts"]["default"] == 9
    assert own["properties"]["backoff"]["default"]["base"] == 3.0
    payload = schemas[own["properties"]["payload"]["$ref"].rpartition("/")[2]]
    assert payload["properties"]["name"]["maxLength"] == 20
    assert "status" in schemas["Problem"]["properties"], "a user's Struct of that name does not hide ours"


async def test_all_refusals_are_described_as_problems(document: dict[str, Any]) -> None:
    post = document["paths"]["/jobs/{queue}"]["post"]["responses"]
    refusals = (400, 401, 403, 408, 413, 415, 422, 429, 500, 503)
    assert set(post) == {"202", "200", *map(str, refusals)}
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                assert int(status) < 400 or answer == {"$ref": f"#/components/responses/{status}"}
    for answer in document["components"]["responses"].values():
        assert list(answer["content"]) == ["application/problem+json"]


async def test_own_jobs_are_taken(api: httpx.AsyncClient) -> None:
    headers = {"Authorization": f"Bearer {KEYS.reveal().split(',')[0].split(':')[1]}"}
    job = {"type": "greet.hello", "payload": {"name": "Ada"}}
    assert (await api.post("/jobs/greet", json=job, headers=headers)).status_code == 202
    wrong = {"type": "greet.hello", "payload": {"name": "A" * 21}}
    assert set(problems(await api.post("/jobs/greet", json=wrong, headers=headers), 422)) == {"payload.name"}


async def test_the_page_needs_nothing_from_elsewhere(api: httpx.AsyncClient) -> None:
    page = await api.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert not re.search(r"https?:|unsafe", policy)
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 4
    for link in links:
        assert link.startswith("/docs/")
        answer = await api.get(link)
        assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff")
    assert not re.search(r"<script[^>]*>[^<]", page.text), "no script is written into the page"
    assert "/openapi.json" in (await api.get("/docs/start.js")).text
    assert problems(await api.get("/docs/other.js"), 404) == {}


async def test_the_root_says_where_to_find_what(api: httpx.AsyncClient) -> None:
    index = (await api.get("/")).json()
    for name in ("docs", "openapi", "health"):
        assert (await api.get(index[name])).status_code == 200


@pytest.mark.parametrize("name", ["uvicorn", "granian"])
async def test_other_servers_serve_where_they_are_installed(settings: Settings, name: str) -> None:
    pytest.importorskip(name)
    async with running_api(msgspec.structs.replace(settings, server=name)) as api:
        assert (await api.get("/health/ready")).json() == {"status": "ok"}
        assert problems(await api.get("/queues"), 401) == {}


@pytest.mark.parametrize(("name", "module"), [("uvicorn", "uvicorn"), ("granian", "granian.server.embed")])
async def test_a_server_that_is_not_installed_is_named_with_its_extra(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    with pytest.raises(Misconfigured, match=r"penstock\[servers\]"):
        await serve_api(msgspec.structs.replace(settings, server=name), stop=asyncio.Event())
