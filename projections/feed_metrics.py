"""What the live feeds measure of themselves: who follows, and who did not keep up."""

from penstock.core import telemetry as names
from penstock.core.probes import Probe, Sample
from penstock.projections.feeds import Feeds


def feed_probe(feeds: Feeds) -> Probe:
    """Clients of each feed, and how many were dropped."""

    async def probe() -> list[Sample]:
        return [
            sample
            for name, feed in (("exact", feeds.exact), ("condensed", feeds.condensed))
            for sample in (
                Sample(names.SSE_CLIENTS, feed.clients, (name,)),
                Sample(names.SSE_DROPS, feed.drops, (name,)),
            )
        ]

    return probe
