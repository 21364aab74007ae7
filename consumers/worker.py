"""The worker process: startup, main loop, shutdown.

SIGTERM or SIGINT    stop taking; finish what runs within the grace time; give back the rest,
                     due now and with no attempt spent; report; exit 0
drained from afar    the same: whoever keeps processes running then starts a new one
a second signal      exit at once; the lease brings the jobs back
"""

import asyncio
import gc
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from penstock.consumers.context import Submitter
from penstock.consumers.executors import Executors
from penstock.consumers.handlers import Handler, handlers
from penstock.consumers.identity import Identity
from penstock.consumers.metrics import slots_probe
from penstock.consumers.observed import attempts_class
from penstock.consumers.partition import Lease, PartitionWorker, Slots
from penstock.core.artifacts import Artifacts
from penstock.core.connection import connect
from penstock.core.errors import Misconfigured
from penstock.core.keys import Keys
from penstock.core.probes import Probes
from penstock.core.sealing import open_seals
from penstock.core.settings import Settings
from penstock.core.waiting import server_ready

DEFAULT_ASYNC_SLOTS: Final = 100
# After the grace time: how long cancelled attempts may take to clean up.
CLEAN_UP_S: Final = 2.0

_log: Final = logging.getLogger("penstock.worker")


async def run_worker(
    settings: Settings,
    stop: asyncio.Event,
    *,
    submitter: Submitter | None = None,
    artifacts: Artifacts | None = None,
    probes: Probes | None = None,
) -> bool:
    """Work on the queues of `settings.queues` (default: those of all handlers loaded) until
    `stop` is set. Answers whether everything ended: False if handler threads still run. `probes`: who
    asks what it measures of itself.

    Raises Misconfigured where there is nothing to do or the server could lose work.
    """
    known = handlers()
    queues = _queues(settings, known)
    slots_count = settings.concurrency or _default_slots(known, queues)
    executors = Executors(slots_count)
    slots = Slots(slots_count, lambda: len(executors.stuck))
    attempts = attempts_class(settings)(
        known,
        executors,
        artifacts=artifacts,
        submitter=submitter,
        max_result=settings.max_result,
        seals=open_seals(settings),
    )
    lease = Lease(settings.lease, settings.crash_limit)
    # Attempts make objects by the thousand and no cycles: the default threshold only costs time.
    gc.set_threshold(50_000, 20, 20)
    async with connect(settings) as redis:
        if not await server_ready(redis, stop, _log):
            return True
        keys = Keys(settings.namespace)
        types = [name for name, it in known.items() if it.contract.queue in queues]
        identity = Identity(queues, types, slots_count, lambda: len(executors.stuck))
        partitions = [
            PartitionWorker(redis, keys.partition(queue), attempts, slots, lease, identity)
            for queue in queues
        ]
        if probes is not None:
            probes.add(slots_probe(slots, executors.stuck, partitions))
        _log.info("ready: queues %s; types %s; %d slots", ", ".join(queues), ", ".join(types), slots_count)
        _log.info("its name is %s", identity.name)
        try:
            await _work(partitions, stop, identity.asked_to_leave, settings.grace)
        finally:
            executors.close()
    return not executors.stuck


def _queues(settings: Settings, known: dict[str, Handler]) -> list[str]:
    queues = sorted(set(settings.queues) or {it.contract.queue for it in known.values()})
    if not known:
        raise Misconfigured("no handler is loaded: name your modules with --jobs or PENSTOCK_JOBS")
    served = {it.contract.queue for it in known.values()}
    for queue in queues:
        if queue not in served:
            raise Misconfigured(
                f"no handler is loaded for queue {queue!r}; there are some for: {', '.join(served)}"
            )
    return queues


def _default_slots(known: dict[str, Handler], queues: Sequence[str]) -> int:
    """Coroutines wait, so many fit; threads and processes work, so as many as there are cores."""
    modes = {it.mode for it in known.values() if it.contract.queue in queues}
    return DEFAULT_ASYNC_SLOTS if modes == {"async"} else max(2, os.cpu_count() or 2)


async def _work(
    partitions: list[PartitionWorker], stop: asyncio.Event, asked: asyncio.Event, grace: float
) -> None:
    runs = [asyncio.create_task(partition.run()) for partition in partitions]
    reasons = [asyncio.create_task(stop.wait()), asyncio.create_task(asked.wait())]
    await asyncio.wait([*reasons, *runs], return_when=asyncio.FIRST_COMPLETED)
    if asked.is_set():
        _log.info("asked to leave: taking no more, %g s for what runs", grace)
    for reason in reasons:
        reason.cancel()
    for partition in partitions:
        partition.stop()
    _, busy = await asyncio.wait(runs, timeout=grace)
    if busy:
        _log.warning("grace time is over: giving back what still runs")
        for partition in partitions:
            partition.cut_short()
        _, busy = await asyncio.wait(runs, timeout=CLEAN_UP_S)
        for run in busy:
            run.cancel()
            # Redis may be away: then the lease brings back what is left.
            with suppress(TimeoutError):
                async with asyncio.timeout(CLEAN_UP_S):
                    await partitions[runs.index(run)].leave()
    for run in runs:
        if not run.cancelled() and run not in busy:
            run.result()
