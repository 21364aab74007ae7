"""What the replay tool refuses: one line that says what is wrong and what to do, and not a byte on the server
is another than before."""

import io
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from apis import problems, running_api
from commands import Command
from histories import Author
from penstock.core import errors
from penstock.core.connection import command
from penstock.core.log import Log
from penstock.core.positions import START, milliseconds
from penstock.core.settings import Settings
from penstock.projections.details import instant
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.archiver import PartitionArchiver
from penstock.projections.replay.exporting import Asked, export
from penstock.projections.replay.importing import bring_in
from processes import exit_code
from projectors import soon, sweep
from servers import RealServer

Refused = Callable[..., Awaitable[str]]
Bytes = dict[bytes, bytes]


class Scene:
    """A queue whose log was trimmed, once; exports and an archive of it, whole and damaged."""

    def __init__(self, author: Author, settings: Settings, folder: Path) -> None:
        self.author = author
        self.redis = author.redis
        self.keys = author.keys
        self.settings = settings
        self.folder = folder
        self.begins = ""

    async def make(self) -> None:
        await self.author.scene()
        await self.out("early.ndjson.zst")
        await self.archived("archive")
        await sweep(soon(self.settings), self.redis, self.keys)
        await self.author.scene()
        for name in ("log.ndjson", "log.ndjson.zst", "log.parquet"):
            await self.out(name)
        self.damage("log.ndjson", "changed.ndjson", lambda data: data.replace(b"ada@", b"eve@", 1))
        self.damage("log.ndjson", "cut.ndjson", lambda data: data[:-700])
        self.damage("log.ndjson", "more.ndjson", lambda data: data + b"{}\n")
        self.damage("log.ndjson", "newer.ndjson", lambda data: data.replace(b'{"format":1', b'{"format":2'))
        self.damage("log.ndjson.zst", "cut.ndjson.zst", lambda data: data[: len(data) // 2])
        self.damage("log.ndjson.zst", "spoiled.ndjson.zst", spoiled)
        self.damage("log.parquet", "spoiled.parquet", spoiled_table)
        self.damage("log.parquet", "cut.parquet", lambda data: data[: len(data) // 2])
        (self.folder / "empty.ndjson").touch()
        (self.folder / "text.ndjson").write_text("to whom it may concern\n")
        [(first, _)] = await Log(self.redis, self.keys).entries(START, 1)
        self.begins = instant(milliseconds(first.decode()))
        epoch = await command(self.redis, "GETSET", self.keys.epoch, "another")
        await self.out("other.ndjson")
        await self.redis.set(self.keys.epoch, epoch)

    async def out(self, name: str) -> None:
        path = str(self.folder / name)
        await export(self.settings, Asked(queue=self.keys.queue), path, lambda *_: None)

    async def archived(self, name: str) -> None:
        ours = PartitionArchiver(self.redis, self.keys, Archive(str(self.folder / name), make=True), 60)
        await ours.enter()
        assert await ours.step(due=True)
        shutil.copytree(self.folder / name, self.folder / "damaged")
        [segment] = (self.folder / "damaged").rglob("*_*.ndjson.zst")
        segment.write_bytes(spoiled(segment.read_bytes()))

    def damage(self, name: str, other: str, how: Callable[[bytes], bytes]) -> None:
        (self.folder / other).write_bytes(how((self.folder / name).read_bytes()))

    async def all(self) -> Bytes:
        """Every key of the server but those of other tests, byte by byte."""
        names = [name async for name in self.redis.scan_iter(match=f"{self.settings.namespace}*", count=1000)]
        return {name: await command(self.redis, "DUMP", name) for name in sorted(names)}


def spoiled(data: bytes) -> bytes:
    """With zeros in the middle. (One bit alone may change nothing of what was compressed.)"""
    half = len(data) // 2
    return data[:half] + bytes(64) + data[half + 64 :]


def spoiled_table(data: bytes) -> bytes:
    """The same, in the middle of the column that the bodies are in."""
    metadata = pq.read_metadata(io.BytesIO(data))
    column = metadata.schema.names.index("data")
    told = metadata.row_group(0).column(column)
    changed = bytearray(data)
    changed[(told.dictionary_page_offset or told.data_page_offset) + told.total_compressed_size // 2] ^= 1
    return bytes(changed)


@pytest.fixture
def server(make_server: Callable[..., RealServer]) -> RealServer:
    """One will do: what is refused here is refused by this side."""
    return make_server("redis")


@pytest.fixture
async def scene(author: Author, settings: Settings, tmp_path: Path) -> Scene:
    scene = Scene(author, settings, tmp_path)
    await scene.make()
    return scene


IMPORTS = {
    "log.ndjson": "queue 'mail' has a log already, and nothing is put over it: choose another one with --que",
    "changed.ndjson new": "changed.ndjson: the checksum is wrong: ",
    "cut.ndjson new": "cut.ndjson: the end is missing: it was cut after ",
    "more.ndjson new": "more.ndjson: there is more after the manifest, in line ",
    "newer.ndjson new": "newer.ndjson: is of format 2; this version reads 1",
    "cut.ndjson.zst new": "cut.ndjson.zst: ",
    "spoiled.ndjson.zst new": "spoiled.ndjson.zst: ",
    "cut.parquet new": "cut.parquet: it was damaged: ",
    "spoiled.parquet new": "spoiled.parquet: it was damaged: ",
    "empty.ndjson new": "empty.ndjson: the end is missing: it was cut after 0 events, or is no export",
    "text.ndjson new": "text.ndjson: line 1 is no event of a log",
    "nowhere.ndjson new": "nowhere.ndjson: there is no such file",
    "log.ndjson other.ndjson new": "these are two logs, which are not mixed",
    "log.ndjson early.ndjson.zst new": "does not go on where",
    "log.ndjson Not/One": "'Not/One' is no queue's name",
}


async def test_an_import_is_whole_or_nothing(scene: Scene, refused: Refused) -> None:
    before = await scene.all()
    for words, said in IMPORTS.items():
        *names, queue = words.split() if " " in words else (words, "")
        paths = [str(scene.folder / name) for name in names]
        with pytest.raises(errors.Refused) as raised:
            await bring_in(scene.settings, paths, queue, lambda *_: None)
        assert said in str(raised.value), words
        assert "\n" not in str(raised.value)
        assert await scene.all() == before, words
    assert "the checksum is wrong" in await refused("import", "changed.ndjson", "--queue", "new")
    assert await scene.all() == before


MOMENTS = (
    ("grep", "--from", "2020-01-01T00:00:00Z"),
    ("export", "new.ndjson", "--queue", "mail", "--from", "2020-01-01T00:00:00Z"),
    ("at", "2020-01-01T00:00:00Z"),
    ("at", "1577836800000-0", "--queue", "mail"),
)


async def test_a_moment_before_the_log_begins_says_from_when_it_can_answer(
    scene: Scene, refused: Refused
) -> None:
    before = await scene.all()
    for words in MOMENTS:
        told = await refused(*words)
        assert scene.begins in told, words
        assert "before" in told
    assert not (scene.folder / "new.ndjson").exists()
    assert await scene.all() == before


ASKED = {
    "grep (": "'(' is no regular expression: ",
    "grep --where payload.[": "no JMESPath expression: ",
    "grep --event melted": "melted",
    "grep --queue post": "there is no queue 'post'; there are: mail",
    "grep --from soon": "no moment",
    "grep --from 1h --to 2h": "that is no time at all",
    "grep --archive nowhere": "nowhere: there is no such folder",
    "grep --archive log.ndjson": "log.ndjson",
    "grep --archive damaged": ".ndjson.zst: ",
    "show mail.0.5-5": "no job mail.0.5-5",
    "show mail.5": "not a job id",
    "export log.ndjson --queue mail": "log.ndjson is there already: remove it, or choose another name",
    "export new.txt --queue mail": "the name says the form",
    "export nowhere/new.ndjson --queue mail": "nowhere/new.ndjson: there is no such file",
    "export new.ndjson --queue post": "there is no queue 'post'",
    "export new.ndjson --queue mail --redact type": "'type' cannot be redacted",
    "export new.ndjson": "say which log: --queue email, or --job",
    "export new.ndjson --job mail.0.5-5": "no job mail.0.5-5 in the log",
    "at 1h --queue post": "there is no queue 'post'",
    "at 1h --state melted": "there is no state 'melted'; there are: waiting, ",
    "verify --queue post": "there is no queue 'post'; there are: mail",
    "rebuild --queue post": "there is no queue 'post'; there are: mail",
    "redrive --queue mail --patch [1]": "--patch is no JSON object",
}


async def test_what_cannot_be_asked_is_one_line(scene: Scene, refused: Refused) -> None:
    before = await scene.all()
    files = {path.name for path in scene.folder.iterdir()}
    for words, said in ASKED.items():
        assert said in await refused(*words.split()), words
    assert await scene.all() == before
    made = {path.name for path in scene.folder.iterdir()} - files
    assert not {name for name in made if "new" in name or name.endswith("json")}


HTTP: tuple[tuple[str, str, Any, int], ...] = (
    ("GET", "/queues/mail?at=yesterday", None, 422),
    ("GET", "/jobs/mail?at=-1", None, 422),
    ("GET", "/queues/post?at=1795518653189", None, 404),
    ("GET", "/jobs/mail/mail.0.5-5?at=1795518653189", None, 404),
    ("POST", "/redrive", {"filter": {}}, 422),
    ("POST", "/redrive", {"filter": {"queue": "mail", "state": "waiting"}}, 422),
    ("POST", "/redrive", {"filter": {"queue": "mail", "colour": "red"}}, 422),
    ("POST", "/redrive", {"filter": {"queue": "mail", "since": "yesterday"}}, 422),
    ("POST", "/redrive", {"filter": {"queue": "mail"}, "patch": [1]}, 422),
    ("POST", "/redrive", {"filter": {"queue": "mail"}, "rate": -1}, 422),
)


async def test_over_http_it_is_a_problem(scene: Scene) -> None:
    async with running_api(scene.settings) as http:
        before = await scene.all()
        for method, path, body, status in HTTP:
            answer = await http.request(method, path, json=body)
            problems(answer, status)
            assert answer.json()["detail"] or answer.json()["errors"], path
        assert await scene.all() == before


@pytest.fixture
def refused(penstock: Callable[..., Command], settings: Settings, scene: Scene) -> Refused:
    """`penstock replay WORDS` is refused; the line that it says."""
    environ = {"PENSTOCK_REDIS_URL": settings.redis_url.reveal(), "PENSTOCK_NAMESPACE": settings.namespace}

    async def told(*words: str) -> str:
        run = penstock("replay", *words, **environ)
        assert await exit_code(run, 60) in (1, 2), (words, run.output)
        assert run.output.startswith("penstock: "), (words, run.output)
        assert run.output.count("\n") == 1, (words, run.output)
        return run.output

    return told
