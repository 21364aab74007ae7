"""What else is kept of a partition: how its queue is governed, and keys that should end by their own life."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import WatchError

from penstock.core.connection import command
from penstock.core.control import MARKER_MS
from penstock.core.events import QueueLimited, QueuePaused, QueueResumed, QueueRetained
from penstock.core.keys import PartitionKeys
from penstock.core.log import Entry, Log
from penstock.core.positions import START
from penstock.projections.feed_tail import FIRST_PAGE
from penstock.projections.replay.findings import Finding, Findings
from penstock.projections.views import Stats, read, read_stats

_HAND: Final = "it was written or deleted by hand"
_LIMITS: Final = ("rate", "burst", "concurrency", "per_group", "backlog")
_KEPT: Final = ("completed", "failed", "cancelled")
_GOVERNING: Final = {b"queue_limited", b"queue_retained", b"queue_paused", b"queue_resumed"}
_SCAN: Final = 1_000
_TRIES: Final = 100

_log: Final = logging.getLogger("penstock.verify")


class Keeping:
    """Looks at these, of one partition."""

    def __init__(self, redis: Redis, keys: PartitionKeys, findings: Findings) -> None:
        self._redis: Final = redis
        self._keys: Final = keys
        self._findings: Final = findings

    async def run(self, *, mend: bool = False) -> None:
        """Add each finding; with `mend` it is put right."""
        await self._governed(mend=mend)
        await self._scan(mend=mend)

    async def _governed(self, *, mend: bool) -> None:
        """What workers are told to heed is what the log says; both are looked at while neither changes."""
        for _ in range(_TRIES):
            async with self._redis.pipeline(transaction=True) as pipeline:
                await pipeline.watch(self._keys.control)
                found = await command(self._redis, "HGETALL", self._keys.control)
                told = _fields(found)
                expected = expectation(await self._said())
                wrong = {
                    name: told.get(name, "")
                    for name, value in expected.items()
                    if told.get(name, "") != value
                }
                pipeline.multi()  # type: ignore[no-untyped-call]
                pipeline.exists(self._keys.control)
                if mend:
                    for name in wrong:
                        pipeline.hdel(self._keys.control, name)
                        if expected[name]:
                            pipeline.hset(self._keys.control, name, expected[name])
                try:
                    await pipeline.execute()
                except WatchError:
                    continue
            break
        else:
            return  # it is changed all the time: by commands, or by the tokens of a rate
        for name, value in wrong.items():
            repair = "set it as the log says"
            finding = Finding("control", name, value or "nothing", expected[name] or "nothing", _HAND, repair)
            self._findings.add(finding)
            if mend:
                _log.warning("%s: control %s: %s", self._keys.name, name, repair)

    async def _said(self) -> Stats:
        """How the queue is governed by the log up to its end."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.get(self._keys.shadow.checkpoint)
        pipeline.get(self._keys.shadow.stats)
        checkpoint, raw = await pipeline.execute()
        stats, after = read_stats(raw) if raw else Stats(), checkpoint.decode() if checkpoint else START
        while entries := await Log(self._redis, self._keys).entries(after, FIRST_PAGE):
            heed(stats, entries)
            after = entries[-1][0].decode()
        return stats

    async def _scan(self, *, mend: bool) -> None:
        """Every key of the partition is one of ours, and those that live for a time have one."""
        pattern = self._keys.prefix.replace("[", "\\[") + "*"
        passing: list[bytes] = []
        async for name in self._redis.scan_iter(match=pattern, count=_SCAN):
            text = name.decode(errors="replace")
            if text.startswith(self._keys.passing):
                passing.append(name)
            elif not self._keys.is_ours(text):
                cause = "another program, or another version, wrote it"
                self._findings.add(Finding("key", text, "a key", "none of this name", cause))
            if len(passing) == _SCAN:
                await self._endless(passing, mend=mend)
                passing = []
        await self._endless(passing, mend=mend)

    async def _endless(self, names: list[bytes], *, mend: bool) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.pttl(name)
        for name, left in zip(names, await pipeline.execute(), strict=True):
            if left != -1:
                continue
            text, repair = name.decode(errors="replace"), "let it end in a week"
            finding = Finding("key", text, "stays for ever", "ends after a time", _HAND, repair)
            self._findings.add(finding)
            if mend:
                await command(self._redis, "PEXPIRE", name, MARKER_MS, "NX")
                _log.warning("%s: key %s: %s", self._keys.name, text, repair)


def heed(stats: Stats, entries: Iterable[Entry]) -> None:
    """Go on by entries of the log, as far as they say how the queue is governed."""
    for entry in entries:
        if len(entry[1]) < 2 or entry[1][1] not in _GOVERNING:
            continue
        match read(entry)[1]:
            case QueueLimited() as limits:
                stats.limits = limits
            case QueueRetained() as retention:
                stats.retention = retention
            case QueuePaused():
                stats.paused = True
            case QueueResumed():
                stats.paused = False


def expectation(stats: Stats) -> dict[str, str]:
    """The fields of `control` that say what the log says of the queue; empty for none."""
    numbers = {name: getattr(stats.limits, name) for name in _LIMITS}
    numbers |= {f"keep_{name}": getattr(stats.retention, name) for name in _KEPT}
    fields = {name: f"{value:.15g}" if value else "" for name, value in numbers.items()}
    return fields | {"paused": "1" if stats.paused else ""}


def _fields(found: Any) -> Mapping[str, str]:
    """A hash as text, whatever shape the client gives it."""
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in pairs}
