"""Archives in a folder, looked at and damaged by tests."""

from pathlib import Path

from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.keys import PartitionKeys
from penstock.core.log import Entry, Log
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.grep import pages
from penstock.projections.replay.history import opened
from penstock.projections.replay.span import span


async def live(redis: Redis, keys: PartitionKeys) -> dict[bytes, list[bytes]]:
    return dict(await Log(redis, keys).entries("0-0", 100_000))


async def all_of(redis: Redis, keys: PartitionKeys, url: str) -> list[Entry]:
    """The log with its archive, from the beginning."""
    log, now = await opened(redis, keys, Archive(url))
    found = [entry async for page in pages(log, span(keys, now, None, None)) for entry in page]
    return [(position, fields) for position, fields in found]


async def epoch(redis: Redis, keys: PartitionKeys) -> str:
    found: bytes = await command(redis, "GET", keys.epoch)
    return found.decode()


def named(url: str, pattern: str) -> list[str]:
    return sorted(str(path) for path in Path(url).rglob(pattern))


def segments(url: str) -> list[str]:
    return named(url, "*.ndjson.zst")


def damage(path: Path) -> None:
    """Change one bit in the middle, or for JSON, what it begins with."""
    data = bytearray(path.read_bytes())
    data[0 if path.suffix == ".json" else len(data) // 2] ^= 1
    path.write_bytes(data)
