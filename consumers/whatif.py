"""What if a queue had had other retries, another rate or another concurrency? A recorded stretch is played
again in virtual time, by the functions that decide in earnest: when a job is tried again (outcomes.py,
retry.py), and how many jobs a rate lets go (core/bucket.py).

What it assumes stands in ASSUMES, and whoever shows a result shows that too.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from itertools import count
from statistics import quantiles
from typing import Final

import msgspec

from penstock.consumers.outcomes import Failure, next_attempt
from penstock.consumers.whatif_past import Run, Trial
from penstock.core.bucket import Bucket, take
from penstock.core.contracts import Backoff
from penstock.core.errors import Refused
from penstock.core.events import Submitted

ASSUMES: Final = (
    "each job comes when it came, whatever becomes of the others",
    "attempt n of a job runs as long and ends as its attempt n did; one that never was, as its last one did",
    "waits between attempts are as they were; where a backoff is given or none was, they are drawn from it",
    "workers take at once, and as many run at once as is said, or as ran at most in the stretch",
    "the rate limit, where none is said, is the queue's of now, over the whole stretch",
    "no worker is lost, nothing is paused, and groups take no turns",
)
MIN_RATE: Final = 1e-6  # a job in eleven days
_PRIORITIES: Final = ("high", "normal", "low")
_FAILED: Final = Failure("", "")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be otherwise. `attempts` and `backoff`: of jobs of `types` (all, if none); None is as it
    was. `concurrency`: attempts at once over all workers. `rate` in jobs per second, 0 is no limit; at most
    `burst` at once (as many as in a second if 0)."""

    concurrency: int
    attempts: int | None = None
    backoff: Backoff | None = None
    types: tuple[str, ...] = ()
    rate: float = 0
    burst: int = 0
    seed: int = 1


class Figures(msgspec.Struct, frozen=True):
    """How a stretch went. Waits in ms, from when a job could begin to its first attempt; `drained` in s, from
    the first job's coming to the last one's end; `busy`: attempts at once, on average over that time."""

    jobs: int
    wait_p50: float
    wait_p95: float
    wait_p99: float
    attempts: int
    dead: int
    drained: float
    busy: float


class _Ending(msgspec.Struct):
    """What a run comes to: when it began, when it ended, and after how many attempts."""

    began: float
    ended: float
    attempts: int
    dead: bool
    ran: float


def was(runs: Sequence[Run]) -> Figures:
    """How it really went."""
    return _figures(
        runs,
        [
            _Ending(run.began, run.ended, len(run.trials), run.dead, sum(trial.ms for trial in run.trials))
            for run in runs
        ],
    )


def what_if(runs: Sequence[Run], plan: Plan) -> Figures:
    """How it would have gone by this plan. Raises Refused: its rate is so low that it would never end."""
    if 0 < plan.rate < MIN_RATE:
        raise Refused(f"a rate of {plan.rate:g} jobs/s is too low: at least {MIN_RATE:f}, or 0 for no limit")
    return _figures(runs, _Play(runs, plan).play())


