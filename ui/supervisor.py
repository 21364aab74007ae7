"""All processes: started, kept running, drained in order.

    supervisor = Supervisor(specs, lines, environ)
    await supervisor.start()          the first stage, and when that is ready all others at once
    await supervisor.failure()        for ever, unless a process cannot be kept at all
    await supervisor.stop(hurry)      the last stage first: nothing is cut off from what it needs

A process that ends is started again with growing pauses; one that never gets ready fails the start.
"""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

from penstock.ui.child import Child, Spec
from penstock.ui.console import Lines


class Supervisor:
    """Runs the processes of some Specs; one start and one stop in its life."""

    def __init__(self, specs: Sequence[Spec], lines: Lines, environ: Mapping[str, str]) -> None:
        ordered: Final = sorted((Child(spec, lines, environ) for spec in specs), key=_stage)
        self._stages = [list(children) for _, children in groupby(ordered, key=_stage)]
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all; returns when all are ready. Raises StartFailed, after which `stop` is due."""
        first, *others = self._stages
        await self._start(first)
        await self._start([child for children in others for child in children])

    async def failure(self) -> None:
        """Wait until keeping a process fails, and raise why; a process that is kept never does."""
        done, _ = await asyncio.wait(self._keepers, return_when=asyncio.FIRST_COMPLETED)
        for keeper in done:
            keeper.result()

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop all, the last stage first; `hurry` kills what is still there."""
        for children in reversed(self._stages):
            await asyncio.gather(*(child.stop(hurry) for child in children))
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _start(self, children: list[Child]) -> None:
        for child in children:
            self._keepers.append(asyncio.create_task(child.keep(), name=child.spec.name))
        ready = asyncio.create_task(_all_ready(children))
        failure = asyncio.create_task(self.failure())
        try:
            await asyncio.wait({ready, failure}, return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                failure.result()
        finally:
            ready.cancel()
            failure.cancel()


async def _all_ready(children: list[Child]) -> None:
    for child in children:
        await child.is_ready.wait()


def _stage(child: Child) -> int:
    return child.spec.stage
