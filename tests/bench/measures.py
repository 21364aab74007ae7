"""The measures: each takes a fresh arena and answers figures by name.

Rates are per second, latencies in ms, memory in bytes of the server's `used_memory`. How each is
taken, and why so, is told in README.md.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Literal

import httpx
import msgspec

from bench.arena import Arena
from bench.systems import System
from servers import free_port

Figures = dict[str, float]
WATCHED: Final = 5
SCRAPE_S: Final = 0.5

Group = Literal["submit", "drain", "latency", "projector", "memory"]


class Sizes(msgspec.Struct, frozen=True):
    """How many jobs: to submit and drain, to warm a worker with, and to time one by one."""

    jobs: int = 20_000
    warm: int = 2_000
    clocks: int = 500

    @property
    def singles(self) -> int:
        return max(self.jobs // 4, 1)


def bulk(arena: Arena, sizes: Sizes) -> Figures:
    """One producer, batches of 100, each awaited before the next."""
    return {"bulk_per_s": float(arena.ask("bulk", sizes.jobs))}


def single(arena: Arena, sizes: Sizes) -> Figures:
    """One producer, one job a call, each awaited before the next."""
    return {"single_per_s": float(arena.ask("single", sizes.singles))}


def drain_by_one(arena: Arena, sizes: Sizes) -> Figures:
    return {"drain_1_per_s": _drained(arena, sizes, 1)}


def drain_by_two(arena: Arena, sizes: Sizes) -> Figures:
    return {"drain_2_per_s": _drained(arena, sizes, 2)}


def drain_and_project(arena: Arena, sizes: Sizes) -> Figures:
    """One worker and a projector: jobs ended *and seen by the views*, and how far these lagged.

    The clock stops when the views have seen the last event, so the rate is that of both together.
    """
    with arena.workers(1, warm=sizes.warm) as crew, arena.projector():
        crew[0].pause()
        arena.ask("bulk", sizes.jobs)
        arena.wait(arena.caught_up, "the projector has seen the submissions")
        began = time.perf_counter()
        crew[0].resume()
        arena.wait(arena.idle, "all is drained")
        drained = time.perf_counter()
        lag = arena.lag()
        arena.wait(arena.caught_up, "the projector has caught up")
        seen = time.perf_counter()
    arena.succeeded()
    return {
        "beside_per_s": sizes.jobs / (drained - began),
        "projected_per_s": sizes.jobs / (seen - began),
        "projected_lag_events": lag,
        "projected_lag_ms": (seen - drained) * 1000,
    }


def drain_watched(arena: Arena, sizes: Sizes) -> Figures:
    """By one worker whose metrics are on and scraped twice a second, ten times as often as is usual; of
    more jobs, so that it is. Before and after it the same with metrics off, on the same server."""
    many, port = msgspec.structs.replace(sizes, jobs=sizes.jobs * WATCHED), free_port()
    before = _drained(arena, many, 1)
    arena.environ["BENCH_METRICS_PORT"] = str(port)
    with scraped(f"http://127.0.0.1:{port}/metrics") as scrapes:
        watched = _drained(arena, many, 1)
    del arena.environ["BENCH_METRICS_PORT"]
    after = _drained(arena, many, 1)
    return {"watched_share": 2 * watched / (before + after), "scrapes": len(scrapes)}


def latency(arena: Arena, sizes: Sizes) -> Figures:
    """From just before `submit` to the handler's first line, on an idle worker."""
    with arena.workers(1, warm=sizes.warm):
        arena.ask("clock", sizes.clocks)
        arena.wait(lambda: len(arena.latencies()) >= sizes.clocks, "all clock jobs have started")
    percentiles = statistics.quantiles(arena.latencies(), n=100, method="inclusive")
    return {"p50_ms": percentiles[49], "p99_ms": percentiles[98]}


def fold(arena: Arena, sizes: Sizes) -> Figures:
    """A projector on its own, with a log of whole jobs (three events each) before it."""
    with arena.projector() as projector:
        with arena.workers(1, warm=sizes.warm):
            arena.wait(arena.caught_up, "the projector is warm")
            projector.pause()
            arena.ask("bulk", sizes.jobs)
            arena.wait(arena.idle, "the log is written")
        events = arena.lag()
        began = time.perf_counter()
        projector.resume()
        arena.wait(arena.caught_up, "the log is folded")
        return {"fold_per_s": events / (time.perf_counter() - began)}


def memory(arena: Arena, sizes: Sizes) -> Figures:
    """Bytes of Redis per waiting and per finished job; Penstock's with its views, up to date.

    Scripts, groups and the like are there before the first reading, and so count for no job.
    """
    _finish(arena)
    before, earlier = arena.used_memory(), arena.succeeded()
    arena.ask("bulk", sizes.jobs)
    _project(arena)
    waiting = (arena.used_memory() - before) / sizes.jobs
    _finish(arena)
    finished = (arena.used_memory() - before) / (arena.succeeded() - earlier)
    return {"waiting_bytes": waiting, "finished_bytes": finished}


def _drained(arena: Arena, sizes: Sizes, workers: int) -> float:
    """Jobs/s from waking warm, paused workers before a full queue to the end of the last job."""
    with arena.workers(workers, warm=sizes.warm) as crew:
        for process in crew:
            process.pause()
        arena.ask("bulk", sizes.jobs)
        began = time.perf_counter()
        for process in crew:
            process.resume()
        arena.wait(arena.idle, "all is drained")
        seconds = time.perf_counter() - began
    arena.succeeded()
    return sizes.jobs / seconds


@contextmanager
def scraped(url: str) -> Iterator[list[int]]:
    """Somebody asks for the metrics at `url`, time and again, as long as the context lasts; the bytes of
    each answer."""
    over, answers = threading.Event(), list[int]()

    def scrape() -> None:
        while not over.wait(SCRAPE_S):
            with suppress(httpx.TransportError):  # it may not be there yet
                answers.append(len(httpx.get(url).raise_for_status().content))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


def _finish(arena: Arena) -> None:
    """Let a worker do all there is and leave, and the views see it."""
    with arena.workers(1, warm=1):
        pass
    _project(arena)


def _project(arena: Arena) -> None:
    if arena.system.projector:
        with arena.projector():
            pass


class Measure(msgspec.Struct, frozen=True):
    """A measure, its group on the command line, and which systems it is for. `once`: one run in
    one AOF mode is enough, because nothing in it depends on time."""

    group: Group
    take: Callable[[Arena, Sizes], Figures]
    fits: Callable[[System], bool] = lambda system: True
    once: bool = False


def _has_handlers(system: System) -> bool:
    return system.has_handlers


def _has_projector(system: System) -> bool:
    return bool(system.projector)


MEASURES: Final = (
    Measure("submit", bulk),
    Measure("submit", single),
    Measure("drain", drain_by_one),
    Measure("drain", drain_by_two, _has_handlers),
    Measure("drain", drain_and_project, _has_projector),
    Measure("drain", drain_watched, _has_projector),
    Measure("latency", latency, _has_handlers),
    Measure("projector", fold, _has_projector),
    Measure("memory", memory, _has_handlers, once=True),
)
