"""The server that `penstock up` starts where PENSTOCK_REDIS_URL names none.

It listens on a private unix socket only and keeps an append-only file in `data_dir/server`, so its data
outlives restarts and SIGKILL. Two locks guard that folder:

- `owner.lock` is held by the process that runs `serve_embedded`: there is one per folder.
- `engine.lock` is handed on to the server itself, so it stays locked as long as that lives. An owner
  that finds it locked has an orphan before it (its former owner was killed), and shuts that down in
  order before it starts the next.
"""

import asyncio
import ctypes
import fcntl
import hashlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from penstock.core.errors import Misconfigured, Unavailable
from penstock.core.settings import Secret, Settings
from penstock.ui.engines import Engine, choose_engine
from penstock.ui.lifeline import StopSignals

MAX_SOCKET_PATH: Final = 100  # macOS allows 104 bytes, Linux 108
LOCK_WAIT_S: Final = 15.0
START_WAIT_S: Final = 300.0  # a large append-only file takes its time
STOP_WAIT_S: Final = 30.0
TICK_S: Final = 0.02
LOG_NAME: Final = "server.log"  # from its latest start
WORDS_SHOWN: Final = 10

PR_SET_PDEATHSIG: Final = 1
LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None

logger = logging.getLogger(__name__)


def with_server(settings: Settings) -> Settings:
    """Settings whose `redis_url` is set: as given, or that of the embedded server."""
    if settings.redis_url:
        return settings
    return msgspec.structs.replace(settings, redis_url=Secret(f"unix://{quote(str(socket_path(settings)))}"))


def socket_path(settings: Settings) -> Path:
    """Where the embedded server listens: in the data folder, or where its path is short enough."""
    path = _folder(settings) / "socket"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}-{digest}" / "socket"


async def server_answers(settings: Settings) -> bool:
    """Whether the embedded server answers PING, which it does when its data is loaded."""
    async with _client(socket_path(settings)) as client:
        try:
            return bool(await client.ping())
        except (RedisError, OSError):
            return False


async def folder_free(settings: Settings) -> None:
    """Wait until a server that a killed `penstock up` left behind has ended. Raises Misconfigured."""
    folder = _private(_folder(settings))
    with (folder / "owner.lock").open("ab") as owner:
        await _own(owner.fileno(), folder)


async def serve_embedded(settings: Settings) -> None:
    """Run the embedded server until SIGTERM or SIGINT, then end it in order.

    Raises Misconfigured where no server can be started, Unavailable when it ends by itself.
    """
    stop = StopSignals()
    folder = _private(_folder(settings))
    _private(socket_path(settings).parent)
    with (folder / "owner.lock").open("ab") as owner, (folder / "engine.lock").open("ab") as guard:
        await _own(owner.fileno(), folder)
        await _end_orphan(socket_path(settings), guard.fileno())
        engine = choose_engine(folder)
        process = await _start(engine, settings, guard.fileno())
        try:
            await _first_of(_until_ready(process, settings), stop.first.wait())
            logger.info("%s on a unix socket, data in %s, appendfsync %s", engine, folder, settings.fsync)
            await _first_of(process.wait(), stop.first.wait())
            if process.returncode is not None:
                raise Unavailable(f"{engine} ended by itself ({process.returncode}): {_last_words(folder)}")
        finally:
            await _end(process)


def _client(socket: Path) -> Redis:
    return Redis(unix_socket_path=str(socket), retry=Retry(NoBackoff(), 0))


def _folder(settings: Settings) -> Path:
    return settings.data_dir.absolute() / "server"


def _private(folder: Path) -> Path:
    """Make a folder that only this user may enter; refuse one that belongs to someone else."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise Misconfigured(f"{folder} belongs to another user: set PENSTOCK_DATA_DIR to a folder of yours")
    return folder


async def _own(descriptor: int, folder: Path) -> None:
    if not await _locked(descriptor, LOCK_WAIT_S):
        raise Misconfigured(
            f"another Penstock uses the data folder {folder.parent}: stop it, "
            "or give this one its own with PENSTOCK_DATA_DIR"
        )


async def _locked(descriptor: int, wait: float) -> bool:
    """Take a lock, waiting for the one who holds it; False after `wait` seconds."""

    def take() -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    return await _eventually(take, wait)


async def _eventually(condition: Callable[[], bool], wait: float) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    while not condition():
        if loop.time() > deadline:
            return False
        await asyncio.sleep(TICK_S)
    return True


async def _end_orphan(socket: Path, guard: int) -> None:
    """Shut down a server that its owner left behind, and wait until it is gone."""
    if await _locked(guard, wait=0):
        return
    logger.warning("a server was left behind by a killed process: ending it first")
    async with _client(socket) as orphan:
        with suppress(RedisError):  # it may be ending already: the lock tells when it has
            await orphan.shutdown()
    if not await _locked(guard, wait=STOP_WAIT_S):
        raise Unavailable(f"the server left behind on {socket} does not end; kill it and start again")


async def _start(engine: Engine, settings: Settings, guard: int) -> asyncio.subprocess.Process:
    folder, socket = _folder(settings), socket_path(settings)
    socket.unlink(missing_ok=True)
    with (folder / LOG_NAME).open("wb") as log:
        return await asyncio.create_subprocess_exec(
            engine.path,
            *("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
            *("--dir", str(folder), "--save", "", "--appendonly", "yes"),
            *("--appendfsync", settings.fsync, "--maxmemory-policy", "noeviction"),
            *("--daemonize", "no", "--loglevel", "warning"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(guard,),
            preexec_fn=_end_with_this_process,
            start_new_session=True,  # a Ctrl-C in the terminal is for us; we end the server last
        )


def _last_words(folder: Path) -> str:
    log = folder / LOG_NAME
    lines = log.read_text(errors="replace").split("\n")[-WORDS_SHOWN:]
    return "\n".join(["its last words are", *filter(None, lines), f"(all of them are in {log})"])


def _end_with_this_process() -> None:
    """Between fork and exec: let Linux end the server (in order) when this process is gone."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


async def _until_ready(process: asyncio.subprocess.Process, settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_WAIT_S
    while not await server_answers(settings):
        if process.returncode is not None or loop.time() > deadline:
            raise Unavailable(f"the server does not start: {_last_words(_folder(settings))}")
        await asyncio.sleep(TICK_S)


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for the first to end, cancel the others; raises what that one raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    for task in done:
        task.result()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_WAIT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
