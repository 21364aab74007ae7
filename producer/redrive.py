"""From jobs that have ended to new ones like them: changed, checked, and submitted at a rate.

    original ── copied ──► Submission, under the key (redrive, original)
                   └─────► Refused: the payload does not fit its contract any more, or cannot be opened

What is refused is not sent, and says why; what was sent before is answered by the first job of its key.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.core.contracts import declared
from penstock.core.control import extra_of
from penstock.core.dispatch import Accepted, Submission
from penstock.core.errors import BacklogFull, FieldProblem, InvalidJob, TooLarge
from penstock.core.events import Submitted, encode
from penstock.core.merge_patch import merged
from penstock.core.sealing import Unsealable, opened
from penstock.core.validation import UNDECODABLE, every_problem
from penstock.producer.client import Producer
from penstock.producer.outlet import MAX_JOBS, Outlet

FULL_S: Final = 1.0  # how long to wait for room in a full backlog

# What a copy has from its original; its time is now, and a unique key is held by live jobs alone.
_KEPT: Final = (
    *("type", "priority", "attempts", "backoff", "timeout", "tags", "ttl", "group", "needs"),
    *("payload",),
)


class Copier:
    """Makes the copies of one redrive. `by`: who asked for it."""

    def __init__(self, producer: Producer, redrive: str, patch: Mapping[str, Any], *, by: str) -> None:
        self._producer: Final = producer
        self._prefix: Final = f"redrive:{redrive}:"
        self._patch: Final = patch
        self._by: Final = by

    def made(self, spec: Submitted) -> bool:
        """Whether a job is a copy that this redrive made."""
        return spec.key.startswith(self._prefix)

    def payload(self, spec: Submitted) -> msgspec.Raw:
        """The payload of a copy, not sealed. Raises Refused: see `copied`."""
        raw, shape = self.opened(spec), declared(spec.type).payload
        try:
            if self._patch:
                raw = msgspec.Raw(msgspec.json.encode(merged(msgspec.json.decode(raw), self._patch)))
            msgspec.json.decode(raw, type=shape)
        except RecursionError:
            raise InvalidJob([FieldProblem("payload", "is nested too deep")]) from None
        except UNDECODABLE:
            raise InvalidJob(every_problem(shape, bytes(raw))) from None
        size, limit = len(memoryview(raw)), self._producer.settings.max_payload
        if size > limit:
            raise TooLarge("payload, in bytes", size, limit)
        return raw

    def opened(self, spec: Submitted) -> msgspec.Raw:
        """The payload of an original. Raises InvalidJob: it is sealed, and the key is not here."""
        try:
            return opened(spec.payload, spec.type, "payload", self._producer.seals)
        except Unsealable as error:
            raise InvalidJob([FieldProblem("payload", str(error))]) from None

    def copied(self, job_id: str, spec: Submitted) -> Submission:
        """The submission of a copy. Raises InvalidJob (every wrong field), TooLarge or UnknownType."""
        payload, seals = self.payload(spec), self._producer.seals
        if seals is not None:
            payload = seals.seal_json(payload, spec.type, "payload")
        kept = {name: getattr(spec, name) for name in _KEPT}
        key = f"{self._prefix}{job_id}"
        copy = Submitted(**kept | {"payload": payload, "key": key, "origin": job_id, "by": self._by})
        return Submission(copy.priority, encode(copy), "", key, extra_of(copy))


class Sender:
    """Submits copies to one queue, so many per second at most (`rate`; 0 is as fast as it goes). Where the
    queue's backlog is full it waits."""

    def __init__(self, producer: Producer, queue: str, rate: float) -> None:
        settings = producer.settings
        self._outlet: Final = Outlet(
            producer.redis,
            producer.keys.partition(queue),
            once_s=settings.idempotency_ttl,
            replicas=settings.replicas,
        )
        self._rate: Final = rate
        # Together go those of a tenth of a second.
        self._at_once: Final = max(1, min(MAX_JOBS, round(rate / 10))) if rate else MAX_JOBS
        self._next = 0.0

    async def send(self, copies: Sequence[Submission]) -> list[Accepted]:
        """Submit them, each when its time has come. Raises Unavailable."""
        accepted: list[Accepted] = []
        for start in range(0, len(copies), self._at_once):
            some = copies[start : start + self._at_once]
            await self._wait(len(some))
            accepted += await self._submit(some)
        return accepted

    async def _submit(self, copies: Sequence[Submission]) -> list[Accepted]:
        """A batch is taken whole or not at all: of one that finds no room the first half may."""
        while True:
            try:
                return await self._outlet.submit(copies)
            except BacklogFull:
                if len(copies) == 1:
                    await asyncio.sleep(FULL_S)
                    continue
            half = len(copies) // 2
            return await self._submit(copies[:half]) + await self._submit(copies[half:])

    async def _wait(self, count: int) -> None:
        if self._rate:
            now = asyncio.get_running_loop().time()
            begin = max(self._next, now)
            self._next = begin + count / self._rate
            await asyncio.sleep(begin - now)
