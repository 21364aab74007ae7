"""One attempt, from delivery to outcome.

    decode the job → find its handler → run it within its time → say how it ended

`Attempts.execute` never raises for what a handler does: every way to end is a Finished value. The
worker's loop, `run_due` for tests and nothing else call it.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from time import perf_counter, time
from typing import Any, Final

import msgspec

from penstock.consumers import outcomes
from penstock.consumers.context import Context, Report, Submitter
from penstock.consumers.executors import Executors
from penstock.consumers.handlers import Handler
from penstock.consumers.outcomes import Failure
from penstock.consumers.sealed import open_job, sealed_failure, sealing
from penstock.core.artifacts import Artifacts
from penstock.core.dispatch import Delivery, Finished
from penstock.core.errors import TooLarge
from penstock.core.events import Needs, Submitted
from penstock.core.keys import PartitionKeys
from penstock.core.positions import milliseconds
from penstock.core.sealing import Seals, Unsealable, is_sealed

# How long a job whose type this worker does not know stays out of its way, for one that does: at
# least the first, half of its age, at most the second, so that its history grows by the logarithm.
UNKNOWN_TYPE_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 600.0

_decode_job: Final = msgspec.json.Decoder(Submitted).decode
_UNREADABLE: Final = Submitted(type="", payload=msgspec.Raw(b"null"), attempts=1)
_encode_result: Final = msgspec.json.Encoder().encode


class Attempts:
    """Executes attempts with the handlers, artifacts and submitter of one worker process.

    With `seals`, what it is given is opened, and what handlers say is sealed.
    """

    def __init__(
        self,
        handlers: dict[str, Handler],
        executors: Executors,
        *,
        artifacts: Artifacts | None = None,
        submitter: Submitter | None = None,
        max_result: int = 256 * 1024,
        seals: Seals | None = None,
    ) -> None:
        self._handlers: Final = handlers
        self._executors: Final = executors
        self._artifacts: Final = artifacts
        self._submitter: Final = submitter
        self._max_result: Final = max_result
        self._seals: Final = seals

    async def execute(
        self, delivery: Delivery, keys: PartitionKeys, worker: str, report: Callable[[Report], None]
    ) -> Finished:
        """Run one attempt to its end. Cancelling it gives the job back (`released`)."""
        try:
            job = _decode_job(delivery.body)
        except msgspec.DecodeError as error:
            why = Failure("InvalidJob", f"its submitted event cannot be read: {error}", permanent=True)
            return outcomes.failed(delivery, _UNREADABLE, 0, why)
        handler = self._handlers.get(job.type)
        if handler is None:
            reason = f"{worker} has no handler for {job.type}"
            return outcomes.released(delivery, worker, reason, delay_s=_pause(delivery))
        began = perf_counter()
        try:
            if self._seals is not None:
                job, report = open_job(job, self._seals), sealing(report, job.type, self._seals)
            payload = _decoder(handler.contract.payload)(job.payload)
            handed_over = _handed_over(job.needs)
        except (msgspec.DecodeError, Unsealable) as error:
            return outcomes.failed(delivery, job, 0, self._unreadable(job, error))
        context = Context(
            job_id=keys.job_id(delivery.job.decode()),
            type=job.type,
            attempt=delivery.attempt,
            attempts=job.attempts,
            artifacts=self._artifacts,
            jobs=self._submitter,
            report=report,
            **handed_over,
        )
        try:
            result = await self._in_time(handler, payload, context, job.timeout)
            encoded = result if type(result) is msgspec.Raw else _encode_result(result)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _asked_to_stop():
                return outcomes.released(delivery, worker, "the worker was told to leave")
            why = self._sealed(self._executors.failure(error), job.type)
            return outcomes.failed(delivery, job, (perf_counter() - began) * 1000, why)
        ms = (perf_counter() - began) * 1000
        if len(encoded) > self._max_result:
            try:
                encoded = await self._stored(encoded)
            except TooLarge as error:
                return outcomes.failed(
                    delivery, job, ms, Failure("ResultTooLarge", str(error), permanent=True)
                )
        if self._seals is not None and encoded != b"null":
            encoded = self._seals.seal_json(encoded, job.type, "result")
        return outcomes.completed(delivery, ms, bytes(encoded))

    async def _stored(self, result: bytes) -> bytes:
        """A result that is too large for the log, as an artifact; answers what stands for it.

        Raises TooLarge where it is too large for that too, where there is no store, or where results
        are sealed: an artifact would hold it in clear.
        """
        if self._artifacts is None or self._seals is not None:
            raise TooLarge("the result, in bytes", len(result), self._max_result)
        kept = await self._artifacts.aput(result, content_type="application/json", filename="result.json")
        return _encode_result({"artifact": kept.id, "size": kept.size, "content_type": kept.content_type})

    def _unreadable(self, job: Submitted, error: Exception) -> Failure:
        """Why a payload cannot be read here."""
        if isinstance(error, Unsealable):
            return Failure("Unsealable", str(error), permanent=True)
        if is_sealed(job.payload):
            return Failure("Unsealable", "its payload is sealed, and this worker has no keys", permanent=True)
        words = f"does not fit the contract of this worker: {error}"
        return self._sealed(Failure("InvalidPayload", words, permanent=True), job.type)

    def _sealed(self, why: Failure, type: str) -> Failure:
        return why if self._seals is None else sealed_failure(why, type, self._seals)

    async def _in_time(self, handler: Handler, payload: Any, context: Context, timeout: float) -> Any:
        """Run the handler; raises TimeoutError when its time is over.

        asyncio.timeout would do the same at three times the cost; this arms one timer.
        """
        task: Any = asyncio.current_task()
        late = False

        def expire() -> None:
            nonlocal late
            late = True
            task.cancel()

        timer = asyncio.get_running_loop().call_later(timeout, expire)
        try:
            if handler.mode == "async":
                return await handler.run(payload, context)
            return await self._executors.run(handler, payload, context)
        except asyncio.CancelledError:
            context.cut_short()
            if late:
                raise TimeoutError(f"ran longer than its timeout of {timeout:g} s") from None
            raise
        finally:
            timer.cancel()


def _handed_over(needs: Needs | None) -> dict[str, Any]:
    """What a node of a flow gets from those it waited for, as the context takes it."""
    if needs is None:
        return {}
    return {
        "needs": {name: msgspec.json.decode(result) for name, result in needs.results.items()},
        "unmet": needs.unmet,
    }


def _asked_to_stop() -> bool:
    """Whether this task was cancelled, and not only something that its handler awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@lru_cache(maxsize=1024)
def _decoder(payload: type[msgspec.Struct]) -> Callable[[msgspec.Raw], Any]:
    return msgspec.json.Decoder(payload).decode


def _pause(delivery: Delivery) -> float:
    age = time() - milliseconds(delivery.job.decode()) / 1000
    return min(LONGEST_PAUSE_S, max(UNKNOWN_TYPE_PAUSE_S, age / 2))
