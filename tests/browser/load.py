"""Submit jobs at a rate until the input ends, or so many at once.

    python tests/browser/load.py RATE          jobs of no work, RATE a second
    python tests/browser/load.py 0 MANY        MANY jobs that are due in an hour; then it ends

Says how many it has submitted, on a line of its own, each second and at the end.
"""

import asyncio
import sys
import time

from jobs_for_tests import Echo
from penstock.core.settings import read_settings
from penstock.producer import Producer
from penstock.ui.embedded import with_server

BATCH = 500
HOUR_S = 3600.0


async def main(rate: float, many: int) -> None:
    async with Producer(with_server(read_settings())) as producer:
        if many:
            for _ in range(0, many, BATCH):
                await producer.submit_many([Echo()] * BATCH, delay=HOUR_S)
            print(many, flush=True)
            return
        over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        began, sent, told = time.monotonic(), 0, 0.0
        while not over.done():
            await producer.submit_many([Echo()] * BATCH)
            sent += BATCH
            now = time.monotonic() - began
            if now - told >= 1:
                told = now
                print(sent, flush=True)
            await asyncio.sleep(max(0.0, sent / rate - now))
        print(sent, flush=True)


asyncio.run(main(float(sys.argv[1]), int((sys.argv[2:] or ["0"])[0])))
