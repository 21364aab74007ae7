"""The measured systems: how each one's program is called, and how its own books are read.

`left` says how many jobs have not ended, `ended` how many succeeded; both ask the server, with
commands that cost it nothing while a drain is timed (`left` is asked every few milliseconds).
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import redis

from bench.peers.install import bullmq, python_peers
from penstock.core.keys import Keys

TESTS: Final = Path(__file__).parents[1]
KEYS: Final = Keys("penstock").partition("bench")


class System(msgspec.Struct, frozen=True):
    """A program of the protocol in `program.py`, and its books. The ceiling has no handlers; the
    projector is Penstock's alone."""

    name: str
    program: tuple[str, ...]
    left: Callable[[redis.Redis], int]
    ended: Callable[[redis.Redis], int]
    projector: tuple[str, ...] = ()
    has_handlers: bool = True


def penstock_left(client: redis.Redis) -> int:
    """A lane entry is deleted in the step that ends its job."""
    return sum(client.xlen(lane) for lane in KEYS.lanes)


def penstock_ended(client: redis.Redis) -> int:
    """Counts the `completed` events of the whole log."""
    count, after = 0, b"-"
    while True:
        page: Any = client.xrange(KEYS.log, min=after, max="+", count=10_000)
        if not page:
            return count
        count += sum(fields[b"event"] == b"completed" for _, fields in page)
        after = b"(" + page[-1][0]


def own_systems() -> list[System]:
    """Penstock and its ceiling, in this environment."""
    side = (sys.executable, "-m", "bench.penstock_side")
    projector = (sys.executable, "-m", "bench.projector_side")
    ceiling = (sys.executable, "-m", "bench.ceiling")
    return [
        System("penstock", side, penstock_left, penstock_ended, projector),
        System("ceiling", ceiling, penstock_left, penstock_ended, has_handlers=False),
    ]


def peer_systems() -> list[System]:
    """The peers, installed first where they are not."""
    python: Final = python_peers()
    return [
        System("bullmq", bullmq(), _bullmq_left, _bullmq_ended),
        System("taskiq", (*python, "-m", "bench.peers.taskiq_side"), _taskiq_left, _taskiq_ended),
        System("streaq", (*python, "-m", "bench.peers.streaq_side"), _streaq_left, _streaq_ended),
    ]


def _bullmq_left(client: redis.Redis) -> int:
    return client.llen("bull:bench:wait") + client.llen("bull:bench:active")


def _bullmq_ended(client: redis.Redis) -> int:
    return client.zcard("bull:bench:completed")


def _taskiq_left(client: redis.Redis) -> int:
    """Its stream keeps what was acknowledged, so the group's own numbers tell."""
    return client.xlen("taskiq") - _taskiq_ended(client)


def _taskiq_ended(client: redis.Redis) -> int:
    group = client.xinfo_groups("taskiq")[0]
    return int(group["entries-read"] or 0) - int(group["pending"])


def _streaq_left(client: redis.Redis) -> int:
    return client.xlen("streaq:default:queues:normal")


def _streaq_ended(client: redis.Redis) -> int:
    return client.zcard("streaq:default:index:results")
