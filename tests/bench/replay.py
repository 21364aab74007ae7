"""The replay tool over one long log: how fast it goes through all of it, and how soon it tells of a moment.

All is measured on one server, for nothing that is measured changes the log: first it is written
(replay_log.py), a thousand jobs are submitted that wait in their lanes, and a projector folds it all, so that
views and snapshots are what they would be. Then each measure is taken in a process of its own
(replay_side.py), with its own peak of memory.
"""

import statistics
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

import msgspec

from bench.arena import Arena, ProgramFailed
from bench.measures import Figures
from bench.replay_side import COPY, SEARCHES, Taken

MILLION: Final = 1_000_000
PATIENCE_S: Final = 1_800.0
LOOKS: Final = ("queue", "state", "job", "api")
_WAITING: Final = 1_000
_MIB: Final = 2**20


def replayed(arena: Arena, events: int, runs: int) -> Iterator[Figures]:
    """The figures of so many runs over a log of `events`; of a log of more than a million, all but the looks
    back are taken once. Raises ProgramFailed where an answer is not what the log holds."""
    _take(arena, "fill", str(events))
    arena.ask("bulk", min(_WAITING, events))
    with arena.running(arena.system.projector, "projector.log"):
        arena.wait(arena.caught_up, "the log is folded", patience=PATIENCE_S)
    yield {"server_mib": arena.client.info("memory")["used_memory"] / _MIB}
    for run in range(runs):
        if run == 0 or events <= MILLION:
            yield _folds(arena) | _searches(arena) | _files(arena)
        yield _looks(arena)
    yield {"server_peak_mib": arena.client.info("memory")["used_memory_peak"] / _MIB}


def _folds(arena: Arena) -> Figures:
    """Rebuild and verify."""
    return _rate(arena, "rebuild", "rebuild") | _rate(arena, "verify", "verify")


def _searches(arena: Arena) -> Figures:
    """Each kind of search, by the clock and by this process's own time."""
    figures, taken = Figures(), {kind: _take(arena, "grep", kind) for kind in SEARCHES}
    for kind, it in taken.items():
        _whole(arena, it, f"grep {kind}")
        figures[f"grep_{kind}_per_s"] = it.events / it.seconds
        figures[f"grep_{kind}_worked_per_s"] = it.events / it.worked
    if not 0 < taken["text"].found == taken["where"].found:
        raise ProgramFailed(f"two ways to ask the same find {taken['text'].found}, {taken['where'].found}")
    return figures | {"grep_mib": max(it.mib for it in taken.values())}


def _files(arena: Arena) -> Figures:
    """Out into files, and back from the first."""
    lines, table = arena.folder / "log.ndjson.zst", arena.folder / "log.parquet"
    figures = _rate(arena, "export", "export", str(lines))
    if find_spec("pyarrow"):
        figures |= _rate(arena, "parquet", "export", str(table))
    figures |= _rate(arena, "import", "import", str(lines))
    for file in (lines, table):
        file.unlink(missing_ok=True)
    for key in arena.client.scan_iter(f"{COPY}:*"):
        arena.client.unlink(key)
    return figures


def _looks(arena: Arena) -> Figures:
    """Back, at several moments: the middle and the longest time, in ms."""
    figures, peaks = Figures(), list[float]()
    for how in LOOKS:
        taken = _take(arena, "look", how)
        figures |= _times(f"at_{how}", taken)
        peaks.append(taken.mib)
    return figures | _times("at_cold", _take(arena, "cold")) | {"at_mib": max(peaks)}


def _rate(arena: Arena, name: str, *words: str) -> Figures:
    """Events a second, and the peak of memory, of what goes through the whole log."""
    taken = _take(arena, *words)
    _whole(arena, taken, name)
    return {f"{name}_per_s": taken.events / taken.seconds, f"{name}_mib": taken.mib}


def _times(name: str, taken: Taken) -> Figures:
    return {f"{name}_ms": statistics.median(taken.times) * 1000, f"{name}_max_ms": max(taken.times) * 1000}


def _whole(arena: Arena, taken: Taken, what: str) -> None:
    """It was all of the log."""
    if taken.events != (length := arena.client.xlen(arena.log)):
        raise ProgramFailed(f"{what} saw {taken.events} of {length} events")


def _take(arena: Arena, *words: str) -> Taken:
    argv = (sys.executable, "-m", "bench.replay_side", *words)
    return msgspec.json.decode(arena.output(argv, f"{words[0]}.log", patience=PATIENCE_S), type=Taken)
