"""The supervisor with real processes: order, restarts, crash loops, draining, and no orphans."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from commands import processes_with
from penstock.ui import child as child_module
from penstock.ui.child import Spec, StartFailed
from penstock.ui.console import Lines
from penstock.ui.supervisor import Supervisor
from servers import wait_until

# Writes its name to the file when it ends in order.
POLITE = """
import signal, sys, time
from penstock.ui.lifeline import end_with_parent
def end(*_):
    with open(sys.argv[2], "a") as ends:
        ends.write(sys.argv[1] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
end_with_parent(patience=1.0)
print(sys.argv[1], "runs", flush=True)
while True:
    time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
while True:
    time.sleep(60)
"""
BROKEN = "import sys; print('no settings'); sys.exit(3)"


class Run:
    """A supervisor of some scripts, what it printed, and the file of orderly ends."""

    def __init__(self, folder: Path) -> None:
        self.ends = folder / "ends"
        self.printed = io.StringIO()
        self.specs: list[Spec] = []

    def add(self, name: str, script: str = POLITE, *, stage: int = 0, **options: Any) -> None:
        command = (sys.executable, "-c", script, name, str(self.ends))
        options.setdefault("grace", 10.0)
        self.specs.append(Spec(name=name, command=command, stage=stage, **options))

    def supervisor(self) -> Supervisor:
        console = Console(file=self.printed, highlight=False, soft_wrap=True)
        lines = Lines([spec.name for spec in self.specs], console)
        return Supervisor(self.specs, lines, os.environ)

    def says(self, text: str) -> Callable[[], Awaitable[bool]]:
        async def said() -> bool:
            return text in self.printed.getvalue()

        return said

    async def until(self, text: str, count: int = 1) -> None:
        async with asyncio.timeout(20):
            while self.printed.getvalue().count(text) < count:
                await asyncio.sleep(0.01)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "FIRST_PAUSE_S", 0.05)


async def test_the_first_stage_is_ready_before_others_start_and_ends_last(run: Run) -> None:
    run.add("server", stage=0, ready=run.says("server runs"))
    run.add("api", stage=2, ready=run.says("api runs"))
    run.add("worker", stage=1, ready=run.says("worker runs"))
    supervisor = run.supervisor()
    await supervisor.start()
    printed = run.printed.getvalue()
    assert printed.index("server runs") < min(printed.index("api runs"), printed.index("worker runs"))
    await supervisor.stop(asyncio.Event())
    assert run.ends.read_text().split() == ["api", "worker", "server"]
    assert not processes_with(str(run.ends))


async def test_lines_carry_aligned_names(run: Run) -> None:
    run.add("a", ready=run.says("a runs"))
    run.add("worker-image", ready=run.says("worker-image runs"))
    supervisor = run.supervisor()
    await supervisor.start()
    await supervisor.stop(asyncio.Event())
    printed = run.printed.getvalue().splitlines()
    assert "a            | a runs" in printed
    assert "worker-image | worker-image runs" in printed


@pytest.mark.usefixtures("quick")
async def test_a_killed_process_starts_again(run: Run) -> None:
    run.add("worker", ready=run.says("worker runs"))
    supervisor = run.supervisor()
    await supervisor.start()
    [pid] = processes_with(str(run.ends))
    os.kill(pid, signal.SIGKILL)
    await run.until("worker runs", count=2)
    assert "worker ended (SIGKILL); it starts again in" in run.printed.getvalue()
    await supervisor.stop(asyncio.Event())
    assert not processes_with(str(run.ends))


@pytest.mark.usefixtures("quick")
async def test_a_crash_loop_is_said_plainly(run: Run) -> None:
    run.add("worker", BROKEN)
    supervisor = run.supervisor()
    await supervisor.start()  # without a ready check, running is being ready
    await run.until("worker is in a crash loop: 4 ends in a row (exit code 3)")
    assert "no settings" in run.printed.getvalue()
    began = time.monotonic()
    await supervisor.stop(asyncio.Event())
    assert time.monotonic() - began < 5


@pytest.mark.usefixtures("quick")
async def test_a_process_that_never_gets_ready_fails_the_start(run: Run) -> None:
    run.add("server", ready=run.says("server runs"))
    run.add("api", BROKEN, stage=1, ready=run.says("never"))
    supervisor = run.supervisor()
    with pytest.raises(StartFailed, match=r"api does not start \(exit code 3\)"):
        await supervisor.start()
    await supervisor.stop(asyncio.Event())
    assert run.ends.read_text().split() == ["server"]
    assert not processes_with(str(run.ends))


async def test_a_second_signal_does_not_wait_for_the_grace_time(run: Run) -> None:
    run.add("server", gentle=True, ready=run.says("server runs"))
    run.add("worker", STUBBORN, stage=1, grace=60.0, ready=run.says("deaf"))
    supervisor = run.supervisor()
    await supervisor.start()
    hurry = asyncio.Event()
    stopping = asyncio.create_task(supervisor.stop(hurry))
    await asyncio.sleep(0)
    assert not stopping.done()
    hurry.set()
    async with asyncio.timeout(10):
        await stopping
    assert run.ends.read_text().split() == ["server"], "the gentle one still ended in order"
    assert not processes_with(str(run.ends))


async def test_a_deaf_process_is_killed_after_its_grace_time(run: Run) -> None:
    run.add("worker", STUBBORN, grace=0.2, ready=run.says("deaf"))
    supervisor = run.supervisor()
    await supervisor.start()
    await supervisor.stop(asyncio.Event())
    assert "worker is killed after 0.2 s" in run.printed.getvalue()
    assert not processes_with(str(run.ends))


async def test_a_line_of_any_length_is_shown_in_bounded_pieces(run: Run) -> None:
    length = child_module.MAX_LINE * 3
    script = f"print('x' * {length}); print('then this', flush=True); import time; time.sleep(60)"
    run.add("worker", script, ready=run.says("then this"), grace=1.0)
    supervisor = run.supervisor()
    await supervisor.start()
    await supervisor.stop(asyncio.Event())
    assert run.printed.getvalue().count("x") == length


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    program = f"""
import asyncio, os, sys
from penstock.ui.child import Spec
from penstock.ui.console import Lines
from penstock.ui.supervisor import Supervisor
POLITE = {POLITE!r}
async def main():
    command = (sys.executable, "-c", POLITE, "worker", {str(ends)!r})
    spec = Spec(name="worker", command=command, stage=0, grace=9.0)
    supervisor = Supervisor([spec], Lines(["worker"]), os.environ)
    await supervisor.start()
    await asyncio.Event().wait()
asyncio.run(main())
"""
    with (tmp_path / "out").open("wb") as out:
        supervisor = subprocess.Popen([sys.executable, "-c", program], stdout=out)
    wait_until(lambda: "worker runs" in (tmp_path / "out").read_text(), 30, "the worker runs")
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not processes_with(str(ends)), 30, "the worker is gone")
    assert ends.read_text() == "worker\n", "it ended in order"
