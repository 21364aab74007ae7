"""What a handler may ask of its worker, beside its payload: who am I, what came before me, report, store,
submit."""

import math
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

import msgspec

from penstock.core.artifacts import Artifacts
from penstock.core.errors import Misconfigured

MAX_LOG_LINES: Final = 200
MAX_LOG_LINE_CHARS: Final = 1_000
MAX_MESSAGE_CHARS: Final = 500


class Submitter(Protocol):
    """The capability to submit further jobs; the process wiring hands in the real producer."""

    async def submit(self, payload: msgspec.Struct, /, **options: Any) -> str:
        """Submit one job; answers its id. Options as in `penstock.producer.Producer.submit`."""
        ...


class _NoSubmitter:
    """Stands where nothing can be submitted: in a handler's own process, and in `run_due` without a
    submitter."""

    def submit(self, payload: msgspec.Struct, /, **options: Any) -> Coroutine[Any, Any, str]:
        """Raises Misconfigured; at once, so that also a handler learns it that does not await."""
        raise Misconfigured(
            "no job can be submitted from here: a handler with mode='process' has no way to, let it be a "
            "coroutine; and in a test give `run_due` a submitter"
        )


class Report(msgspec.Struct, frozen=True):
    """Something a running handler says: `progressed` (the latest one counts) or `logged`, and the
    event's body as JSON."""

    tag: str
    body: bytes


class Context:
    """One attempt, seen from its handler. Methods may be called from any thread, none blocks.

    `jobs` submits further jobs; where that cannot be, its `submit` raises Misconfigured.

    For a node of a flow `needs` has the results of what it waited for, by the nodes' names, and `unmet`
    says why others have none (failed, cancelled or skipped), where it runs all the same.

    In a `rehearsal` of past jobs `job_id` is the past job's, artifacts that are stored are thrown away
    afterwards, and jobs that are submitted go nowhere.
    """

    __slots__ = (
        *("_cut", "_lines", "artifacts", "attempt", "attempts", "job_id", "jobs", "needs", "report", "type"),
        *("rehearsal", "unmet"),
    )

    def __init__(
        self,
        *,
        job_id: str,
        type: str,
        attempt: int,
        attempts: int,
        artifacts: Artifacts | None,
        jobs: Submitter | None,
        report: Callable[[Report], None],
        needs: Mapping[str, Any] | None = None,
        unmet: Mapping[str, str] | None = None,
        rehearsal: bool = False,
    ) -> None:
        self.job_id: Final = job_id
        self.type: Final = type
        self.attempt: Final = attempt
        self.attempts: Final = attempts
        self.artifacts: Final = artifacts
        self.jobs: Final[Submitter] = jobs if jobs is not None else _NoSubmitter()
        self.report: Final = report
        self.needs: Final[Mapping[str, Any]] = needs or {}
        self.unmet: Final[Mapping[str, str]] = unmet or {}
        self.rehearsal: Final = rehearsal
        self._lines = 0
        self._cut = False

    @property
    def cancelled(self) -> bool:
        """Whether the attempt was cut short (cancelled, out of time, its worker leaves). A coroutine
        learns it by CancelledError, a process is ended; a thread should look here now and then."""
        return self._cut

    def cut_short(self) -> None:
        """For the worker: from now on `cancelled` is true."""
        self._cut = True

    @property
    def is_last_attempt(self) -> bool:
        """Whether a failure now is final."""
        return self.attempt >= self.attempts

    def progress(self, fraction: float, message: str = "", data: Any = None) -> None:
        """Say how far the work is (0 to 1). Coalesced: what comes too fast is folded into the
        latest, so a handler may call this as often as it likes."""
        if math.isnan(fraction):
            raise ValueError("progress: the fraction is not a number")
        body: dict[str, Any] = {"fraction": min(max(fraction, 0.0), 1.0)}
        if message:
            body["message"] = message[:MAX_MESSAGE_CHARS]
        if data is not None:
            body["data"] = data
        self._say("progressed", body)

    def log(self, line: str) -> None:
        """Keep a line with the job, for people. The first 200 lines of an attempt are kept."""
        self._lines += 1
        if self._lines < MAX_LOG_LINES:
            self._say("logged", {"line": line[:MAX_LOG_LINE_CHARS]})
        elif self._lines == MAX_LOG_LINES:
            self._say("logged", {"line": f"({MAX_LOG_LINES} lines: no more are kept)"})

    def _say(self, tag: str, body: dict[str, Any]) -> None:
        # Encoded here: what cannot be said is the handler's own error, raised where it says it.
        self.report(Report(tag, msgspec.json.encode(body)))
