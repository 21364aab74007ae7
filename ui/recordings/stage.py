"""The shop that the session is about, in a folder of its own: its processes on a private server and free
ports, its code in a repository, its releases and its orders.

    async with staged(folder) as stage:
        await stage.release()             the code of the working copy goes live
        await stage.order(120)            orders come in, every third of them from the app
"""

import asyncio
import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console

from penstock.core.settings import read_settings
from penstock.ui.child import Spec
from penstock.ui.console import Lines
from penstock.ui.embedded import with_server
from penstock.ui.remote import api_url, checked
from penstock.ui.supervisor import Supervisor
from penstock.ui.up import WORKER, specs

CODE: Final = (Path(__file__).parent / "shop.py").read_text()
RELEASED: Final = """\
    total = f"{job.cents / 100:.2f} {job.currency.upper()}"
"""
BROKEN: Final = """\
    signs = {"EUR": "€", "GBP": "£", "USD": "$"}
    total = f"{signs[job.currency]}{job.cents / 100:.2f}"
"""
MENDED: Final = BROKEN.replace("[job.currency]", "[job.currency.upper()]")

APP: Final = 3  # every third order comes from the app, which writes currencies in lower case
CURRENCIES: Final = ("EUR", "GBP", "USD")
PATIENCE_S: Final = 120.0
LOOK_S: Final = 0.05
LAST_WORDS: Final = 4_000  # characters of what the processes said, shown with an error
PORTS: Final = ("API_PORT", "DASHBOARD_PORT", "MAIL_PORT", "MAIL_WEB_PORT")
# Of what `penstock up` starts; the worker of the shop is released by itself.
NEEDED: Final = ("server", "mailcatcher", "projector", "worker-email", "worker-penstock", "api")
CHATTER: Final = ("PENSTOCK_", "GIT_", "PYTHON", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")


class Stage:
    """The shop. Commands run in `home`, with `environ`."""

    def __init__(self, folder: Path) -> None:
        self.home: Final = folder / "shop"
        self.home.mkdir()
        self.environ: Final = _environ(folder)
        self.settings: Final = read_settings(self.environ)
        self.orders = 0
        self._said: Final = io.StringIO()
        self._lines: Final = Lines(list(NEEDED), Console(file=self._said, soft_wrap=True))
        self._worker: Supervisor | None = None
        self._write(CODE)
        self._git("init", "--quiet")
        self._commit("Receipts")

    def write(self, code: str) -> None:
        """Put `code` in the place of what was released first, in the working copy."""
        self._write(CODE.replace(RELEASED, code))

    def commit(self, code: str, message: str) -> None:
        """The same, committed."""
        self.write(code)
        self._commit(message)

    async def release(self) -> None:
        """Replace the shop's worker by one with the code of the working copy, which does all from then on."""
        await self._retire()
        command = (sys.executable, "-P", "-m", "penstock.ui", "worker", "--queues", "shop")
        self._worker = self._supervisor([Spec(name="shop", command=command, stage=WORKER, grace=30.0)])
        await self._worker.start()

    async def order(self, count: int) -> None:
        """So many orders come in, and are worked off."""
        jobs = []
        for number in range(self.orders, self.orders + count):
            app, currency = number % APP == 0, CURRENCIES[number // APP % len(CURRENCIES)]
            payload = {
                "order": f"A-{1001 + number}",
                "to": f"customer-{1 + number}@example.org",
                "cents": 990 + number * 7_919 % 20_000,
                "currency": currency.lower() if app else currency,
            }
            jobs.append({"type": "receipt.send", "payload": payload, "tags": ["app" if app else "web"]})
        await self.ask("POST", "/jobs/shop/batch", jobs)
        self.orders += count
        await self.settled(self.orders)

    async def settled(self, jobs: int) -> None:
        """Wait until all is done and in the views: so many jobs of the shop, and their mails."""
        deadline = time.monotonic() + PATIENCE_S
        while not await self._is_settled(jobs):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done within {PATIENCE_S:.0f} s: {await self.counts()}")
            await asyncio.sleep(LOOK_S)

    async def counts(self) -> dict[str, dict[str, int]]:
        """Jobs by state, of each queue."""
        told = await self.ask("GET", "/queues")
        return {it["queue"]: it["counts"] for it in told["queues"]}

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the API answers."""
        async with httpx.AsyncClient(
            base_url=api_url(self.settings), trust_env=False, timeout=30.0
        ) as client:
            return checked(await client.request(method, path, json=body))

    async def mails(self) -> int:
        """How many mails have been caught."""
        return len(list((self.settings.data_dir / "mail").rglob("*.eml")))

    async def next_second(self) -> str:
        """Wait for the next whole second, and answer it: all that was is before it, all that comes after."""
        second = int(time.time()) + 1
        await asyncio.sleep(second - time.time())
        return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Its processes run while the block does."""
        all_but_shop = self._supervisor([it for it in specs(self.settings) if it.name in NEEDED])
        try:
            await all_but_shop.start()
            yield
        except Exception as error:
            error.add_note(self._said.getvalue()[-LAST_WORDS:])
            raise
        finally:
            await self._retire()
            await all_but_shop.stop(asyncio.Event())

    async def _is_settled(self, jobs: int) -> bool:
        counts = await self.counts()
        shop, email = counts.get("shop", {}), counts.get("email", {})
        ended = shop.get("completed", 0) + shop.get("failed", 0) + shop.get("cancelled", 0)
        return ended == jobs and email.get("completed", 0) == shop.get("completed", 0)

    async def _retire(self) -> None:
        if self._worker is not None:
            await self._worker.stop(asyncio.Event())
            self._worker = None

    def _supervisor(self, processes: list[Spec]) -> Supervisor:
        server = with_server(self.settings).redis_url.reveal()
        environ = {**self.environ, "PENSTOCK_REDIS_URL": server, "PENSTOCK_JOBS": "shop"}
        return Supervisor(processes, self._lines, environ)

    def _write(self, code: str) -> None:
        (self.home / "shop.py").write_text(code)

    def _commit(self, message: str) -> None:
        self._git("add", "shop.py")
        self._git("commit", "--quiet", "--message", message)

    def _git(self, *words: str) -> None:
        git = ["git", *words]
        subprocess.run(git, cwd=self.home, env=self.environ, check=True, stdin=subprocess.DEVNULL)


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    """The shop in this empty folder, its processes running."""
    stage = Stage(folder)
    async with stage.open():
        yield stage


def _environ(folder: Path) -> dict[str, str]:
    """What the shop's processes and the session's commands have in their environment; `penstock` is a command
    there, however it was installed."""
    programs = folder / "bin"
    programs.mkdir()
    penstock = programs / "penstock"
    penstock.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m penstock.ui "$@"\n')
    penstock.chmod(0o700)
    ports = {f"PENSTOCK_{name}": str(port) for name, port in zip(PORTS, _free_ports(), strict=True)}
    ours = {name: value for name, value in os.environ.items() if not name.startswith(CHATTER)}
    return {
        **ours,
        **ports,
        **_repository(),
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder / "shop"), os.environ.get("PYTHONPATH")))),
        "PYTHONDONTWRITEBYTECODE": "1",  # a release within the same second is one all the same
        "PENSTOCK_DATA_DIR": str(folder / "data"),
        "PENSTOCK_METRICS_PORT": "0",
        "LC_ALL": "C.UTF-8",
    }


def _repository() -> Mapping[str, str]:
    """A git that knows nothing of this machine and its user, and whose hashes are always the same."""
    who = {f"GIT_{role}_{part}": "shop" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    when = {f"GIT_{role}_DATE": "2026-01-01T00:00:00Z" for role in ("AUTHOR", "COMMITTER")}
    return {**who, **when, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_PAGER": "cat"}


def _free_ports() -> list[int]:
    """As many as are asked for, that nobody listens on."""
    probes = [socket.socket() for _ in PORTS]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
