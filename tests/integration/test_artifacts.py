"""Artifacts in a local folder and in a real S3-compatible server behave the same."""

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import msgspec
import pytest
from moto.server import ThreadedMotoServer

from penstock.core.artifacts import Artifact, Artifacts, Damaged, clean_filename, open_artifacts
from penstock.core.errors import Misconfigured, NotFound, TooLarge, Unavailable
from penstock.core.settings import Settings, read_settings

DATA = os.urandom(700_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_environment(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "AWS_ENDPOINT": s3,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    if request.param == "folder":
        return open_artifacts(Settings(data_dir=tmp_path, max_artifact=10**6))
    endpoint = request.getfixturevalue("s3_environment")
    bucket = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]
    httpx.put(f"{endpoint}/{bucket}").raise_for_status()
    settings = read_settings(
        {"PENSTOCK_ARTIFACTS_URL": f"s3://{bucket}/some/prefix", "PENSTOCK_MAX_ARTIFACT": "1000000"}
    )
    return open_artifacts(settings)


def test_what_is_put_can_be_got_and_described(store: Artifacts) -> None:
    artifact = store.put(DATA, content_type="image/png", filename="../Ünder/cat.png")
    assert artifact.id == f"sha256-{DIGEST}"
    assert (artifact.size, artifact.sha256) == (len(DATA), DIGEST)
    assert (artifact.content_type, artifact.filename) == ("image/png", "cat.png")
    assert artifact.created > 1_700_000_000_000
    assert store.get(artifact.id) == DATA
    assert store.describe(artifact.id) == artifact


async def test_the_async_faces_do_the_same(store: Artifacts) -> None:
    artifact = await store.aput(DATA, content_type="text/plain; charset=utf-8", filename="a.txt")
    assert await store.aget(artifact.id) == DATA
    assert await store.adescribe(artifact.id) == artifact
    chunks = [chunk async for chunk in store.astream(artifact.id)]
    assert b"".join(chunks) == DATA
    assert len(chunks) > 1


def test_the_same_bytes_are_kept_once_under_their_first_name(store: Artifacts) -> None:
    first = store.put(DATA, content_type="image/png", filename="first.png")
    assert store.put(DATA, content_type="image/gif", filename="second.gif") == first
    assert store.put(DATA + b"!").id != first.id


def test_many_putting_the_same_bytes_at_once_agree(store: Artifacts) -> None:
    start = threading.Barrier(8)

    def put(number: int) -> Artifact:
        start.wait(10)
        return store.put(DATA, filename=f"{number}.bin")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(put, range(8)))
    assert set(answers) == {store.describe(f"sha256-{DIGEST}")}
    assert store.get(answers[0].id) == DATA


def test_an_empty_artifact_is_one(store: Artifacts) -> None:
    assert store.get(store.put(b"").id) == b""


async def test_too_large_is_refused_before_anything_is_written(store: Artifacts) -> None:
    large = bytes(10**6 + 1)
    with pytest.raises(TooLarge, match="1000001 is over the limit of 1000000"):
        store.put(large)
    with pytest.raises(NotFound):
        await store.adescribe(f"sha256-{hashlib.sha256(large).hexdigest()}")


@pytest.mark.parametrize(
    "id",
    [
        f"sha256-{'0' * 64}",
        "",
        "sha256-",
        f"sha256-{'0' * 63}",
        f"sha256-{'0' * 65}",
        f"sha256-{'A' * 64}",
        f"sha256-{'0' * 64}\n",
        f"sha256-{'0' * 64}.json",
        "sha256-../../../../etc/passwd",
        "../" * 20 + "etc/passwd",
    ],
)
async def test_an_unknown_or_malformed_id_is_not_found(store: Artifacts, id: str) -> None:
    with pytest.raises(NotFound):
        store.get(id)
    with pytest.raises(NotFound):
        await store.adescribe(id)
    with pytest.raises(NotFound):
        _ = [chunk async for chunk in store.astream(id)]


@pytest.mark.parametrize(
    "content_type", ["", "png", "text/html\r\nSet-Cookie: a=b", "a/b" * 100, "text/plain; x", "text/<x>"]
)
def test_a_content_type_that_is_none_is_kept_as_bytes(store: Artifacts, content_type: str) -> None:
    assert store.put(b"x", content_type=content_type).content_type == "application/octet-stream"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("photo.jpg", "photo.jpg"),
        ("/etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo 1.jpg", "photo 1.jpg"),
        ("..", ""),
        (".hidden", "hidden"),
        ("a\r\nb\x00.txt", "ab.txt"),
        ("invoice\u202egnp.exe", "invoicegnp.exe"),
        ("Übergrößenträger.png", "Übergrößenträger.png"),
        ("x" * 500, "x" * 150),
    ],
)
def test_a_filename_is_cleaned(given: str, kept: str) -> None:
    assert clean_filename(given) == kept


async def test_damaged_bytes_are_told(tmp_path: Path) -> None:
    store = open_artifacts(Settings(data_dir=tmp_path))
    artifact = store.put(DATA)
    (file,) = (path for path in (tmp_path / "artifacts").rglob("*") if path.name == DIGEST)
    file.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(Damaged, match="was changed in its store"):
        store.get(artifact.id)
    with pytest.raises(Damaged):
        _ = [chunk async for chunk in store.astream(artifact.id)]


def test_bytes_without_their_description_are_no_artifact(tmp_path: Path) -> None:
    """As after a crash between the two writes; the next put of the same bytes completes it."""
    store = open_artifacts(Settings(data_dir=tmp_path))
    artifact = store.put(DATA)
    (file,) = (tmp_path / "artifacts").rglob("*.json")
    assert msgspec.json.decode(file.read_bytes(), type=Artifact) == artifact
    file.unlink()
    with pytest.raises(NotFound):
        store.describe(artifact.id)
    assert store.put(DATA, filename="again").filename == "again"


def test_a_file_url_names_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    store = open_artifacts(Settings(artifacts_url=f"file://{tmp_path}/with%20space"))
    store.put(b"here")
    assert list(folder.rglob("*.json"))


@pytest.mark.parametrize("url", ["memory:///", "ftp://host/x", "nonsense", "http://host/x"])
def test_a_url_of_no_store_is_said_with_its_variable(url: str) -> None:
    with pytest.raises(Misconfigured, match="PENSTOCK_ARTIFACTS_URL"):
        open_artifacts(Settings(artifacts_url=url))


def test_a_store_that_fails_is_unavailable_in_one_line(s3_environment: str) -> None:
    store = open_artifacts(Settings(artifacts_url="s3://no-such-bucket/x"))
    with pytest.raises(Unavailable, match="artifact store: ") as failure:
        store.put(b"x")
    assert "\n" not in str(failure.value)
