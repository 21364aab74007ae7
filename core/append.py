"""Appending facts to a log that no script which moves jobs would write.

Two kinds of logs take them: that of a queue's partition (a fact about one of its jobs, or about the
queue), and a ledger, a partition that is a log and nothing else: no lanes, no jobs, in no registry,
so no worker and no projector ever asks for it (`Keys.ledger`).

    appender = Appender(redis, keys.ledger("schedules"))
    await appender.append([Fact("schedule_paused", encode(body), "nightly")], token=token)

The token stands for the act: the same one sent again, by whomever, writes nothing twice.
"""

import secrets
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from penstock.core.dispatch import Dispatch, Script
from penstock.core.keys import PartitionKeys

MAX_FACTS: Final = 1_000
TOKEN_LIFE_MS: Final = 24 * 3600 * 1000


class Fact(msgspec.Struct, frozen=True):
    """An event to write. `job` is what it is about (in a queue's log the position of the job's first
    event); empty for one that begins something, or is about the queue itself."""

    tag: str
    body: bytes
    job: str = ""


class Appender:
    """Appends to the log of one partition. Safe to share between tasks."""

    _append: Final = Script("append")

    def __init__(self, redis: Redis, keys: PartitionKeys, *, life_ms: int = TOKEN_LIFE_MS) -> None:
        """`life_ms` is how long a token is remembered."""
        self.redis: Final = redis
        self.keys: Final = keys
        self._life_ms: Final = life_ms
        self._dispatch: Final = Dispatch(redis, keys)

    async def append(self, facts: Sequence[Fact], *, token: str, after: str = "") -> list[str]:
        """Write facts next to one another, all or none; answers their positions, at most MAX_FACTS.

        With `after` (the position of the newest event that the caller has seen, 0-0 for none) only
        if the log has not moved on; it answers an empty list where it has. A token that is known is
        answered as the first time, whatever the facts. May be sent again after a lost answer.
        """
        if not 0 < len(facts) <= MAX_FACTS:
            raise ValueError(f"{len(facts)} facts: from 1 to {MAX_FACTS} are appended at once")
        epoch = secrets.token_hex(6) if self.keys.is_ledger else ""
        args: list[Any] = [self._life_ms, epoch, after]
        for fact in facts:
            args += (fact.tag, fact.job, fact.body)
        keys = (self.keys.log, self.keys.epoch, self.keys.token(token))
        answer: list[bytes] = await self._dispatch.call(self._append, keys, args)
        return [position.decode() for position in answer]
