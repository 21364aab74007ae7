"""A search through the log finds exactly what fits, whatever it must look up for that, in bounded memory."""

import json
import random
import re
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from histories import Author
from penstock.core.connection import command
from penstock.core.errors import Refused
from penstock.core.events import Event, Logged, Submitted, encode
from penstock.core.keys import PartitionKeys
from penstock.core.log import Log
from penstock.core.positions import milliseconds, order
from penstock.projections.replay import sieve
from penstock.projections.replay.grep import grep
from penstock.projections.replay.sieve import Sought, expression, pattern
from penstock.projections.replay.span import Span, partly, span, standing


async def found(log: Log, sought: Sought, after: str = "0-0", upto: str = "") -> list[str]:
    asked = Span(after, upto or await log.tip())
    return [told.read[0].position async for part in grep(log, asked, sought) for told in part.found]


async def tagged(author: Author, count: int) -> None:
    """Jobs with tags, and words in their payloads."""
    for number in range(count):
        body = Submitted("mail.send", msgspec.Raw(b'{"n": %d}' % number), tags=("odd",) if number % 2 else ())
        position = await command(
            author.redis, "XADD", author.keys.log, "*", "event", "submitted", "job", "", "body", encode(body)
        )
        line = encode(Logged(f"Größe {number}"))
        words = ("event", "logged", "job", position, "body", line)
        await command(author.redis, "XADD", author.keys.log, "*", *words)


def origin(events: list[Event]) -> dict[str, dict[str, Any]]:
    return {it.position: msgspec.json.decode(it.body) for it in events if it.tag == "submitted"}


@pytest.mark.parametrize("known", [3, 200_000])
async def test_what_is_found_is_what_fits(
    redis: Redis, keys: PartitionKeys, monkeypatch: pytest.MonkeyPatch, known: int
) -> None:
    monkeypatch.setattr(sieve, "MAX_KNOWN", known)
    monkeypatch.setattr(sieve, "_LOOKED_UP", known)
    author, chance, log = Author(redis, keys, seed=9), random.Random(9), Log(redis, keys)
    for _ in range(6):
        await author.scene()
        await tagged(author, 5)
    await command(redis, "XADD", keys.log, "*", "foreign", "entry")
    events = await _legible(log)
    jobs = origin(events)
    for _ in range(25):
        type = chance.choice(["", "mail.send", "mail.bulk", "no.such"])
        tag = chance.choice(["", "", "odd"])
        names = frozenset(chance.choice([(), ("completed", "failed"), ("logged",), ("submitted",)]))
        text = chance.choice(["", "ada@", "größe [12]$", '"attempt":1'])
        after, upto = sorted((it.position for it in chance.sample(events, 2)), key=order)
        expected = [
            it.position
            for it in events
            if order(after) < order(it.position) <= order(upto)
            and (not type or jobs.get(it.job, {}).get("type") == type)
            and (not tag or tag in jobs.get(it.job, {}).get("tags", ()))
            and (not names or it.tag in names)
            and (not text or re.search(text, it.body.decode(), re.IGNORECASE))
        ]
        sought = Sought(type=type, tag=tag, events=names, text=pattern(text, ignore_case=True))
        assert await found(log, sought, after, upto) == expected


async def _legible(log: Log) -> list[Event]:
    entries = [entry for entry in await log.entries("0-0", 100_000) if len(entry[1]) == 6]
    return await log.read([position.decode() for position, _ in entries])


async def test_expressions_and_jobs(redis: Redis, keys: PartitionKeys) -> None:
    author, log = Author(redis, keys, seed=4), Log(redis, keys)
    await author.scene()
    await tagged(author, 12)
    events = await log.page("0-0", 100_000)
    jobs = origin(events)
    even = [
        it.position for it in events if it.position in jobs and jobs[it.position]["payload"].get("n") == 6
    ]
    assert await found(log, Sought(where=expression("payload.n == `6`"))) == even
    assert len(even) == 1
    slow = [it.position for it in events if it.tag == "completed" and json.loads(it.body).get("ms", 0) > 20]
    assert await found(log, Sought(events=frozenset({"completed"}), where=expression("ms > `20`"))) == slow
    for job in author.jobs[:5]:
        assert await found(log, Sought(job=job)) == [it.position for it in events if it.job == job]
    with pytest.raises(Refused, match="no JMESPath expression: "):
        expression("payload.[")
    with pytest.raises(Refused, match=r"'\(' is no regular expression: "):
        pattern("(")


async def test_a_stretch_is_checked(redis: Redis, keys: PartitionKeys) -> None:
    author, log = Author(redis, keys), Log(redis, keys)
    with pytest.raises(Refused, match="there is no queue 'mail' here"):
        await standing(log)
    await author.dispatch.open()
    empty = await standing(log)
    assert span(keys, empty, None, None) == Span("0-0", "0-0")
    assert await found(log, Sought()) == []
    first, second, third = [(await author.submit(1))[0] for _ in range(3)]
    now = await standing(log)
    assert span(keys, now, 5, None) == Span("4-18446744073709551615", third)
    assert partly(keys, now, span(keys, now, 5, None)) == ""
    await command(redis, "XDEL", keys.log, first, third)
    now = await standing(log)
    assert (now.first, now.removed) == (second, third)
    late = milliseconds(third) + 1
    assert partly(keys, now, span(keys, now, None, None)).startswith("mail: retention has removed jobs")
    assert partly(keys, now, span(keys, now, late, None)) == ""
    with pytest.raises(Refused, match="before the log of mail begins"):
        span(keys, now, milliseconds(second) - 1, None)
    with pytest.raises(Refused, match="no time at all"):
        span(keys, now, late, late)
