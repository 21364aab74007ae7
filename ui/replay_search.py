"""What `penstock replay grep` does: one queue after another, with a bar that says how far it is."""

from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from penstock.core.connection import answering, command, connect
from penstock.core.keys import Keys
from penstock.core.settings import Settings
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.grep import grep
from penstock.projections.replay.history import opened
from penstock.projections.replay.sieve import Sought
from penstock.projections.replay.span import partitions, partly, span
from penstock.ui.replay_output import Printer

_STEPS: Final = 1000


class Search(msgspec.Struct, kw_only=True):
    """What is asked for: in which queues (none: all), what, from when until before when (Unix ms), and
    how many events at most (0: all). `archive`: where what has gone from Redis is kept."""

    queues: tuple[str, ...]
    sought: Sought
    since: int | None
    until: int | None
    limit: int
    archive: str = ""


async def search(settings: Settings, asked: Search, printer: Printer) -> None:
    """Print what is found. Raises NotFound or Refused for what cannot be asked."""
    keys, found = Keys(settings.namespace), 0
    archive = Archive(asked.archive) if asked.archive else None
    with answering(), bar(printer.console) as progress:
        async with connect(settings) as redis:
            known = await command(redis, "SMEMBERS", keys.queues)
            for partition in partitions(keys, known, asked.queues):
                log, now = await opened(redis, partition, archive)
                stretch = span(partition, now, asked.since, asked.until)
                progress.say(partly(partition, now, stretch))
                progress.begin(partition.queue)
                async with aclosing(grep(log, stretch, asked.sought)) as looking:
                    async for part in looking:
                        progress.at(part.done, part.looked)
                        for told in part.found:
                            printer.tell(partition, told)
                            found += 1
                            if found == asked.limit or printer.closed:
                                return


class Bar:
    """How far something is, where a person looks; else nothing."""

    def __init__(self, progress: Progress | None, console: Console) -> None:
        self._progress: Final = progress
        self._console: Final = console
        self._looked = 0
        self._task: Any = None

    def begin(self, what: str) -> None:
        """The next part of the work."""
        if self._progress is not None:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(what, total=_STEPS, events="")

    def at(self, done: float, events: int) -> None:
        """How far it is (0 to 1), and how many more events it has looked at."""
        self._looked += events
        if self._progress is not None:
            self._progress.update(self._task, completed=done * _STEPS, events=f"{self._looked:,} events")

    def say(self, text: str) -> None:
        """A line for people, beside the output."""
        if text:
            self._console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(console: Console | None) -> Iterator[Bar]:
    """A bar below the lines of `console`, without one on standard error, if that is a terminal. It leaves
    no trace."""
    errors = Console(stderr=True)
    if console is None and not errors.is_terminal:
        yield Bar(None, errors)
        return
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()),
        *(TextColumn("{task.fields[events]}"), TimeRemainingColumn()),
    )
    shown = console or errors
    # Its own redirection would send what goes into a pipe to the terminal.
    with Progress(
        *columns, console=shown, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        yield Bar(progress, shown)
