"""Rebuild the views of the bench's queue once, in a process of its own: `python -m bench.rebuild_side`.

Prints the seconds it took and the peak of this process's resident memory in MiB (VmHWM, which
begins anew with each program).
"""

import os
import time
from pathlib import Path

import uvloop

from bench.systems import KEYS
from penstock.core.connection import connect
from penstock.core.settings import Secret, Settings
from penstock.projections.rebuild import rebuild


async def main() -> float:
    async with connect(Settings(redis_url=Secret(os.environ["BENCH_URL"]))) as redis:
        began = time.perf_counter()
        await rebuild(redis, KEYS)
        return time.perf_counter() - began


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    seconds = uvloop.run(main())
    print(seconds, peak_mib())
