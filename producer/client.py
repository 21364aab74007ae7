"""The Python client: submit jobs, await what becomes of them.

    async with Producer() as producer:
        handle = await producer.submit(ResizeImage(source="…", width=800), priority="high")
        result = await handle.result(timeout=30)

`penstock.producer.sync` has the same for code without an event loop.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Self, TypedDict, TypeVar, Unpack, overload

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import answering, connect
from penstock.core.contracts import Backoff, Priority, declaration
from penstock.core.control import Cancelling
from penstock.core.dispatch import Submission
from penstock.core.endings import Endings
from penstock.core.errors import FieldProblem, InvalidJob, JobFailed, NotFound, Refused
from penstock.core.events import Cancelled, Completed, Event, Failed, decode
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import TERMINAL, Job, State, fold_all
from penstock.core.log import Log
from penstock.core.positions import parse_job_id
from penstock.core.sealing import open_seals, opened, opened_text
from penstock.core.settings import Settings, read_settings
from penstock.core.story import find, tell
from penstock.core.tracing import carried, tracer
from penstock.core.validation import every_problem
from penstock.core.workers import Worker, Workers
from penstock.producer.commands import Change, Commands, Drained, Limits
from penstock.producer.intake import JobOptions, JobRequest, Mould, Unique, prepare
from penstock.producer.outlet import Outlet
from penstock.producer.reading import read_fields
from penstock.producer.tracing import sending, tell_sent

T = TypeVar("T")


class SubmitOptions(TypedDict, total=False):
    """Options of one submission; what is left out comes from the contract. Times in seconds.

    `run_at` (a datetime with a time zone, or Unix ms) excludes `delay`. `key` is the idempotency
    key: while it is remembered, submitting again answers with the first job.
    """

    priority: Priority
    delay: float
    run_at: datetime | int
    attempts: int
    backoff: Backoff
    timeout: float
    tags: Sequence[str]
    key: str
    ttl: float
    group: str
    unique: Unique


class QueueLimits(TypedDict, total=False):
    """The limits of a queue, see Limits."""

    rate: float
    burst: int
    concurrency: int
    per_group: int
    backlog: int


class Receipt(msgspec.Struct, frozen=True):
    """An accepted job. `known`: its idempotency key had been seen, this is the first job."""

    id: str
    queue: str
    type: str
    state: State
    known: bool


class Producer:
    """Submits jobs over one client. Safe to share between tasks; close it, or use `async with`.

    If the program has an OpenTelemetry tracer provider when this is made, its submissions are spans, and
    their jobs belong to the caller's trace.
    """

    def __init__(self, settings: Settings | None = None, *, redis: Redis | None = None) -> None:
        self.settings: Final = settings or read_settings()
        self._owned: Final = redis is None
        self.redis: Final = redis or connect(self.settings)
        self.keys: Final = Keys(self.settings.namespace)
        self.seals: Final = open_seals(self.settings)
        self.commands: Final = Commands(self.redis, self.keys)
        self._workers: Final = Workers(self.redis, self.keys)
        self._tracer: Final = tracer()
        # Of submissions with no options: those of a contract are all alike.
        self._moulds: Final[dict[type[msgspec.Struct], Mould]] = {}
        self._outlets: dict[str, Outlet] = {}
        self._endings: dict[str, Endings] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop waiting for endings and close the connections made here."""
        for endings in self._endings.values():
            await endings.close()
        if self._owned:
            await self.redis.aclose()

    async def submit(self, payload: msgspec.Struct, /, **options: Unpack[SubmitOptions]) -> "Handle":
        """Submit one job. Raises InvalidJob, TooLarge, Misconfigured (no contract), Unavailable."""
        return (await self.submit_many([payload], **options))[0]

    async def submit_many(
        self, payloads: Iterable[msgspec.Struct], /, **options: Unpack[SubmitOptions]
    ) -> list["Handle"]:
        """Submit jobs with the same options, in one script call for each thousand of a queue.

        All are checked first: one that is wrong raises, and none is submitted. An idempotency
        key is for one job, so `key` is refused with more than one.
        """
        if self._tracer is None:
            return await self._submit_many(payloads, options)
        given = list(payloads)
        with sending(self._tracer, {declaration(type(payload)).queue for payload in given}) as span:
            handles = await self._submit_many(given, options, carried())
            tell_sent(span, [handle.id for handle in handles])
            return handles

    async def _submit_many(
        self, payloads: Iterable[msgspec.Struct], options: SubmitOptions, trace: str = ""
    ) -> list["Handle"]:
        moulds = {} if options or trace else self._moulds
        jobs: dict[str, tuple[list[int], list[Submission]]] = {}
        handles: list[Any] = []
        for payload in payloads:
            mould = moulds.get(type(payload))
            if mould is None:
                mould = moulds[type(payload)] = self._mould(type(payload), options, trace)
            rows = jobs.get(mould.queue)
            if rows is None:
                rows = jobs[mould.queue] = ([], [])
            rows[0].append(len(handles))
            rows[1].append(mould.cast(_encode(payload)))
            handles.append(mould.type)
        if len(handles) > 1 and options.get("key"):
            raise ValueError("an idempotency key names one job: submit them one by one")
        for queue, (numbers, submissions) in jobs.items():
            keys = self.keys.partition(queue)
            accepted = await self._outlet(queue).submit(submissions)
            for number, answer in zip(numbers, accepted, strict=True):
                handles[number] = Handle(self, keys, answer.position, handles[number], answer.known)
        return handles

    async def accept(
        self,
        queue: str,
        requests: Sequence[JobRequest],
        *,
        by: str = "",
        trace: str = "",
        origin: str = "",
    ) -> list[Receipt | Refused]:
        """Submit requests as they come over HTTP; a refused one does not stop the others. `origin`: the
        job they are made from."""
        if self._tracer is None:
            return await self._accept(queue, requests, by, trace, origin)
        with sending(self._tracer, [queue], trace) as span:
            answers = await self._accept(queue, requests, by, carried(), origin)
            ids = [answer.id for answer in answers if isinstance(answer, Receipt)]
            tell_sent(span, ids, refused=len(answers) - len(ids))
            return answers

    async def _accept(
        self, queue: str, requests: Sequence[JobRequest], by: str, trace: str, origin: str
    ) -> list[Receipt | Refused]:
        keys, limit = self.keys.partition(queue), self.settings.max_payload
        answers: list[Receipt | Refused] = []
        good: list[tuple[int, JobRequest, Submission]] = []
        for request in requests:
            try:
                submission = prepare(
                    queue, request, max_payload=limit, by=by, trace=trace, origin=origin, seals=self.seals
                )
                good.append((len(answers), request, submission))
                answers.append(_PENDING)
            except Refused as refusal:
                answers.append(refusal)
        if good:
            accepted = await self._outlet(queue).submit([submission for _, _, submission in good])
            for (number, request, submission), answer in zip(good, accepted, strict=True):
                state: State = "delayed" if submission.when else "waiting"
                job_id = keys.job_id(answer.position)
                answers[number] = Receipt(job_id, queue, request.type, state, answer.known)
        return answers

    def buffered(self) -> dict[str, int]:
        """How many submissions wait for the script call before them, by queue."""
        return {queue: outlet.buffered for queue, outlet in self._outlets.items()}

    def handle(self, job_id: str) -> "Handle":
        """A handle on a job submitted elsewhere. Raises NotFound for a malformed id."""
        return self._handle(job_id, "", False)

    def endings(self, keys: PartitionKeys) -> Endings:
        """The shared waiter of a partition."""
        if keys.name not in self._endings:
            self._endings[keys.name] = Endings(Log(self.redis, keys))
        return self._endings[keys.name]

    async def pause(self, queue: str, *, by: str = "") -> bool:
        """See Commands.pause; so for the four below."""
        return await self.commands.pause(queue, by=by)

    async def resume(self, queue: str, *, by: str = "") -> bool:
        return await self.commands.resume(queue, by=by)

    async def limit(self, queue: str, *, by: str = "", **limits: Unpack[QueueLimits]) -> bool:
        """Set all limits of a queue: what is left out is none. See Limits."""
        told = read_fields(msgspec.json.encode(limits), Limits)
        return await self.commands.limit(queue, told, by=by)

    async def drain_queue(self, queue: str, *, by: str = "") -> Drained:
        return await self.commands.drain(queue, by=by)

    async def workers(self) -> list[Worker]:
        """Who works, and on what, as of now."""
        return await self._workers.roster()

    async def drain_worker(self, name: str, *, by: str = "") -> None:
        """Ask a worker to leave. See Workers.drain."""
        await self._workers.drain(name, by=by)

    def _mould(self, payload: type[msgspec.Struct], options: SubmitOptions, trace: str) -> Mould:
        contract = declaration(payload)
        checked, limit = _checked(options), self.settings.max_payload
        return Mould(contract.queue, contract.type, checked, max_payload=limit, trace=trace, seals=self.seals)

    def _handle(self, job_id: str, type: str, known: bool) -> "Handle":
        queue, partition, position = parse_job_id(job_id)
        return Handle(self, self.keys.partition(queue, partition), position, type, known)

    def _outlet(self, queue: str) -> Outlet:
        outlet = self._outlets.get(queue)
        if outlet is None:
            keys = self.keys.partition(queue)
            outlet = self._outlets[queue] = Outlet(
                self.redis, keys, once_s=self.settings.idempotency_ttl, replicas=self.settings.replicas
            )
        return outlet


