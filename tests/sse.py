"""A client of server-sent events for tests: what came, message by message, as a browser would see it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import httpx

PATIENCE_S: Final = 15.0


class Message(NamedTuple):
    """One that fires; `id` is the last one seen, as EventSource has it."""

    event: str
    data: Any
    id: str


class Follower:
    """One open stream. `messages` grows as they come; `last` is what to come again with. When it has
    `ended`, `cut` says whether it was broken off."""

    def __init__(self, answer: httpx.Response, last: str = "") -> None:
        self.answer: Final = answer
        self.messages: Final[list[Message]] = []
        self.comments = 0
        self.last = last
        self.ended = False
        self.cut = False
        self._news: Final = asyncio.Condition()
        self._reader: asyncio.Task[None] | None = None

    async def until(self, seen: Callable[[list[Message]], Any], what: str = "what is waited for") -> Any:
        """The first true answer of `seen`, asked of all messages whenever one has come."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            while not (answer := seen(self.messages)):
                assert not self.ended, f"the stream ended before {what}: {self.messages[-3:]}"
                await self._news.wait()
            return answer

    async def count(self, number: int) -> list[Message]:
        """So many messages."""
        await self.until(lambda messages: len(messages) >= number, f"{number} messages")
        return self.messages[:number]

    async def end(self) -> list[Message]:
        """All messages, once the other side has ended the stream."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            while not self.ended:
                await self._news.wait()
        return self.messages

    def events(self) -> list[tuple[str, str]]:
        """Event and position of the messages of the exact feed."""
        return [(it.event, it.data["position"]) for it in self.messages if it.event != "reset"]

    async def read(self) -> None:
        """Take apart what comes, until it ends."""
        fields: dict[str, list[str]] = {}
        try:
            async for line in self.answer.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    self.comments += not name
                    fields.setdefault(name, []).append(value)
                    continue
                async with self._news:
                    self._take(fields)
                    self._news.notify_all()
                fields = {}
        except httpx.HTTPError:
            self.cut = True
        finally:
            self.ended = True
            async with self._news:
                self._news.notify_all()

    def _take(self, fields: dict[str, list[str]]) -> None:
        self.last = fields.get("id", [self.last])[-1]
        if "data" in fields:
            data = json.loads("\n".join(fields["data"]))
            self.messages.append(Message(fields["event"][0], data, self.last))


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, path: str, last: str = "", **query: str
) -> AsyncIterator[Follower]:
    """Follow a feed while the block runs; the stream is open when it begins."""
    headers = {"Last-Event-ID": last} if last else {}
    async with client.stream("GET", path, params=query, headers=headers, timeout=None) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        follower = Follower(answer, last)
        reader = asyncio.create_task(follower.read())
        try:
            yield follower
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
