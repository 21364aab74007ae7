"""How `penstock replay` prints stories and events for people."""

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.text import Text

from penstock.core.errors import Unavailable
from penstock.core.events import QUEUE_TAGS
from penstock.core.keys import PartitionKeys
from penstock.projections.details import EventDetail, event_detail
from penstock.projections.feed_events import Told, write
from penstock.projections.replay.telling import Step, Story
from penstock.projections.replay.words import duration, error, plain, words
from penstock.ui.output import print_facts, print_table

COLOURS: Final = {
    "submitted": "cyan",
    "requeued": "cyan",
    "completed": "green",
    "failed": "bold red",
    "attempt_failed": "red",
    "lease_expired": "yellow",
    "released": "yellow",
    "cancelled": "magenta",
}
# Handlers may say much: of signs of progress that follow one another the last one is shown.
_TALK: Final = ("progressed", "logged")
# As long as most positions are. The column of ids is as wide as this needs, or the widest yet.
_USUAL: Final = "1795518653189-000"
_WIDEST: Final = 60


def print_story(told: Story, *, full: bool = False) -> None:
    """The job, then its events; with `full` none is folded into another, and tracebacks are told."""
    job = told.job
    failure = error({"error": job.error.error, "message": job.error.message}) if job.error else ""
    print_facts(
        [
            ("job", job.id),
            ("type", plain(job.type)),
            ("state", job.state),
            ("attempt", f"{job.attempt} of {job.attempts}"),
            ("by", plain(job.by)),
            ("origin", plain(job.origin)),
            ("submitted", job.submitted_at),
            ("finished", job.finished_at),
            ("waited", duration(job.wait_ms) if job.wait_ms is not None else ""),
            ("ran", duration(job.run_ms) if job.run_ms is not None else ""),
            ("error", failure),
            ("misfits", job.misfits or ""),
        ]
    )
    sys.stdout.write("\n")
    _print_rows(list(_rows(told.events, full=full)))
    if full:
        _print_tracebacks(told.events)


class Printer:
    """Prints events one by one: readable lines, or NDJSON. When nobody reads them any more, it sets
    `stop` and prints no more. Raises Unavailable where they cannot be written."""

    def __init__(self, *, as_json: bool) -> None:
        self.stop: asyncio.Event | None = None
        self.closed = False
        self.console: Final = Console(highlight=False, soft_wrap=True) if sys.stdout.isatty() else None
        self._as_json: Final = as_json
        self._width = 0

    def tell(self, keys: PartitionKeys, told: Told) -> None:
        """One event."""
        if self.closed:
            return
        if self._as_json:
            self._print(write(keys, told)[1].decode(errors="replace"), "")
        else:
            self._print(self._line(keys, told), COLOURS.get(told.read[0].tag, ""))
        if self.stop is not None:  # somebody waits for it
            self.flush()

    def flush(self) -> None:
        """All that was printed is out."""
        with self._open():
            sys.stdout.flush()

    def _line(self, keys: PartitionKeys, told: Told) -> str:
        event, _ = told.read
        shown = event_detail(event, told.type or "")
        job = keys.queue if event.tag in QUEUE_TAGS else plain(keys.job_id(event.job))
        self._width = max(self._width, len(keys.job_id(_USUAL)), min(len(job), _WIDEST))
        return f"{shown.at}  {job:<{self._width}}  {_padded(event.tag)}  {words(shown)}".rstrip()

    def _print(self, line: str, style: str) -> None:
        with self._open():
            if self.console is None:
                sys.stdout.write(line + "\n")
            else:
                self.console.print(Text(line, style=style))

    @contextmanager
    def _open(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.closed = True
            if self.stop is not None:
                self.stop.set()
            give_up_output(error)


def give_up_output(error: OSError) -> None:
    """Nothing more goes to standard output, also not what is left in its buffer: the interpreter's last flush
    would fail. Raises Unavailable, unless it is that nobody reads any more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    if not isinstance(error, BrokenPipeError):
        raise Unavailable(f"standard output: {error.strerror}") from None


def _padded(tag: str) -> str:
    """An event's name, as wide as the names of what happens to jobs; one from a foreign hand as text."""
    return f"{_named(tag):<14}"


def _named(tag: str) -> str:
    return plain(tag)[:64] or "unreadable"


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    """On a terminal each in one line, which that may wrap: folded into the rest of its line, what an event
    says could not be read."""
    columns = ("at", "after", "event", "state", "what")
    if not sys.stdout.isatty():
        print_table(columns, rows)
        return
    console = Console(highlight=False, soft_wrap=True)
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for style, row in (("bold", columns), *((COLOURS.get(row[2], ""), row) for row in rows)):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print(Text(line.rstrip(), style=style))


def _rows(steps: Sequence[Step], *, full: bool) -> Iterator[list[str]]:
    last_error = ""
    for talk, group in groupby(steps, lambda step: not full and step.event in _TALK):
        run = list(group)
        if talk and len(run) > 2:
            yield _row(run[0], run[0].gap_ms, _said(run[0]))
            gap = sum(step.gap_ms for step in run[1:])
            yield _row(run[-1], gap, f"{_said(run[-1])} (the last of {len(run)})")
            continue
        for step in run:
            said, how = _said(step), _error(step)
            if how and how == last_error and not full:
                said = said.replace(how, "the same error again", 1)
            last_error = how or last_error
            yield _row(step, step.gap_ms, said)


def _row(step: Step, gap_ms: int, said: str) -> list[str]:
    state = step.state if step.fits else f"{step.state} (did not fit)"
    return [step.at, f"+{duration(gap_ms)}" if gap_ms else "", _named(step.event), state, said]


def _said(step: Step) -> str:
    return words(EventDetail(step.position, step.at, step.event, step.data))


def _error(step: Step) -> str:
    """How an attempt failed, as its line says it."""
    failure = _failure(step)
    return error(failure) if failure else ""


def _failure(step: Step) -> dict[str, Any]:
    """What a failure says; nothing of another event, or of one that a foreign hand wrote."""
    data = msgspec.json.decode(step.data) if step.event in ("attempt_failed", "failed") else None
    return data if isinstance(data, dict) else {}


def _print_tracebacks(steps: Sequence[Step]) -> None:
    for step in steps:
        traceback = str(_failure(step).get("traceback", ""))
        if traceback:
            shown = "".join(char for char in traceback if char.isprintable() or char in "\n\t")
            sys.stdout.write(f"\n{step.at}  {step.event}\n{shown.rstrip()}\n")
