"""A rebuild that says what it puts right: what was not as the log says; then the switch."""

import time

import msgspec
from redis.asyncio import Redis

from penstock.core.errors import Unavailable
from penstock.core.keys import PartitionKeys
from penstock.projections.rebuild import Gone, Tell, shadowing
from penstock.projections.replay.comparing import Comparison
from penstock.projections.replay.findings import Finding, Findings
from penstock.projections.snapshots import forget


class Renewed(msgspec.Struct, frozen=True):
    """A rebuild (see there), and what of the views in use was not as the log says: the first 1,000
    differences, and how many more. `compared`: false where those were too far behind the log, or another
    rebuild was faster."""

    queue: str
    events: int
    seconds: float
    resumed: bool
    switched: bool
    compared: bool
    differences: list[Finding]
    more: int


async def renew(redis: Redis, keys: PartitionKeys, tell: Tell | None = None) -> Renewed:
    """As `rebuild`, and compare first. Raises what it raises."""
    began = time.monotonic()
    findings, compared = Findings(), True
    async with shadowing(redis, keys, tell) as anew:
        try:
            await anew.fold()
            async with anew.following():
                await Comparison(redis, keys, anew, findings).run()
        except (Unavailable, Gone):
            compared = False
        if findings.listed:
            await forget(redis, keys)
        switched = await anew.switch()
        events = (await anew.shadow.progress()).total
    took = time.monotonic() - began
    outcome = (anew.resumed, switched, compared)
    return Renewed(keys.queue, events, took, *outcome, findings.listed, findings.more)
