"""The long measures: is memory flat over a million jobs, and bounded in a rebuild of a million events?"""

import sys
import time
from pathlib import Path
from typing import Final

from bench.arena import Arena, Process
from bench.measures import Figures

MILLION: Final = 1_000_000
SAMPLE_S: Final = 0.25
REBUILD: Final = (sys.executable, "-m", "bench.rebuild_side")


def steady(arena: Arena, jobs: int = MILLION) -> Figures:
    """A producer, a worker and a projector at full speed over `jobs` jobs.

    `memory_growth` is the largest resident memory in the later half of a process's samples over
    the largest in the earlier half, for the process where it is worst.
    """
    samples: dict[str, list[float]] = {"producer": [], "worker": [], "projector": []}
    with arena.projector() as projector, arena.workers(1, warm=1) as crew:
        argv = [*arena.system.program, "bulk", str(jobs)]
        arena.submitted += jobs
        with arena.running(argv, "producer.log") as producer:
            while not producer.ended():
                _sample(samples, producer=producer, worker=crew[0], projector=projector)
        while not (arena.idle() and arena.caught_up()):
            _sample(samples, worker=crew[0], projector=projector)
            crew[0].check()
            projector.check()
    arena.succeeded()
    growth = max(_growth(sizes) for sizes in samples.values())
    return {"memory_growth": growth, **{f"{role}_mib": max(sizes) for role, sizes in samples.items()}}


def rebuilt(arena: Arena, events: int = MILLION) -> Figures:
    """Rebuild a log of a quarter of the events, then of all: the peak must not follow the log."""
    few = _rebuild(arena, events // 4)
    all_events = _rebuild(arena, events)
    return {
        "rebuild_per_s": arena.client.xlen(arena.log) / all_events[0],
        "rebuild_mib": all_events[1],
        "rebuild_growth": all_events[1] / few[1],
    }


def _rebuild(arena: Arena, events: int) -> tuple[float, float]:
    """Bring the log up to `events` (three a job) and rebuild; seconds and peak MiB."""
    with arena.workers(1, warm=1):
        arena.ask("bulk", max(events - arena.client.xlen(arena.log), 3) // 3)
        arena.wait(arena.idle, "the log is written")
    seconds, peak = arena.output(REBUILD, "rebuild.log").split()
    return float(seconds), float(peak)


def _sample(samples: dict[str, list[float]], **processes: Process) -> None:
    for role, process in processes.items():
        size = _resident_mib(process.pid)
        if size:
            samples[role].append(size)
    time.sleep(SAMPLE_S)


def _resident_mib(pid: int) -> float:
    """Resident memory in MiB; 0 for a process that has just ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0)


def _growth(sizes: list[float]) -> float:
    half = len(sizes) // 2
    return max(sizes[half:]) / max(sizes[:half]) if half else 1
