"""A queue with jobs that have ended, to be redriven."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from msgspec.structs import replace

import jobs_for_tests  # noqa: F401 - declares test.echo
from penstock.core.connection import connect
from penstock.core.dispatch import Finished
from penstock.core.events import Failed, Submitted, encode
from penstock.core.jobs.redrive import Redrive
from penstock.core.settings import Settings
from penstock.producer.client import Producer
from penstock.ui.redriving import Redriven, RedrivePreview, Redriving
from processes import Site
from projectors import projecting

DEAD: Final = encode(Failed("permanent", "ValueError", "no such mailbox", 1))


class Scene(Site):
    """A queue with jobs that have ended, folded by a projector, and a producer to redrive them with."""

    producer: Producer

    async def ended(self, count: int, *, fail: bool = True, **spec: Any) -> list[str]:
        """Jobs of type test.echo that failed or completed; answers their positions."""
        payload = msgspec.Raw(msgspec.json.encode(spec.pop("payload", {"value": "a"})))
        body = encode(Submitted(**{"type": "test.echo", "payload": payload} | spec)).decode()
        jobs = await self.put(*[body] * count)
        await self.dispatch.beat("w", 600_000, enter=True)
        while taken := (await self.dispatch.cycle("w", 500)).deliveries:
            ends = [
                Finished("failed" if fail else "completed", it.lane, it.entry, it.attempt, it.job, DEAD)
                for it in taken
            ]
            if not fail:
                ends = [replace(end, body=b'{"ms":1.0}') for end in ends]
            await self.dispatch.cycle("w", 0, finished=ends)
        return jobs

    async def redriving(self, id: str = "again", **order: Any) -> Redriving:
        """A redrive, asked for now."""
        seconds, micros = await self.redis.time()
        told = {name: order.pop(name) for name in ("rate", "patch", "archived") if name in order}
        wanted = msgspec.convert({"filter": {"queue": "test"} | order} | told, Redrive)
        return Redriving(self.producer, wanted, asked=seconds * 1000 + micros // 1000, id=id, by="ada")

    async def redriven(self, id: str = "again", **order: Any) -> Redriven:
        return await (await self.redriving(id, **order)).run(lambda *_: None)

    async def preview(self, *, reveal: bool = False, **order: Any) -> RedrivePreview:
        return await (await self.redriving(**order)).preview(reveal=reveal)

    async def copies(self) -> list[tuple[str, Submitted]]:
        """What was submitted again: the position of each, and what it is."""
        specs = [
            (it, msgspec.json.decode(it.body, type=Submitted))
            for it in await self.events()
            if it.tag == "submitted"
        ]
        return [(event.position, spec) for event, spec in specs if spec.origin]


@asynccontextmanager
async def scene_on(settings: Settings) -> AsyncIterator[Scene]:
    async with connect(settings) as redis, Producer(settings, redis=redis) as producer:
        scene = Scene(settings, redis, "test")
        scene.producer = producer
        await scene.dispatch.open()
        async with projecting(settings):
            yield scene