class Handle:
    """A submitted job: its id, and ways to learn what became of it, read from the log."""

    __slots__ = ("_keys", "_position", "_producer", "known", "type")

    def __init__(
        self, producer: Producer, keys: PartitionKeys, position: str, type: str, known: bool
    ) -> None:
        self._producer: Final = producer
        self._keys: Final = keys
        self._position: Final = position
        self.type: Final = type
        self.known: Final = known

    @property
    def id(self) -> str:
        return self._keys.job_id(self._position)

    @property
    def queue(self) -> str:
        return self._keys.queue

    def __repr__(self) -> str:
        return f"<Handle {self.id}>"

    async def state(self) -> State:
        """The job's state now. Raises NotFound where the log does not hold it."""
        with answering():
            job = await find(self._producer.redis, self._keys, self._position)
        if job is None:
            raise NotFound(f"no job {self.id}")
        return job.state

    async def events(self) -> list[Event]:
        """All its events so far."""
        with answering():
            return await tell(self._producer.redis, self._keys, self._position)

    @overload
    async def result(self, *, timeout: float | None = None) -> Any: ...
    @overload
    async def result(self, *, timeout: float | None = None, type: type[T]) -> T: ...
    async def result(self, *, timeout: float | None = None, type: Any = Any) -> Any:
        """Wait for the end; answers what the handler returned, as `type` if given.

        Raises JobFailed, NotFound, Unsealable (keys are missing here), or TimeoutError after `timeout`
        seconds.
        """
        async with asyncio.timeout(timeout):
            job, end = await self._end()
        body = decode(end)
        match body:
            case Completed():
                result = opened(body.result, job.type, "result", self._producer.seals)
                return msgspec.json.decode(result, type=type)
            case Failed():
                message = opened_text(body.message, job.type, "message", self._producer.seals)
                raise JobFailed(self.id, body.reason, body.error, message)
            case Cancelled():
                raise JobFailed(self.id, "cancelled", "Cancelled", body.reason)
        raise NotFound(f"the end of {self.id} cannot be read")

    async def _end(self) -> tuple[Job, Event]:
        """The job as it is, and its terminal event, waited for."""
        with answering():
            async with self._producer.endings(self._keys).watch(self._position) as ended:
                events = await tell(self._producer.redis, self._keys, self._position)
                job = fold_all(events)
                if job is None:
                    raise NotFound(f"no job {self.id}")
                over = [event for event in events if event.tag in TERMINAL]
                return job, over[-1] if job.state in TERMINAL else await ended

    async def cancel(self, *, reason: str = "", by: str = "") -> Cancelling:
        """End it before its time; answers whether it was "waiting" (or delayed) or "running". The
        handler of a running one is told within half a second, and may clean up. Raises WrongState
        where it is over, NotFound; so for the methods below, which raise InvalidJob too."""
        return await self._producer.commands.cancel(self.id, by=by, reason=reason)

    async def retry(self, payload: msgspec.Struct | None = None, *, key: str = "", by: str = "") -> "Handle":
        """Run it again after its end; or, with another payload of its type, submit a new job with its
        options (`key`: the idempotency key) whose `origin` it is. Answers the handle of what runs."""
        if payload is None:
            await self._producer.commands.retry(self.id, by=by)
            return self
        raw = msgspec.Raw(msgspec.json.encode(payload))
        request = msgspec.structs.replace(await self._producer.commands.changed(self.id, raw), key=key)
        given = declaration(type(payload)).type
        if given != request.type:
            raise InvalidJob([FieldProblem("payload", f"is that of {given}, and the job is {request.type}")])
        [answer] = await self._producer.accept(self.queue, [request], by=by, origin=self.id)
        if isinstance(answer, Refused):
            raise answer
        return self._producer._handle(answer.id, answer.type, answer.known)

    async def promote(self, *, by: str = "") -> None:
        """Let it run now, if it is delayed."""
        await self._producer.commands.promote(self.id, by=by)

    async def reschedule(
        self, *, delay: float | None = None, run_at: datetime | int | None = None, by: str = ""
    ) -> None:
        """Give it another time: seconds from now, or a moment."""
        told = {"delay": delay, "run_at": run_at}
        change = read_fields(msgspec.json.encode(told), Change)
        await self._producer.commands.reschedule(self.id, change, by=by)

    async def prioritize(self, priority: Priority, *, by: str = "") -> None:
        """Give it another priority while it waits."""
        change = read_fields(msgspec.json.encode({"priority": priority}), Change)
        await self._producer.commands.reschedule(self.id, change, by=by)


_PENDING: Final = Refused("not sent yet")
_NONE: Final = JobOptions()
_encode: Final = msgspec.json.Encoder().encode


def _checked(options: SubmitOptions) -> JobOptions:
    """Raises InvalidJob naming every wrong one."""
    if not options:
        return _NONE
    told = msgspec.to_builtins(options)
    try:
        return msgspec.convert(told, JobOptions)
    except msgspec.ValidationError:
        raise InvalidJob(every_problem(JobOptions, msgspec.json.encode(told), "options")) from None
