"""One job's story: each of its events, how long after the one before, and the state it led to."""

from collections.abc import Sequence

import msgspec

from penstock.core.errors import NotFound
from penstock.core.events import Event, Submitted
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import Job, State, fold, legible
from penstock.core.positions import milliseconds
from penstock.core.sealing import Seals
from penstock.projections.details import JobDetail, detail, event_detail


class Step(msgspec.Struct):
    """An event of a job. `gap_ms`: since the event before; `state` and `attempt`: after it; `fits`: False
    where it did not fit the state, and so changed nothing."""

    position: str
    at: str
    gap_ms: int
    event: str
    state: State
    attempt: int
    fits: bool
    data: msgspec.Raw


class Story(msgspec.Struct):
    """A job and its events, oldest first."""

    job: JobDetail
    events: list[Step]


def story(keys: PartitionKeys, position: str, events: Sequence[Event], seals: Seals | None = None) -> Story:
    """Tell the job at `position` by all its events. What is sealed is shown with `seals` only.

    Raises NotFound: there are no events, or the first of them is missing.
    """
    job_id = keys.job_id(position)
    if not events:
        raise NotFound(f"no job {job_id} in the log")
    first = legible(events[0])[1]
    if events[0].position != position or not isinstance(first, Submitted):
        raise NotFound(f"{job_id}: its beginning is no longer in the log")
    row: Job | None = None
    before = milliseconds(position)
    steps = []
    for event in events:
        fitting = row.misfits if row is not None else 0
        row = fold(row, *legible(event))
        assert row is not None  # noqa: S101 - the first event opened it
        told, now = event_detail(event, first.type, seals), milliseconds(event.position)
        fits = row.misfits == fitting
        steps.append(
            Step(told.position, told.at, now - before, told.event, row.state, row.attempt, fits, told.data)
        )
        before = now
    assert row is not None  # noqa: S101 - there was an event
    return Story(detail(keys, row, events, seals), steps)
