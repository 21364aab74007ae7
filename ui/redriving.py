"""A redrive (core/jobs/redrive.py) looked at beforehand, and carried out: what a filter selects
(projections) is submitted again (producer).

It goes through the queues by name and each in the order of submission, and says as progress how far it has
come. Whoever goes on after a crash begins there. What was sent after the last word of progress is known by
its idempotency key; so a redrive that lay still for longer than such keys are remembered is given up.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import msgspec

from penstock.core.control import Standing
from penstock.core.errors import FieldProblem, InvalidJob, Permanent, Refused
from penstock.core.events import Event, Progressed, decode
from penstock.core.jobs.redrive import TYPE, Redrive
from penstock.core.keys import PartitionKeys
from penstock.core.merge_patch import Change, differences
from penstock.core.positions import milliseconds
from penstock.core.sealing import Seals, is_sealed, opened
from penstock.core.settings import Settings
from penstock.producer.client import Producer
from penstock.producer.redrive import Copier, Sender
from penstock.projections.bulk import PREVIEW_S, SAMPLES
from penstock.projections.details import JobSummary, summary
from penstock.projections.filters import PAGE, Found, Page, Search, Selection
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.removed import Removed, searches

MAX_NAMED: Final = 20
MAX_WORDS: Final = 500
SMALLEST_PAGE: Final = 10
MARGIN_S: Final = 60.0  # by which a redrive must be younger than the keys it relies on


class Refusal(msgspec.Struct, frozen=True):
    """A job of which no copy can be made, and why."""

    id: str
    problem: str


class Sample(msgspec.Struct):
    """A job that would be submitted again, and what would change in its payload; `sealed` where that is not
    shown to whoever asks."""

    job: JobSummary
    changes: list[Change]
    sealed: bool = False


class RedrivePreview(msgspec.Struct):
    """What a redrive would do: how many jobs it would submit, how many it could not and the first of them,
    and the first ten copies. `complete` is false where counting took too long, and there may be more.
    `seconds`: how long it would take at its rate. `removed`: jobs that ended in the states that are meant
    and that retention has removed from the queues that are meant, whichever they were; 0 where the archive
    tells of them."""

    count: int = 0
    complete: bool = True
    refused: int = 0
    refusals: list[Refusal] = []
    samples: list[Sample] = []
    seconds: float | None = None
    removed: int = 0


class Redriven(msgspec.Struct):
    """What a redrive has done so far. `looked`: jobs looked at; `matched`: those that fit; of these `sent`,
    `known` (sent before, by this redrive), and `refused`, the first of which are named. `gone`: removed by
    retention before the redrive came to them. `queue`, `archived`, `after`: how far it is; of each queue come
    the jobs that are kept first, then those of the archive."""

    looked: int = 0
    matched: int = 0
    sent: int = 0
    known: int = 0
    refused: int = 0
    refusals: list[Refusal] = []
    gone: int = 0
    queue: str = ""
    archived: bool = False
    after: str = ""


class Redriving:
    """One redrive, asked for at a moment (Unix ms). `id`: its own, or that of its job. Raises Refused: it is
    for an archive, and there is none."""

    def __init__(self, producer: Producer, order: Redrive, *, asked: int, id: str, by: str) -> None:
        self._producer: Final = producer
        self._order: Final = order
        self._copier: Final = Copier(producer, id, order.patch, by=by)
        self._archive: Final = archive_for(order, producer.settings)
        self._selection: Final = Selection(producer.redis, producer.keys, order, asked=asked, settled=True)

    async def preview(self, *, reveal: bool = False) -> RedrivePreview:
        """Look at all of it, for ten seconds at most. `reveal`: show what is sealed."""
        told, began = RedrivePreview(), time.monotonic()
        async for search in self._searches():
            if self._archive is None and isinstance(search, Search):
                told.removed += await search.removed()
            async for page in search.pages():
                for job, stands in self._meant(page):
                    self._look(told, search.keys, job, stands, reveal=reveal)
                if time.monotonic() - began > PREVIEW_S:
                    told.complete = False
                    return told
        if self._order.rate:
            told.seconds = round(told.count / self._order.rate, 1)
        return told

    async def run(self, report: Callable[[float, Redriven], None], done: Redriven | None = None) -> Redriven:
        """Carry it out, from where `done` says on; `report` gets how far it is (0 to 1) after each step.
        Stops between two steps when it is cancelled: what is sent is sent. Raises Unavailable."""
        outcome = done or Redriven()
        all_searches = [it async for it in self._searches()]
        total = max(1, sum([await search.size() for search in all_searches]))
        for search in all_searches:
            here, reached = (search.keys.queue, search.archived), (outcome.queue, outcome.archived)
            if here < reached:
                continue
            after = outcome.after if here == reached else ""
            sender = Sender(self._producer, search.keys.queue, self._order.rate)
            async for page in search.pages(after, self._page):
                await self._redrive(search.keys, page, sender, outcome)
                outcome.looked += page.looked
                outcome.gone += page.gone
                outcome.queue, outcome.archived, outcome.after = *here, page.last
                report(min(1.0, outcome.looked / total), outcome)
        return outcome

    def _searches(self) -> AsyncIterator[Search | Removed]:
        return searches(self._selection, self._archive, full=True)

    @property
    def _page(self) -> int:
        """How many jobs to look at between two words of progress: about those of a second."""
        rate = round(self._order.rate)
        return min(PAGE, max(SMALLEST_PAGE, rate)) if rate else PAGE

    async def _redrive(self, keys: PartitionKeys, page: Page, sender: Sender, outcome: Redriven) -> None:
        copies = []
        for job, stands in self._meant(page):
            outcome.matched += 1
            try:
                copies.append(self._copier.copied(keys.job_id(job.position), stands.spec))
            except Refused as refusal:
                outcome.refused += 1
                if len(outcome.refusals) < MAX_NAMED:
                    outcome.refusals.append(Refusal(keys.job_id(job.position), str(refusal)[:MAX_WORDS]))
        answers = await sender.send(copies)
        known = sum(answer.known for answer in answers)
        outcome.known += known
        outcome.sent += len(answers) - known

    def _meant(self, page: Page) -> list[tuple[Found, Standing]]:
        """What fits, but for what this redrive made itself: started again under its id it must not begin
        with that."""
        found = [(job, job.standing) for job in page.found if job.standing is not None]
        return [(job, stands) for job, stands in found if not self._copier.made(stands.spec)]

    def _look(
        self, told: RedrivePreview, keys: PartitionKeys, job: Found, stands: Standing, *, reveal: bool
    ) -> None:
        job_id, spec = keys.job_id(job.position), stands.spec
        try:
            payload = self._copier.payload(spec)
        except Refused as refusal:
            told.refused += 1
            if len(told.refusals) < MAX_NAMED:
                told.refusals.append(Refusal(job_id, str(refusal)[:MAX_WORDS]))
            return
        told.count += 1
        if len(told.samples) < SAMPLES:
            hidden = is_sealed(spec.payload) and not reveal
            before = msgspec.json.decode(self._copier.opened(spec))
            changes = [] if hidden else differences(before, msgspec.json.decode(payload))
            told.samples.append(Sample(summary(keys, job.position, job.row), changes, hidden))


def archive_for(order: Redrive, settings: Settings) -> Archive | None:
    """The archive that a redrive reads, if it does. Raises Refused: there is none."""
    if not order.archived:
        return None
    if not settings.archive_url:
        raise InvalidJob([FieldProblem("archived", "needs an archive, and PENSTOCK_ARCHIVE_URL is not set")])
    return Archive(settings.archive_url)


def taken_up(events: Sequence[Event], *, now: int, memory: float, seals: Seals | None) -> Redriven:
    """How far a redrive had come before the attempt that just began, by the events of its job.

    `now` in Unix ms; `memory`: how long idempotency keys are remembered, in s. Raises Permanent where it lay
    still for longer, Unsealable.
    """
    starts = [number for number, event in enumerate(events) if event.tag == "started"]
    earlier = events[: starts[-1]] if starts else []
    last = next((event for event in reversed(earlier) if event.tag in ("progressed", "started")), None)
    if last is None:
        return Redriven()
    if now - milliseconds(last.position) > (memory - MARGIN_S) * 1000:
        raise Permanent(
            "it lay still for longer than idempotency keys are remembered (PENSTOCK_IDEMPOTENCY_TTL), so it "
            "cannot tell what it has sent last: look at its progress, and begin another one"
        )
    said = next((event for event in reversed(earlier) if event.tag == "progressed"), None)
    body = decode(said) if said is not None else None
    if not isinstance(body, Progressed):
        return Redriven()
    return msgspec.json.decode(opened(body.data, TYPE, "data", seals), type=Redriven)
