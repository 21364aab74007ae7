"""One job's story: its state and its events, as fresh as the log.

The views hold a row for each job, which lists where its events are. Where they lag behind, the job's
own events after their checkpoint are picked out of the log and folded on top. So a job can be read
as soon as it was accepted, and never goes back to a state it had left.
"""

from redis.asyncio import Redis

from penstock.core.events import Event
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import Job, fold, legible, positions, read_row
from penstock.core.log import Log
from penstock.core.positions import packed


async def find(redis: Redis, keys: PartitionKeys, position: str) -> Job | None:
    """The job whose first event is at `position`, as of now; None if the log knows none."""
    try:
        place = packed(position)
    except OverflowError:
        return None
    log = Log(redis, keys)
    pipeline = redis.pipeline(transaction=True)  # row and checkpoint must be of one moment
    pipeline.hget(keys.jobs, place)
    pipeline.get(keys.checkpoint)
    row, checkpoint = await pipeline.execute()
    job = read_row(row) if row is not None else await _beginning(log, position)
    if job is None:
        return None
    for event in await log.history(position, checkpoint.decode() if row is not None else position):
        job = fold(job, *legible(event)) or job
    return job


async def tell(redis: Redis, keys: PartitionKeys, position: str) -> list[Event]:
    """All the job's events, oldest first; what was trimmed is left out. Empty if there is none."""
    job = await find(redis, keys, position)
    return await Log(redis, keys).read(positions(position, job)) if job is not None else []


async def _beginning(log: Log, position: str) -> Job | None:
    """A job that no view knows, after its first event."""
    events = await log.read([position])
    return fold(None, *legible(events[0])) if events else None
