"""How far a long command is: a bar with rate and time left on a terminal, a line now and then elsewhere. It
goes to standard error, so that the answer alone is on standard output."""

import sys
import time
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_LINE_S: Final = 5.0


class Meter:
    """Shows how far one thing is; call it with how much is done and how much there is to do."""

    def __init__(self, what: str, unit: str) -> None:
        self._what: Final = what
        self._unit: Final = unit
        self._began: Final = time.monotonic()
        self._said_at = self._began
        self._first: int | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "Meter":
        if sys.stderr.isatty():
            rate = TextColumn("{task.fields[rate]}")
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate)
            console = Console(stderr=True, highlight=False)
            self._bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
            self._task = self._bar.add_task(self._what, total=None, rate="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done  # what another had done before is not this one's rate
        rate = (done - self._first) / max(now - self._began, 0.001)
        if self._bar is not None and self._task is not None:
            told = f"{rate:,.0f} {self._unit}/s"
            self._bar.update(self._task, completed=done, total=max(total, done), rate=told)
        elif now - self._said_at >= _LINE_S:
            self._said_at = now
            left = f", {(total - done) / rate:,.0f} s left" if rate and done < total else ""
            line = f"{self._what}: {done:,} of {total:,} {self._unit}, {rate:,.0f}/s{left}\n"
            sys.stderr.write(line)
