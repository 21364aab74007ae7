"""What a worker measures of itself: its slots. Jobs are counted from the log, not here."""

from collections.abc import Sequence, Set

from penstock.consumers.partition import PartitionWorker, Slots
from penstock.core import telemetry as names
from penstock.core.probes import Probe, Sample


def slots_probe(slots: Slots, stuck: Set[object], partitions: Sequence[PartitionWorker]) -> Probe:
    """How many slots are busy, stuck (`stuck`: threads that outlived their attempt) and free."""

    async def probe() -> list[Sample]:
        # Counted by what runs: of what `slots` has given away, a part may be asked for and not needed.
        busy = sum(partition.running for partition in partitions)
        counts = {"busy": busy, "stuck": len(stuck), "free": max(0, slots.total - busy - len(stuck))}
        return [Sample(names.SLOTS, count, (state,)) for state, count in counts.items()]

    return probe
