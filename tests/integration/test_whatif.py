"""A what-if over what a real worker did: what is read, and that the model of it is near what was."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from commands import Command
from jobs_for_tests import Flaky, Hopeless, Nap
from penstock.consumers.whatif import Plan
from penstock.core.errors import NotFound, Refused
from penstock.core.positions import milliseconds
from penstock.projections.details import instant
from penstock.ui.whatif import Change, WhatIf, compare, record
from processes import Site, exit_code, producing, site_on, working
from servers import RealServer


@pytest.fixture
async def site(server: RealServer, namespace: str) -> AsyncIterator[Site]:
    """Twenty naps, five jobs that fail once, and three that fail for good, done by a worker of four slots."""
    async with site_on(server, namespace, concurrency=4) as site, producing(site) as producer:
        await producer.submit_many([*(Nap(0.03) for _ in range(20)), *[Flaky(1)] * 5, *[Hopeless()] * 3])
        async with working(site.settings):
            await site.until_ended(28, timeout=40)
        yield site


async def ask(site: Site, since: int | None = None, until: int | None = None, **change: Any) -> WhatIf:
    found = await record(site.settings, "test", since=since, until=until, tell=lambda *_: None)
    return compare(found, Change(**change))


async def test_the_model_of_what_was_is_near_it_and_changes_show(site: Site) -> None:
    found = await ask(site)
    for figures in (found.was, found.model, found.what_if):
        assert (figures.jobs, figures.attempts, figures.dead) == (28, 33, 3)
    assert found.what_if == found.model
    assert 2 <= found.plan.concurrency <= 4
    # The model hands out at once, which no worker can: so it is never behind, but for rounding.
    assert found.model.drained <= found.was.drained + 0.1
    one = await ask(site, concurrency=1)
    assert one.what_if.drained >= 20 * 0.03
    assert one.what_if.drained > one.model.drained
    slow = await ask(site, rate=10.0, burst=1)
    assert slow.what_if.drained >= 32 / 10 - 0.1
    once = await ask(site, plan=Plan(concurrency=1, attempts=1, types=("test.flaky",)))
    assert (once.what_if.attempts, once.what_if.dead) == (28, 8)


async def test_a_queue_that_is_none_is_refused_and_an_empty_stretch_is_told(site: Site) -> None:
    with pytest.raises(NotFound, match="no queue 'nowhere'; there are: "):
        await record(site.settings, "nowhere", since=None, until=None, tell=lambda *_: None)
    found = await ask(site, until=1)
    assert (found.was.jobs, found.unfinished) == (0, 0)
    with pytest.raises(Refused, match=r"no job of type 'no\.such' .* there are: test\.flaky, "):
        await ask(site, plan=Plan(concurrency=1, attempts=1, types=("no.such",)))


async def test_the_stretch_is_from_a_moment_on_and_says_what_has_gone_of_it(site: Site) -> None:
    events = await site.events()
    begins = milliseconds(events[0].position)
    assert (await ask(site, since=begins)).was.jobs == 28, "also what came in that very millisecond"
    await site.redis.execute_command("XADD", site.keys.log, "*", "a", "foreign hand")
    gone = events[0].job
    await site.redis.execute_command("XDEL", site.keys.log, *(it.position for it in events if it.job == gone))
    found = await ask(site)
    assert found.was.jobs == 27
    last = next(it for it in reversed(events) if it.job == gone)
    assert found.partial.endswith(f"and their events, up to {instant(milliseconds(last.position))}")
    with pytest.raises(Refused, match="is before the log of test begins"):
        await ask(site, since=begins - 1000)


async def test_the_command_tells_three_columns_and_what_it_assumes(
    site: Site, penstock: Callable[..., Command]
) -> None:
    def command(*words: str) -> Command:
        environ = {
            "PENSTOCK_REDIS_URL": site.settings.redis_url.reveal(),
            "PENSTOCK_NAMESPACE": site.settings.namespace,
        }
        return penstock("replay", "what-if", "--queue", "test", *words, **environ)

    backoff = '{"kind": "fixed", "base": 2, "jitter": 0}'
    told, as_json = command("--rate", "10"), command("--from", "1h", "--backoff", backoff, "--json")
    assert await exit_code(told, 40) == 0, told.output
    for words in ("was", "model", "what if", "dead letters", "rate limit 10 jobs/s", "It assumes:"):
        assert words in told.output
    assert await exit_code(as_json, 40) == 0, as_json.output
    found = json.loads(as_json.output)
    assert found["what_if"]["drained"] >= 2
    assert found["what_if"]["attempts"] == found["was"]["attempts"] == 33
    assert await exit_code(command("--from", "1h", "--to", "2h")) == 2
