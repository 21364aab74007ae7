"""An arena: one fresh server, one system on it, and the processes that were started for it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from bench.server import Aof, fresh_server
from bench.systems import KEYS, TESTS, System
from servers import LIBC, PR_SET_PDEATHSIG

TICK_S: Final = 0.005
# While a program runs that times itself, the bench looks seldom: it shares the cores.
SLOW_TICK_S: Final = 0.02
PATIENCE_S: Final = 300.0
GREET: Final = 50


class ProgramFailed(Exception):
    """A system's program ended, or hung, where it should not have; the message has its last words."""


class Process:
    """One long-running program, in a process that can be paused; killed at the end, at the latest
    with the bench itself."""

    def __init__(self, argv: Sequence[str], environ: dict[str, str], words: Path) -> None:
        self.argv: Final = argv
        self._words: Final = words
        with words.open("ab") as log:
            self._popen: Final = subprocess.Popen(
                argv,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (one call of libc, found before)
            )
        self.pid: Final = self._popen.pid

    def pause(self) -> None:
        """SIGSTOP, and wait until it has stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()

    def check(self) -> None:
        """Raises ProgramFailed if it has ended."""
        if self._popen.poll() is not None:
            raise ProgramFailed(f"{' '.join(self.argv)} ended:\n{self.last_words()}")

    def ended(self) -> bool:
        """Whether it has ended well. Raises ProgramFailed if it ended otherwise."""
        if self._popen.poll() is None:
            return False
        if self._popen.returncode:
            self.check()
        return True

    def last_words(self) -> str:
        return self._words.read_text(errors="replace")[-3000:]


class Arena:
    """Where one system is measured once."""

    def __init__(self, system: System, url: str, client: redis.Redis, folder: Path) -> None:
        self.system: Final = system
        self.client: Final = client
        self.folder: Final = folder
        self.log: Final = KEYS.log
        self.environ: Final = {
            **os.environ,
            "PYTHONPATH": str(TESTS),
            "BENCH_URL": url,
            "BENCH_DIR": str(folder),
        }
        self.submitted = 0
        self._running: Final[list[Process]] = []

    def ask(self, verb: str, count: int) -> str:
        """Have the system's program submit `count` jobs; answers the last line it printed."""
        self.submitted += count
        return self.output([*self.system.program, verb, str(count)], f"{verb}.log")

    def output(self, argv: Sequence[str], words: str, *, patience: float = PATIENCE_S) -> str:
        """Run a program to its end; answers the last line it printed."""
        with self.running(argv, words) as process:
            self.wait(process.ended, " ".join(argv), ends=True, patience=patience)
            return process.last_words().rpartition("\n")[0].rpartition("\n")[2]

    @contextmanager
    def running(self, argv: Sequence[str], words: str) -> Iterator[Process]:
        """A process for as long as the context lasts."""
        process = Process(argv, self.environ, self.folder / words)
        self._running.append(process)
        try:
            yield process
        finally:
            self._running.remove(process)
            process.kill()

    @contextmanager
    def workers(self, count: int, *, warm: int) -> Iterator[list[Process]]:
        """Workers that have each handled a job, and together `warm` more: connected, compiled, idle."""
        with ExitStack() as stack:
            argv = [*self.system.program, "work"]
            crew = [
                stack.enter_context(self.running(argv, f"worker-{number}.log")) for number in range(count)
            ]
            if self.system.has_handlers:
                while sum(self._greeted(process) for process in crew) < count:
                    self.ask("greet", GREET)
                    self.wait(self.idle, "the workers greet")
            self.ask("bulk", warm)
            self.wait(self.idle, "the workers are warm")
            yield crew

    @contextmanager
    def projector(self) -> Iterator[Process]:
        """Penstock's projector, up to date with what there is."""
        with self.running(self.system.projector, "projector.log") as process:
            self.wait(self.caught_up, "the projector has started")
            yield process

    def idle(self) -> bool:
        """Whether every job has ended."""
        return self.system.left(self.client) == 0

    def succeeded(self) -> int:
        """How many jobs succeeded: all, by the system's own books. Raises ProgramFailed otherwise, for
        a figure of jobs that failed is none."""
        ended = self.system.ended(self.client)
        if ended != self.submitted:
            raise ProgramFailed(f"{self.system.name}: {ended} of {self.submitted} jobs succeeded")
        return ended

    def caught_up(self) -> bool:
        """Whether the views have seen the newest event."""
        newest: Any = self.client.xrevrange(KEYS.log, count=1)
        return not newest or self.client.get(KEYS.checkpoint) == newest[0][0]

    def lag(self) -> int:
        """How many events the views have not seen."""
        seen: Any = self.client.get(KEYS.checkpoint) or b"0-0"
        unseen: Any = self.client.xrange(KEYS.log, min=b"(" + seen, max="+")
        return len(unseen)

    def latencies(self) -> list[float]:
        """What the clock handlers noted, in ms, without the greetings."""
        lines = [line.split() for path in self.folder.glob("*.clock") for line in path.open()]
        return [int(line[1]) / 1e6 for line in lines if int(line[0]) >= 0]

    def used_memory(self) -> int:
        """The server's bytes once all other clients are gone."""
        self.wait(lambda: self.client.info("clients")["connected_clients"] == 1, "the clients have left")
        return int(self.client.info("memory")["used_memory"])

    def wait(
        self, condition: Callable[[], bool], what: str, *, ends: bool = False, patience: float = PATIENCE_S
    ) -> None:
        """Ask every 5 ms until it is so; `ends`: it is the end of the process started last, which
        is not asked for so often.

        Raises ProgramFailed if another process ends first, or after `patience` seconds.
        """
        deadline = time.monotonic() + patience
        lasting = self._running[:-1] if ends else list(self._running)
        while not condition():
            for process in lasting:
                process.check()
            if time.monotonic() > deadline:
                words = "\n".join(process.last_words() for process in self._running)
                raise ProgramFailed(f"not within {patience:.0f} s: {what}\n{words}")
            time.sleep(SLOW_TICK_S if ends else TICK_S)

    def _greeted(self, process: Process) -> bool:
        return (self.folder / f"{process.pid}.clock").exists()


@contextmanager
def arena(system: System, kind: str, aof: Aof) -> Iterator[Arena]:
    """A fresh arena, gone without a trace at the end."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    try:
        with fresh_server(kind, aof) as (server, client):
            yield Arena(system, server.url, client, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent() -> None:
    """Between fork and exec: ask Linux to end this process when the bench dies, even by SIGKILL."""
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
