"""Files go in as a body or as a form, come out as they went in, and can do no harm in a browser."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from apis import api_settings, problems
from penstock.core.settings import Settings
from servers import RealServer

LIMIT = 3_000_000
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9_000


@pytest.fixture
def settings(make_server: type[RealServer], namespace: str, tmp_path: Path) -> Settings:
    return api_settings(make_server("redis", aof=False), namespace, tmp_path, max_artifact=LIMIT)


async def test_a_body_comes_out_as_it_went_in(api: httpx.AsyncClient) -> None:
    stored = await api.post(
        "/artifacts?filename=../../etc/Ä%20picture.png", content=PNG, headers={"Content-Type": "image/png"}
    )
    assert stored.status_code == 201
    told = stored.json()
    digest = hashlib.sha256(PNG).hexdigest()
    assert (told["id"], told["sha256"], told["size"]) == (f"sha256-{digest}", digest, len(PNG))
    assert (told["content_type"], told["filename"]) == ("image/png", "Ä picture.png")
    assert stored.headers["location"] == f"/artifacts/{told['id']}"

    fetched = await api.get(stored.headers["location"])
    assert (fetched.status_code, fetched.content) == (200, PNG)
    assert fetched.headers["content-type"] == "image/png"
    assert fetched.headers["content-length"] == str(len(PNG))
    assert fetched.headers["etag"] == f'"{digest}"'
    assert fetched.headers["content-disposition"] == "inline; filename*=UTF-8''%C3%84%20picture.png"
    head = await api.head(stored.headers["location"])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(PNG))


@pytest.mark.parametrize("tags", ['"{0}"', 'W/"{0}"', '"other", "{0}"', "*"])
async def test_a_copy_that_is_there_is_not_sent_again(api: httpx.AsyncClient, tags: str) -> None:
    stored = (await api.post("/artifacts", content=b"text")).json()
    headers = {"If-None-Match": tags.format(stored["sha256"])}
    fetched = await api.get(f"/artifacts/{stored['id']}", headers=headers)
    assert (fetched.status_code, fetched.content) == (304, b"")
    assert fetched.headers["etag"] == f'"{stored["sha256"]}"'
    other = await api.get(f"/artifacts/{stored['id']}", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("image/png", True),
        ("text/plain; charset=utf-8", True),
        ("text/html", False),
        ("image/svg+xml", False),
        ("application/pdf", False),
        ("", False),
    ],
)
async def test_only_what_is_safe_is_shown_and_nothing_is_run(
    api: httpx.AsyncClient, kind: str, shown: bool
) -> None:
    body = f"<script>{kind}</script>".encode()
    stored = (await api.post("/artifacts", content=body, headers={"Content-Type": kind})).json()
    fetched = await api.get(f"/artifacts/{stored['id']}")
    assert fetched.headers["content-type"] == (kind or "application/octet-stream")
    assert fetched.headers["content-disposition"] == ("inline" if shown else "attachment")
    assert fetched.headers["x-content-type-options"] == "nosniff"
    assert fetched.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


async def test_a_form_with_one_file_is_taken(api: httpx.AsyncClient) -> None:
    files = {"file": ("photo.png", PNG, "image/png")}
    stored = await api.post("/artifacts", data={"note": "x"}, files=files)
    assert stored.status_code == 201
    assert (stored.json()["filename"], stored.json()["content_type"]) == ("photo.png", "image/png")
    assert (await api.get(stored.headers["location"])).content == PNG


async def test_the_name_may_stand_in_content_disposition(api: httpx.AsyncClient) -> None:
    headers = {"Content-Disposition": 'attachment; filename="a b.txt"', "Content-Type": "text/plain"}
    stored = await api.post("/artifacts", content=b"words", headers=headers)
    assert stored.json()["filename"] == "a b.txt"


async def test_a_form_without_or_with_two_files_is_refused(api: httpx.AsyncClient) -> None:
    boundary = {"Content-Type": "multipart/form-data; boundary=xyz"}
    field = b'--xyz\r\nContent-Disposition: form-data; name="note"\r\n\r\nwords\r\n--xyz--\r\n'
    assert set(problems(await api.post("/artifacts", content=field, headers=boundary), 422)) == {"form"}
    two = [("file", ("a", b"a")), ("file", ("b", b"b"))]
    assert set(problems(await api.post("/artifacts", files=two), 422)) == {"form"}


@pytest.mark.parametrize("body", [b"", b"nonsense", b"--xyz\r\nContent-Disposition: form-data; name="])
@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=xyz", "multipart/form-data"])
async def test_a_form_that_is_none_is_malformed(api: httpx.AsyncClient, body: bytes, kind: str) -> None:
    answer = await api.post("/artifacts", content=body, headers={"Content-Type": kind})
    assert problems(answer, 400) == {}


async def test_too_large_is_noticed_while_it_comes(api: httpx.AsyncClient, settings: Settings) -> None:
    async def streamed() -> AsyncIterator[bytes]:
        for _ in range(LIMIT // 100_000 + 2):
            yield bytes(100_000)

    assert problems(await api.post("/artifacts", content=streamed()), 413) == {}
    assert problems(await api.post("/artifacts", content=bytes(LIMIT + 1)), 413) == {}
    form = {"file": ("big", bytes(LIMIT + 1), "image/png")}
    assert problems(await api.post("/artifacts", files=form), 413) == {}
    assert (await api.post("/artifacts", content=bytes(LIMIT))).status_code == 201
    kept = [path for path in (settings.data_dir / "artifacts").rglob("*") if path.is_file()]
    assert len(kept) == 2, "the bytes of the last one and what is known of them"


@pytest.mark.parametrize("id", ["nothing", f"sha256-{'0' * 64}", "..%2f..%2fetc%2fpasswd"])
async def test_what_is_not_there_is_not_found(api: httpx.AsyncClient, id: str) -> None:
    assert problems(await api.get(f"/artifacts/{id}"), 404) == {}


async def test_a_damaged_file_breaks_off(api: httpx.AsyncClient, settings: Settings) -> None:
    stored = (await api.post("/artifacts", content=PNG)).json()
    [path] = (settings.data_dir / "artifacts").rglob(stored["sha256"])
    path.write_bytes(PNG[:-1] + b"?")
    with pytest.raises(httpx.RemoteProtocolError):
        (await api.get(f"/artifacts/{stored['id']}")).raise_for_status()
