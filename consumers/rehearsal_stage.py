"""The stage of a rehearsal: a namespace of its own, in which past jobs run through the real scripts and the
real executor, with nothing of the world outside.

    what a job could touch       in a rehearsal
    the queue it came from       is another one: the stage has its own keys, which are taken away at the end
                                 and, should the process be killed, end by themselves after an hour
    artifacts                    are read; those that are stored go into a folder that is thrown away
    jobs it submits              go nowhere
    anything else                its handler is pure, or has a dry mode that runs instead, or is not run

Attempts that fail are tried again at once: a rehearsal does not wait.
"""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from penstock.consumers.attempts import Attempts
from penstock.consumers.context import Context
from penstock.consumers.executors import Executors
from penstock.consumers.handlers import Handler
from penstock.consumers.rehearsal import Ran, Recorded, Rehearsed, compared, not_run, ran
from penstock.core.artifacts import Artifacts, Overlay
from penstock.core.connection import command, connect
from penstock.core.contracts import Backoff, declaration
from penstock.core.control import Control, Standing
from penstock.core.dispatch import Delivery, Dispatch, Finished, Submission
from penstock.core.events import Completed, Event, Failed, Submitted, decode, encode
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.sealing import Seals, Unsealable, is_sealed, open_seals, opened, opened_text
from penstock.core.settings import Settings

ACT: Final = 200  # jobs that are on the stage together
ACT_BYTES: Final = 8 * 1024 * 1024  # and their payloads, unless a single one is bigger
LIFE_MS: Final = 3_600_000
KEEP_S: Final = 1.0  # how often the life of keys is renewed
_AT_ONCE: Final = Backoff(kind="fixed", base=0, jitter=0)
_CONSUMER: Final = "rehearsal"


class Stage:
    """Runs jobs of one queue in a namespace of its own."""

    def __init__(
        self,
        redis: Redis,
        keys: PartitionKeys,
        handlers: Mapping[str, Handler],
        attempts: "_Attempts",
        executors: Executors,
        *,
        at_once: int,
        seals: Seals | None,
    ) -> None:
        self._redis: Final = redis
        self._keys: Final = keys
        self._seals: Final = seals
        self._dispatch: Final = Dispatch(redis, keys)
        self._handlers: Final = handlers
        self._attempts: Final = attempts
        self._executors: Final = executors
        self._at_once: Final = at_once
        self._acts = 0

    @property
    def stuck(self) -> bool:
        """Whether a handler's thread has not come back, though its time was over."""
        return bool(self._executors.stuck)

    async def rehearse(self, jobs: Sequence[Recorded]) -> list[Rehearsed]:
        """Run them, some at a time; answers in the same order. What may not be run is not."""
        answers: dict[str, Rehearsed] = {}
        runnable = []
        for job in jobs:
            why = job.why or self._refused(job)
            if why:
                answers[job.id] = not_run(job, why)
            else:
                runnable.append(job)
        for act in acts(runnable):
            for job, now in zip(act, await self._run(act), strict=True):
                answers[job.id] = compared(self._opened(job), now, pure=self._handlers[job.spec.type].pure)
        return [answers[job.id] for job in jobs]

    def _refused(self, job: Recorded) -> str:
        handler = self._handlers.get(job.spec.type)
        if handler is None:
            return "there is no handler of its type here"
        if is_sealed(job.spec.payload) and self._seals is None:
            return "its payload is sealed, and PENSTOCK_PAYLOAD_KEYS is not set here"
        return "" if handler.rehearsed() else "its handler is not declared pure and has no dry mode"

    async def _run(self, act: Sequence[Recorded]) -> list[Ran]:
        self._acts += 1
        accepted = await self._dispatch.submit(
            [Submission("normal", encode(_restaged(job.spec))) for job in act],
            producer=_CONSUMER,
            batch=self._acts,
            once_ms=LIFE_MS,
        )
        await self._dispatch.beat(_CONSUMER, LIFE_MS, enter=True)
        await self._renew()
        places = {one.position: job for one, job in zip(accepted, act, strict=True)}
        self._attempts.cast(self._keys, places)
        ends: dict[str, Ran] = {}
        running: set[asyncio.Task[Finished]] = set()
        keeper = asyncio.create_task(self._keep())
        try:
            await self._play(places, ends, running)
        finally:
            for task in (keeper, *running):
                task.cancel()
            await asyncio.gather(keeper, *running, return_exceptions=True)
        # What was played is needed no more: memory is that of one act, however long the rehearsal.
        await command(self._redis, "XTRIM", self._keys.log, "MAXLEN", 0)
        return [ends[one.position] for one in accepted]

    async def _play(
        self, places: Mapping[str, Recorded], ends: dict[str, Ran], running: set[asyncio.Task[Finished]]
    ) -> None:
        """Until all have ended, and that is reported."""
        finished: list[Finished] = []
        while finished or len(ends) < len(places):
            cycle = await self._dispatch.cycle(_CONSUMER, self._at_once - len(running), finished=finished)
            finished = []
            running |= {asyncio.create_task(self._attempt(it)) for it in cycle.deliveries}
            if running:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                running -= done
                finished = [task.result() for task in done]
                ends |= {
                    end.job.decode(): self._ended(end, places[end.job.decode()].spec.type)
                    for end in finished
                    if end.outcome in ("completed", "failed")
                }
            elif len(ends) < len(places):
                await self._promote([place for place in places if place not in ends])

    def _ended(self, end: Finished, type: str) -> Ran:
        body = decode(Event("", end.outcome, "", end.body))
        assert isinstance(body, Completed | Failed)  # noqa: S101 - the outcome says so
        return _legible(ran(body), type, self._seals)

    def _opened(self, job: Recorded) -> Recorded:
        if job.then is None:
            return job
        return msgspec.structs.replace(job, then=_legible(job.then, job.spec.type, self._seals))

    async def _attempt(self, delivery: Delivery) -> Finished:
        return await self._attempts.execute(delivery, self._keys, _CONSUMER, lambda _: None)

    async def _promote(self, places: Sequence[str]) -> None:
        """What said when it wants to be tried again (RetryLater) is tried now."""
        spec = Submitted(type="", payload=msgspec.Raw(b"null"))
        stands = [Standing(place, (place,), spec, "") for place in places]
        await Control(self._redis, self._keys).reschedule(stands, by=_CONSUMER, at_once=True)

    async def _keep(self) -> None:
        """An attempt may take longer than the keys live; and some keys come and go."""
        while True:
            await asyncio.sleep(KEEP_S)
            await self._renew()

    async def _renew(self) -> None:
        """An hour more for all that is on the stage, in one step."""
        pipeline = self._redis.pipeline(transaction=True)
        for name in (*self._keys.entries, self._keys.facts, self._keys.queues):
            pipeline.pexpire(name, LIFE_MS)
        await pipeline.execute()


