"""The same client for code without an event loop: Django, Flask, scripts.

    with SyncProducer() as producer:
        handle = producer.submit(ResizeImage(source="…", width=800))
        result = handle.result(timeout=30)

It runs the async one on an event loop in a thread of its own, started at the first call of each
process (so it survives the fork of a web server's workers). Calls from any number of threads
share its script calls.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable
from datetime import datetime
from typing import Any, Final, Self, TypeVar, Unpack, overload

import msgspec

from penstock.core.contracts import Priority
from penstock.core.control import Cancelling
from penstock.core.lifecycle import State
from penstock.core.settings import Settings, read_settings
from penstock.core.workers import Worker
from penstock.producer.client import Handle, Producer, QueueLimits, SubmitOptions
from penstock.producer.commands import Drained

T = TypeVar("T")


class SyncProducer:
    """`penstock.producer.Producer` with blocking methods; the same arguments, answers and errors."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings: Final = settings or read_settings()
        self._starting: Final = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread
        self._producer: Producer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, payload: msgspec.Struct, /, **options: Unpack[SubmitOptions]) -> "SyncHandle":
        """See Producer.submit."""
        self._start()
        return SyncHandle(self, self.wait(self._producer.submit(payload, **options)))

    def submit_many(
        self, payloads: Iterable[msgspec.Struct], /, **options: Unpack[SubmitOptions]
    ) -> list["SyncHandle"]:
        """See Producer.submit_many."""
        self._start()
        handles = self.wait(self._producer.submit_many(payloads, **options))
        return [SyncHandle(self, handle) for handle in handles]

    def handle(self, job_id: str) -> "SyncHandle":
        """See Producer.handle."""
        self._start()
        return SyncHandle(self, self._producer.handle(job_id))

    def pause(self, queue: str, *, by: str = "") -> bool:
        """See Producer.pause; so for the five below."""
        self._start()
        return self.wait(self._producer.pause(queue, by=by))

    def resume(self, queue: str, *, by: str = "") -> bool:
        self._start()
        return self.wait(self._producer.resume(queue, by=by))

    def limit(self, queue: str, *, by: str = "", **limits: Unpack[QueueLimits]) -> bool:
        self._start()
        return self.wait(self._producer.limit(queue, by=by, **limits))

    def drain_queue(self, queue: str, *, by: str = "") -> Drained:
        self._start()
        return self.wait(self._producer.drain_queue(queue, by=by))

    def workers(self) -> list[Worker]:
        self._start()
        return self.wait(self._producer.workers())

    def drain_worker(self, name: str, *, by: str = "") -> None:
        self._start()
        self.wait(self._producer.drain_worker(name, by=by))

    def close(self) -> None:
        """Close the connections and end the thread. A later call starts anew."""
        if self._pid != os.getpid():
            return
        self.wait(self._producer.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pid = 0

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop of this producer and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _start(self) -> None:
        with self._starting:
            if self._pid == os.getpid():
                return
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="penstock", daemon=True)
            self._thread.start()
            self._producer = self.wait(_make(self.settings))
            self._pid = os.getpid()


class SyncHandle:
    """A submitted job, with blocking methods. See Handle."""

    def __init__(self, producer: SyncProducer, handle: Handle) -> None:
        self._producer: Final = producer
        self._handle: Final = handle
        self.id: Final = handle.id
        self.type: Final = handle.type
        self.known: Final = handle.known

    def __repr__(self) -> str:
        return f"<SyncHandle {self.id}>"

    def state(self) -> State:
        """See Handle.state."""
        return self._producer.wait(self._handle.state())

    @overload
    def result(self, *, timeout: float | None = None) -> Any: ...
    @overload
    def result(self, *, timeout: float | None = None, type: type[T]) -> T: ...
    def result(self, *, timeout: float | None = None, type: Any = Any) -> Any:
        """See Handle.result."""
        return self._producer.wait(self._handle.result(timeout=timeout, type=type))

    def cancel(self, *, reason: str = "", by: str = "") -> Cancelling:
        """See Handle.cancel; so for the four below."""
        return self._producer.wait(self._handle.cancel(reason=reason, by=by))

    def retry(self, payload: msgspec.Struct | None = None, *, key: str = "", by: str = "") -> "SyncHandle":
        return SyncHandle(self._producer, self._producer.wait(self._handle.retry(payload, key=key, by=by)))

    def promote(self, *, by: str = "") -> None:
        self._producer.wait(self._handle.promote(by=by))

    def reschedule(
        self, *, delay: float | None = None, run_at: datetime | int | None = None, by: str = ""
    ) -> None:
        self._producer.wait(self._handle.reschedule(delay=delay, run_at=run_at, by=by))

    def prioritize(self, priority: Priority, *, by: str = "") -> None:
        self._producer.wait(self._handle.prioritize(priority, by=by))


async def _make(settings: Settings) -> Producer:
    return Producer(settings)
