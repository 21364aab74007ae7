"""Whatever happens to a queue: views, looks back, exports and archives tell of it what its log tells.

The histories are those of sagas.py. Each test draws some, on both kinds of server.
"""

import random
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from histories import dump
from penstock.core.errors import NotFound, Refused
from penstock.core.events import TAGS
from penstock.core.keys import Keys
from penstock.core.lifecycle import STATES, Job
from penstock.core.log import Entry, Log
from penstock.core.positions import LAST_SEQ, START, milliseconds, order
from penstock.projections.rebuild import rebuild
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.chronicle import Chronicle
from penstock.projections.replay.exporting import Asked, export
from penstock.projections.replay.grep import pages
from penstock.projections.replay.history import opened
from penstock.projections.replay.importing import bring_in
from penstock.projections.replay.span import span
from penstock.projections.replay.verify import verify
from penstock.projections.travel import Travel
from sagas import ACTS, Saga, drawn, fold_until, saga_on
from servers import RealServer

pytestmark = pytest.mark.timeout(240)  # of all the examples of a test

ON_A_SERVER = settings(
    deadline=None,
    max_examples=5,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SEEDS = st.integers(0, 2**32)


def some(acts: tuple[str, ...] = ACTS) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(acts), min_size=5, max_size=40)


def fresh() -> str:
    return f"t{uuid4().hex[:12]}"


@ON_A_SERVER
@given(some(), SEEDS)
@example(drawn(1, 120), 1)
@example(drawn(2, 120), 2)
async def test_a_rebuild_gives_the_live_views_byte_for_byte_and_verify_finds_nothing(
    server: RealServer, acts: list[str], seed: int
) -> None:
    async with saga_on(server, fresh(), acts, seed) as saga:
        live = await dump(saga.redis, saga.keys)
        told = await verify(saga.redis, saga.keys)
        assert (told.findings, told.more) == ([], 0)
        await rebuild(saga.redis, saga.keys)
        assert await dump(saga.redis, saga.keys) == live


async def test_every_kind_of_event_occurs_in_these_histories(server: RealServer) -> None:
    acts = ["submit", "lose", "submit", "lose", *ACTS, *drawn(1, 120), *ACTS]
    async with saga_on(server, fresh(), acts, 1) as saga:
        tags = {fields[1].decode() for fields in saga.written.values()}
        assert set(TAGS) - tags == set()
        assert len(await saga.live()) < len(saga.written), "retention was at work"


@ON_A_SERVER
@given(some((*ACTS, "store", "store")), SEEDS)
@example(drawn(3, 120, (*ACTS, "store", "store")), 3)
async def test_archive_and_live_log_are_the_log_as_if_nothing_had_ever_been_removed(
    server: RealServer, tmp_path: Path, acts: list[str], seed: int
) -> None:
    url = str(tmp_path / uuid4().hex)
    async with saga_on(server, fresh(), ["store", *acts], seed, url) as saga:
        assert await together(saga, url) == list(saga.written.items())
        past = Looks(saga, Chronicle(saga.redis, Archive(url)))
        places = [it.decode() for it in saga.written]
        for last in [places[0], *random.Random(seed).sample(places, min(4, len(places))), places[-1]]:
            await past.look(milliseconds(last), last)


async def together(saga: Saga, url: str) -> list[Entry]:
    log, now = await opened(saga.redis, saga.keys, Archive(url))
    assert now.removed == START, "the archive is complete"
    found = [entry async for page in pages(log, span(saga.keys, now, None, None)) for entry in page]
    return [(position, fields) for position, fields in found]


@ON_A_SERVER
@given(some(), SEEDS)
@example(drawn(4, 120), 4)
async def test_export_import_rebuild_is_the_original_and_verify_finds_nothing_there(
    server: RealServer, tmp_path: Path, acts: list[str], seed: int
) -> None:
    async with saga_on(server, fresh(), acts, seed) as saga:
        for form in ("ndjson.zst", "parquet"):
            path = str(tmp_path / f"{uuid4().hex}.{form}")
            await export(saga.settings, Asked(queue=saga.keys.queue), path, lambda *_: None)
            copy = msgspec.structs.replace(saga.settings, namespace=fresh())
            there = Keys(copy.namespace).partition("post")
            await bring_in(copy, [path], "post", lambda *_: None)
            assert await Log(saga.redis, there).entries(START, 100_000) == await saga.live()
            await rebuild(saga.redis, there)
            assert views(await dump(saga.redis, there)) == views(await dump(saga.redis, saga.keys))
            told = await verify(saga.redis, there)
            assert (told.findings, told.more) == ([], 0)


