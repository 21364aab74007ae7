"""Who this worker is: its name, and what it says of itself to whoever lists the workers.

The name is that of this one process and is never used again. `asked_to_leave` is set when somebody
drains the worker from afar (`core.workers.Workers.drain`).
"""

import asyncio
import os
import re
import resource
import secrets
import socket
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from penstock.core.events import encode
from penstock.core.workers import Facts

_STATM: Final = Path("/proc/self/statm")


class Identity:
    """One worker process."""

    def __init__(
        self, queues: Sequence[str], types: Sequence[str], slots: int, stuck: Callable[[], int]
    ) -> None:
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40]
        self.name: Final = f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
        self.asked_to_leave: Final = asyncio.Event()
        self._host: Final = host
        self._queues: Final = tuple(queues)
        self._types: Final = tuple(types)
        self._slots: Final = slots
        self._stuck: Final = stuck
        self._version: Final = version("penstock")
        self._started: Final = round(time.time() * 1000)

    def facts(self, *, leaving: bool) -> bytes:
        """What there is to say now, as JSON."""
        told = Facts(
            worker=self.name,
            queues=self._queues,
            types=self._types,
            slots=self._slots,
            host=self._host,
            pid=os.getpid(),
            version=self._version,
            started=self._started,
            memory=resident(),
            stuck=self._stuck(),
            leaving=leaving,
        )
        return encode(told)


def resident() -> int:
    """Memory of this process in bytes: what is resident now; where the system does not tell (no
    /proc), the most that ever was."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")