@asynccontextmanager
async def open_stage(
    settings: Settings,
    queue: str,
    handlers: Mapping[str, Handler],
    *,
    artifacts: Artifacts,
    at_once: int = 16,
) -> AsyncIterator[Stage]:
    """A stage on the server of the settings, and all it needs; taken away at the end, whatever that is."""
    keys = Keys(f"{settings.namespace[:12]}-rehearsal-{secrets.token_hex(4)}")
    executors, seals = Executors(at_once), open_seals(settings)
    rehearsed = {type: found for type, it in handlers.items() if (found := it.rehearsed())}
    with tempfile.TemporaryDirectory(prefix="penstock-rehearsal-", ignore_cleanup_errors=True) as folder:
        attempts = _Attempts(
            rehearsed,
            executors,
            artifacts=Overlay(artifacts, Path(folder)),
            submitter=_Nowhere(),
            max_result=settings.max_result,
            seals=seals,
        )
        async with connect(settings) as redis:
            try:
                partition = keys.partition(queue)
                yield Stage(redis, partition, handlers, attempts, executors, at_once=at_once, seals=seals)
            finally:
                executors.close()
                names = [name async for name in redis.scan_iter(match=f"{keys.namespace}:*", count=1_000)]
                if names:
                    await command(redis, "UNLINK", *names)


class _Attempts(Attempts):
    """Attempts whose handlers see the past jobs' ids, and that they are in a rehearsal."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._roles: Mapping[str, str] = {}

    def cast(self, keys: PartitionKeys, places: Mapping[str, Recorded]) -> None:
        """Who plays whom, from now on."""
        self._roles = {keys.job_id(place): job.id for place, job in places.items()}

    async def _in_time(self, handler: Handler, payload: Any, context: Context, timeout: float) -> Any:
        told = Context(
            job_id=self._roles[context.job_id],
            type=context.type,
            attempt=context.attempt,
            attempts=context.attempts,
            artifacts=context.artifacts,
            jobs=context.jobs,
            report=context.report,
            needs=context.needs,
            unmet=context.unmet,
            rehearsal=True,
        )
        return await super()._in_time(handler, payload, told, timeout)


class _Nowhere:
    """Takes jobs as a producer does, and submits none."""

    def __init__(self) -> None:
        self._count = 0

    async def submit(self, payload: msgspec.Struct, /, **options: Any) -> str:
        queue = declaration(type(payload)).queue
        self._count += 1
        return f"{queue}.0.{self._count}-0"


def acts(jobs: Iterable[Recorded]) -> Iterator[list[Recorded]]:
    """The jobs in the same order, at most ACT and ACT_BYTES together."""
    act: list[Recorded] = []
    size = 0
    for job in jobs:
        size += len(memoryview(job.spec.payload))
        if act and (len(act) == ACT or size > ACT_BYTES):
            yield act
            act, size = [], len(memoryview(job.spec.payload))
        act.append(job)
    if act:
        yield act


def _restaged(spec: Submitted) -> Submitted:
    """What is run again: the same, at once, and with no wait between attempts."""
    return Submitted(
        type=spec.type,
        payload=spec.payload,
        attempts=spec.attempts,
        backoff=_AT_ONCE,
        timeout=spec.timeout,
        needs=spec.needs,
    )


def _legible(end: Ran, type: str, seals: Seals | None) -> Ran:
    """What it says, opened as far as there are keys for it."""
    try:
        return msgspec.structs.replace(
            end,
            result=opened(end.result, type, "result", seals),
            message=opened_text(end.message, type, "message", seals),
        )
    except Unsealable:
        return end