class _Play:
    """One play of a stretch. Times are ms, in fractions."""

    def __init__(self, runs: Sequence[Run], plan: Plan) -> None:
        self._plan: Final = plan
        self._draw: Final = random.Random(plan.seed)  # noqa: S311 - spreads waits, guards nothing
        self._runs: Final = runs
        self._specs: Final = [self._planned(run) for run in runs]
        self._burst: Final = plan.burst or max(1, round(plan.rate))
        self._order: Final = count()
        # Heaps of (time, order, run): where attempts end, and what has a time that is to come.
        self._ends: Final[list[tuple[float, int, int]]] = []
        self._due: Final[list[tuple[float, int, int]]] = []
        self._ripe: Final[deque[int]] = deque()  # what had a time, which has come
        self._lanes: Final[dict[str, deque[int]]] = {name: deque() for name in _PRIORITIES}
        self._attempts: Final = [0] * len(runs)
        self._results: Final = [_Ending(0, 0, 0, dead=False, ran=0) for _ in runs]
        self._running = 0
        self._bucket: Bucket | None = None
        self._look = math.inf  # when the bucket has a token again

    def play(self) -> list[_Ending]:
        coming = deque(sorted(range(len(self._runs)), key=lambda number: self._runs[number].came))
        while (now := self._next(coming)) < math.inf:
            while coming and self._runs[coming[0]].came <= now:
                self._come(coming.popleft())
            while self._ends and self._ends[0][0] <= now:
                self._end(heapq.heappop(self._ends)[2], now)
            while self._due and self._due[0][0] <= now:
                self._ripe.append(heapq.heappop(self._due)[2])
            self._start(now)
        return self._results

    def _next(self, coming: deque[int]) -> float:
        """When something happens next: what waits already is waiting for one of these."""
        came = float(self._runs[coming[0]].came) if coming else math.inf
        return min(came, self._look, *(heap[0][0] for heap in (self._ends, self._due) if heap))

    def _come(self, number: int) -> None:
        run = self._runs[number]
        if run.ready > run.came:
            heapq.heappush(self._due, (run.ready, next(self._order), number))
        else:
            self._lanes[run.priority].append(number)

    def _start(self, now: float) -> None:
        for number in self._ready(now):
            trial = self._trial(number)
            result = self._results[number]
            if not self._attempts[number]:
                result.began = now
            self._attempts[number] += 1
            result.ran += trial.ms
            self._running += 1
            heapq.heappush(self._ends, (now + trial.ms, next(self._order), number))

    def _ready(self, now: float) -> list[int]:
        """As many as may start, in the order in which cycle.lua takes them: what is due, then the lanes."""
        waiting = len(self._ripe) + sum(map(len, self._lanes.values()))
        want = min(waiting, self._plan.concurrency - self._running)
        self._look = math.inf
        if self._plan.rate and want:
            taken = take(self._bucket, want, int(now), rate=self._plan.rate, burst=self._burst)
            self._bucket = taken.bucket
            if taken.jobs < want:
                self._look = int(now) + taken.again_ms
            want = taken.jobs
        queues = (self._ripe, *self._lanes.values())
        return [next(queue for queue in queues if queue).popleft() for _ in range(want)]

    def _trial(self, number: int) -> Trial:
        trials = self._runs[number].trials
        return trials[min(self._attempts[number], len(trials) - 1)]

    def _end(self, number: int, now: float) -> None:
        self._running -= 1
        attempt, result = self._attempts[number], self._results[number]
        trials = self._runs[number].trials
        trial = trials[min(attempt, len(trials)) - 1]
        result.attempts, result.ended = attempt, now
        if not trial.failed:
            return
        wait = next_attempt(self._specs[number], attempt, self._why(number, trial), draw=self._draw)
        if wait is None:
            result.dead = True
        else:
            heapq.heappush(self._due, (now + wait * 1000, next(self._order), number))

    def _why(self, number: int, trial: Trial) -> Failure:
        """As it was where its wait is known and not planned otherwise."""
        if trial.permanent:
            return msgspec.structs.replace(_FAILED, permanent=True)
        known = not self._is_planned(self._runs[number]) or self._plan.backoff is None
        return msgspec.structs.replace(_FAILED, after=trial.delay) if known and trial.delay else _FAILED

    def _planned(self, run: Run) -> Submitted:
        if not self._is_planned(run):
            return run.spec
        told = {"attempts": self._plan.attempts, "backoff": self._plan.backoff}
        return msgspec.structs.replace(run.spec, **{name: it for name, it in told.items() if it is not None})

    def _is_planned(self, run: Run) -> bool:
        return not self._plan.types or run.spec.type in self._plan.types


def _figures(runs: Sequence[Run], endings: Sequence[_Ending]) -> Figures:
    if not runs:
        return Figures(0, 0, 0, 0, 0, 0, 0, 0)
    waits = [max(0.0, end.began - run.ready) for run, end in zip(runs, endings, strict=True)]
    cuts = quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else waits * 99
    drained = max(end.ended for end in endings) - min(run.came for run in runs)
    return Figures(
        jobs=len(runs),
        wait_p50=round(cuts[49], 1),
        wait_p95=round(cuts[94], 1),
        wait_p99=round(cuts[98], 1),
        attempts=sum(end.attempts for end in endings),
        dead=sum(end.dead for end in endings),
        drained=round(drained / 1000, 3),
        busy=round(sum(end.ran for end in endings) / max(drained, 1), 2),
    )