def views(dumped: dict[str, Any]) -> dict[str, Any]:
    """Views by their names, without those of queue and namespace."""
    return {name.partition("}")[2]: value for name, value in dumped.items()}


@ON_A_SERVER
@given(some(), SEEDS)
@example(drawn(5, 120), 5)
@example([*drawn(6, 60), "trim", "trim"], 6)
async def test_any_moment_is_told_as_a_fold_of_the_log_that_stops_there(
    server: RealServer, acts: list[str], seed: int
) -> None:
    async with saga_on(server, fresh(), acts, seed) as saga:
        past, chance = Looks(saga, Travel(saga.redis)), random.Random(seed)
        past.known &= {position.decode() for position, _ in await saga.live()}
        places = [it.decode() for it in saga.written]
        for last in [places[0], *chance.sample(places, min(6, len(places))), places[-1]]:
            await past.look(milliseconds(last), last)
        for last in chance.sample(places, min(3, len(places))):
            await past.look(milliseconds(last), "")


class Looks:
    """Looks back at a saga; who answers has only the `known` events of it."""

    def __init__(self, saga: Saga, travel: Travel) -> None:
        self.known = {position.decode() for position in saga.written}
        self._saga = saga
        self._travel = travel

    @property
    def _from(self) -> int:
        """When the first known event happened."""
        return min(map(milliseconds, self.known), default=LAST_SEQ)

    async def look(self, at: int, upto: str) -> None:
        """What is told of a moment, or of right after a position, is what a fold that stops there tells, less
        the jobs that are not known any more. What these did after the moment cannot be told from what they
        did before it, so then the sums are not compared."""
        last = upto or f"{at}-{LAST_SEQ}"
        counted, then = fold_until(list(self._saga.written.items()), last)
        rows = {job: row for job, row in then.items() if job in self.known}
        if at < self._from and len(self.known) < len(self._saga.written):
            for answer in (self._travel.queue, self._travel.jobs):
                with pytest.raises(Refused, match="is before the log of test begins"):
                    await answer(self._saga.keys, at, upto=upto)
            return
        queue = await self._travel.queue(self._saga.keys, at, upto)
        assert msgspec.to_builtins(queue.counts) == {
            state: sum(row.state == state for row in rows.values()) for state in STATES
        }
        places = [it.decode() for it in self._saga.written]
        if all(it in self.known for it in places if order(it) > order(last)):
            assert queue.totals == counted.totals
            assert queue.failures == counted.reasons
            assert (queue.paused, queue.limits) == (counted.paused, counted.limits)
        await self._list(at, upto, then, rows)
        await self._jobs(at, upto, then, rows)

    async def _list(self, at: int, upto: str, then: dict[str, Job], rows: dict[str, Job]) -> None:
        told, after, missing = dict[str, tuple[str, int, str]](), "", set[int]()
        while True:
            page = await self._travel.jobs(self._saga.keys, at, after=after, limit=7, upto=upto)
            told |= {it.id.rpartition(".")[2]: (it.state, it.attempt, it.type) for it in page.jobs}
            missing.add(page.missing)
            if page.next is None:
                break
            after = page.next
        assert told == {job: (row.state, row.attempt, row.type) for job, row in rows.items()}
        assert list(told) == sorted(told, key=order, reverse=True)
        # The lists of what retention removed go too, when it removes more.
        assert len(missing) == 1
        assert missing == {len(then) - len(rows)} or max(missing) < len(then) - len(rows)

    async def _jobs(self, at: int, upto: str, then: dict[str, Job], rows: dict[str, Job]) -> None:
        for job in sorted(then, key=order)[:: max(1, len(then) // 5)]:
            if job in rows:
                one = await self._travel.job(self._saga.keys, job, at, upto)
                assert (one.state, one.attempt) == (rows[job].state, rows[job].attempt)
            else:
                with pytest.raises(NotFound):
                    await self._travel.job(self._saga.keys, job, at, upto)
