"""What a producer measures of itself: what waits for the script call before it."""

from penstock.core import telemetry as names
from penstock.core.probes import Probe, Sample
from penstock.producer.client import Producer


def buffer_probe(producer: Producer) -> Probe:
    """How many submissions wait, by queue."""

    async def probe() -> list[Sample]:
        return [Sample(names.BUFFERED, count, (queue,)) for queue, count in producer.buffered().items()]

    return probe
