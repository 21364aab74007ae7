"""One supervised process: started, heard, started again when it ends, and stopped when asked.

It runs in a session of its own, so that a Ctrl-C in the terminal reaches only the supervisor, which
then stops its children in order. Its standard input is its lifeline (see lifeline.py).
"""

import asyncio
import os
import signal
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from penstock.core.errors import PenstockError
from penstock.ui.console import Lines
from penstock.ui.lifeline import supervised

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 30.0  # who ran that long before it ended is not in a crash loop
LOOP: Final = 4  # ends in a row that are called a crash loop
GIVE_UP: Final = 3  # ends before it was ever ready, at which starting is given up
MISCONFIGURED: Final = 2  # the exit code that says trying again is no use
MAX_LINE: Final = 64 * 1024
READY_TICK_S: Final = 0.05


class StartFailed(PenstockError):
    """A process ends again and again before it is ready."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """A process to run. The lowest stage starts before all others; stages stop in falling order.

    `ready` is asked until it answers True; without it, running is being ready. `grace`: seconds
    from SIGTERM to SIGKILL. `gentle`: even a second signal from the user gives it that time. `environ`:
    variables of its own.
    """

    name: str
    command: tuple[str, ...]
    stage: int
    grace: float
    ready: Callable[[], Awaitable[bool]] | None = None
    gentle: bool = False
    environ: Mapping[str, str] = {}


class Child:
    """Keeps the process of one Spec running."""

    def __init__(self, spec: Spec, lines: Lines, environ: Mapping[str, str]) -> None:
        self.spec: Final = spec
        self.is_ready: Final = asyncio.Event()
        self._lines = lines
        self._environ = supervised({**environ, **spec.environ, "PYTHONUNBUFFERED": "1"})
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._ends = 0

    async def keep(self) -> None:
        """Run it, and run it again with growing pauses, until `stop`. Raises StartFailed."""
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set():
                return
            self._ends = 1 if time.monotonic() - started >= STEADY_S else self._ends + 1
            if not self.is_ready.is_set() and (self._ends >= GIVE_UP or code == MISCONFIGURED):
                raise StartFailed(f"{self.spec.name} does not start ({_words(code)}); its words are above")
            pause = min(FIRST_PAUSE_S * 2 ** (self._ends - 1), LONGEST_PAUSE_S)
            self._lines.say(self._report(code, pause))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def stop(self, hurry: asyncio.Event) -> None:
        """SIGTERM, and wait for the end; SIGKILL after `grace` or when `hurry` is set."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        ended = asyncio.ensure_future(process.wait())
        hurried = asyncio.ensure_future(asyncio.Event().wait() if self.spec.gentle else hurry.wait())
        await asyncio.wait({ended, hurried}, timeout=self.spec.grace, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not ended.done():
            why = "at once" if hurry.is_set() else f"after {self.spec.grace:g} s"
            self._lines.say(f"{self.spec.name} is killed {why}")
            _kill_group(process.pid)
        await ended

    async def _run_once(self) -> int:
        process = await asyncio.create_subprocess_exec(
            *self.spec.command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            env=self._environ,
            start_new_session=True,
            limit=MAX_LINE,
        )
        self._process = process
        if self._stopping.is_set():  # asked while it was being made
            process.terminate()
        helpers = [asyncio.create_task(self._hear(process.stdout)), asyncio.create_task(self._await_ready())]
        try:
            code = await process.wait()
            # Its own children may hold the pipe open; what it said itself is there by now.
            await asyncio.wait(helpers[:1], timeout=0.5)
            return code
        finally:
            for helper in helpers:
                helper.cancel()
            _kill_group(process.pid)
            if process.stdin is not None:
                process.stdin.close()

    async def _hear(self, output: asyncio.StreamReader | None) -> None:
        while output is not None:
            try:
                line = await output.readuntil(b"\n")
            except asyncio.LimitOverrunError:  # an overlong line is shown in pieces
                line = await output.read(MAX_LINE)
            except asyncio.IncompleteReadError as end:
                if end.partial:
                    self._say(end.partial)
                return
            self._say(line)

    def _say(self, line: bytes) -> None:
        self._lines.line(self.spec.name, line.decode(errors="replace").rstrip())

    async def _await_ready(self) -> None:
        while self.spec.ready is not None and not await self.spec.ready():
            await asyncio.sleep(READY_TICK_S)
        self.is_ready.set()

    def _report(self, code: int, pause: float) -> str:
        again = f"it starts again in {pause:g} s"
        if self._ends < LOOP:
            return f"{self.spec.name} ended ({_words(code)}); {again}"
        return f"{self.spec.name} is in a crash loop: {self._ends} ends in a row ({_words(code)}); {again}"


def _words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _kill_group(leader: int) -> None:
    """End what is left of a process and those it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
