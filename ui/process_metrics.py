"""What the system says of this process: processor time, memory, threads, open files, age."""

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from penstock.consumers.identity import resident
from penstock.core import telemetry as names
from penstock.core.probes import Sample

_FILES: Final = Path("/proc/self/fd")
_BEGAN: Final = time.monotonic()


async def process_samples() -> Iterable[Sample]:
    """A probe of `core.probes`."""
    times = os.times()
    samples = [
        Sample(names.CPU_TIME, times.user, ("user",)),
        Sample(names.CPU_TIME, times.system, ("system",)),
        Sample(names.MEMORY, resident()),
        Sample(names.THREADS, threading.active_count()),
        Sample(names.UPTIME, time.monotonic() - _BEGAN),
    ]
    if _FILES.is_dir():
        samples.append(Sample(names.FILES, sum(1 for _ in _FILES.iterdir())))
    return samples
