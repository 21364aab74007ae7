"""Where handlers run that are no coroutines: in a thread, or in a process that can be ended.

A thread cannot be stopped: when its time is over the attempt is recorded as timed out, and the
slot stays taken until the thread returns. A process can: a timeout or a cancellation kills it.
Only bytes cross to a process and back. In both, what a handler logs names its job, and the current span
is that of the attempt.
"""

import asyncio
import importlib
import multiprocessing
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, Final

import msgspec
from pebble import ProcessExpired, ProcessPool

from penstock.consumers.context import Context, Report
from penstock.consumers.handlers import Handler, handlers
from penstock.consumers.outcomes import Failure, failure
from penstock.core.artifacts import Overlay
from penstock.core.logs import Attempt, configure_logging, current_attempt
from penstock.core.settings import read_settings
from penstock.core.tracing import carried, context_of

HEAR_OUT_S: Final = 1.0
_LAST: Final = "last"


class FailedElsewhere(Exception):
    """A handler failed in another process; `why` is what it said."""

    def __init__(self, why: Failure) -> None:
        super().__init__(why.message)
        self.why: Final = why


class Executors:
    """The thread and process pools of one worker; each is made when first needed."""

    def __init__(self, slots: int) -> None:
        self._slots: Final = slots
        self._threads: ThreadPoolExecutor | None = None
        self._processes: _Processes | None = None
        self.stuck: Final[set[Future[Any]]] = set()

    async def run(self, handler: Handler, payload: Any, context: Context) -> Any:
        """Run a thread or process handler; answers its result or raises what it raised."""
        if handler.mode == "process":
            return await self._in_process(handler, payload, context)
        if self._threads is None:
            # Room for the threads that outlive their timeout: a stuck one must not block a slot's next job.
            self._threads = ThreadPoolExecutor(self._slots * 2, thread_name_prefix="handler")
        future = self._threads.submit(copy_context().run, handler.run, payload, context)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel():
                self.stuck.add(future)
                future.add_done_callback(self.stuck.discard)
            raise

    def failure(self, error: BaseException) -> Failure:
        """An exception that came out of `run` (or of a coroutine) as values."""
        if isinstance(error, FailedElsewhere):
            return error.why
        return failure(error)

    def close(self) -> None:
        """End the pools. Threads that still run are left behind; processes are ended."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            self._processes.close()

    async def _in_process(self, handler: Handler, payload: Any, context: Context) -> Any:
        if self._processes is None:
            self._processes = _Processes(self._slots)
        future = self._processes.start(handler, msgspec.json.encode(payload), context)
        try:
            encoded: bytes = await asyncio.wrap_future(future)
            await self._processes.heard_out(context)
            answer = msgspec.json.decode(encoded, type=_Answer)
        except asyncio.CancelledError:
            future.cancel()  # pebble ends the process
            raise
        except ProcessExpired as error:
            raise FailedElsewhere(Failure("ProcessDied", f"its process died: {error}")) from error
        finally:
            self._processes.forget(context)
        if answer.failure is not None:
            raise FailedElsewhere(answer.failure)
        return answer.result


class _Answer(msgspec.Struct, frozen=True):
    """What comes back from a process."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    failure: Failure | None = None


class _Processes:
    """A pool of processes, and the thread that listens to what their handlers report."""

    def __init__(self, slots: int) -> None:
        # Not fork: the parent has threads and an event loop.
        spawn = multiprocessing.get_context("spawn")
        self._reports: Final = spawn.SimpleQueue()
        self._pool: Final = ProcessPool(
            max_workers=slots, context=spawn, initializer=_enter_process, initargs=[self._reports]
        )
        self._contexts: Final[dict[str, Context]] = {}
        self._heard: Final[dict[str, Future[None]]] = {}
        threading.Thread(target=self._listen, daemon=True, name="process reports").start()

    def start(self, handler: Handler, payload: bytes, context: Context) -> "Future[bytes]":
        self._contexts[context.job_id] = context
        self._heard[context.job_id] = Future()
        who = (context.job_id, context.attempt, context.attempts)
        overlay = str(context.artifacts.folder) if isinstance(context.artifacts, Overlay) else ""
        before = msgspec.json.encode((context.needs, context.unmet, overlay))
        future: Future[bytes] = self._pool.schedule(
            _run_here, args=[handler.run.__module__, handler.contract.type, payload, who, before, carried()]
        )
        return future

    async def heard_out(self, context: Context) -> None:
        """Reports come by another way than the answer, and may be slower: wait for the last one."""
        await asyncio.wait([asyncio.wrap_future(self._heard[context.job_id])], timeout=HEAR_OUT_S)

    def forget(self, context: Context) -> None:
        self._heard.pop(context.job_id, None)
        self._contexts.pop(context.job_id, None)

    def close(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        with suppress(OSError):
            self._reports.put(None)

    def _listen(self) -> None:
        while (message := self._reports.get()) is not None:
            job_id, tag, body = message
            if tag == _LAST:
                heard = self._heard.get(job_id)
                if heard is not None and heard.set_running_or_notify_cancel():
                    heard.set_result(None)
                continue
            context = self._contexts.get(job_id)
            if context is not None:
                context.report(Report(tag, body))


# In the child: where reports go.
_outbound: Any = None


def _enter_process(reports: Any) -> None:
    global _outbound
    _outbound = reports
    configure_logging(read_settings(), "worker")
    threading.Thread(target=_end_with_worker, daemon=True, name="end with worker").start()


def _end_with_worker() -> None:
    """In the child: a worker that is killed cannot end its processes, so they end themselves."""
    worker = multiprocessing.parent_process()
    if worker is not None:
        worker.join()
        os._exit(1)


def _run_here(
    module: str, type: str, payload: bytes, who: tuple[str, int, int], before: bytes, trace: str
) -> bytes:
    """In the child: import the handler's module, run it, answer with JSON."""
    from penstock.core.artifacts import open_artifacts

    importlib.import_module(module)
    handler = handlers()[type]
    job_id, attempt, attempts = who
    needs, unmet, overlay = msgspec.json.decode(before)
    artifacts = open_artifacts(read_settings())
    context = Context(
        job_id=job_id,
        type=type,
        attempt=attempt,
        attempts=attempts,
        artifacts=Overlay(artifacts, Path(overlay)) if overlay else artifacts,
        jobs=None,
        report=lambda report: _outbound.put((job_id, report.tag, report.body)),
        needs=needs,
        unmet=unmet,
        rehearsal=bool(overlay),
    )
    try:
        decoded = msgspec.json.decode(payload, type=handler.contract.payload)
        result = copy_context().run(_handle, handler, decoded, context, trace)
        answer = _Answer(result=msgspec.Raw(msgspec.json.encode(result)))
    except (Exception, SystemExit) as error:
        answer = _Answer(failure=failure(error))
    _outbound.put((job_id, _LAST, None))
    return msgspec.json.encode(answer)


def _handle(handler: Handler, payload: Any, context: Context, trace: str) -> Any:
    """In the child, in a context of its own: run the handler as an attempt that logs and traces know."""
    current_attempt.set(Attempt(context.job_id, context.attempt))
    if trace:
        from opentelemetry.context import attach

        attach(context_of(trace))
    return handler.run(payload, context)
