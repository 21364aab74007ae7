"""Asking a running API, for the commands and the demo; its problems come back as our errors."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec

from penstock.core.contracts import declared
from penstock.core.errors import (
    FieldProblem,
    InvalidJob,
    Misconfigured,
    NotFound,
    PenstockError,
    Refused,
    Unavailable,
    UnknownType,
    WrongState,
)
from penstock.core.positions import parse_job_id
from penstock.core.settings import Settings
from penstock.producer.auth import parse_key

PATIENCE_S: Final = 30.0
ANY_ADDRESS: Final = ("0.0.0.0", "::", "")  # noqa: S104 (compared with, not bound)


def reachable_host(settings: Settings) -> str:
    """The host by which this machine reaches the API."""
    return "127.0.0.1" if settings.host in ANY_ADDRESS else settings.host


def api_url(settings: Settings) -> str:
    """Where this machine reaches the API."""
    return url_of(settings, settings.api_port)


def url_of(settings: Settings, port: int) -> str:
    """Where this machine reaches what listens on the settings' host and this port."""
    host = reachable_host(settings)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def api_headers(settings: Settings) -> dict[str, str]:
    """The first of the configured keys (`name:key,...`), if there is any."""
    _, key, _ = parse_key(settings.api_keys.reveal().split(",", maxsplit=1)[0].strip())
    return {"Authorization": f"Bearer {key}"} if key else {}


class Api:
    """A client of the HTTP API. Answers are decoded JSON; failures raise our errors."""

    def __init__(self, settings: Settings, url: str = "") -> None:
        self.url: Final = url or api_url(settings)
        self._client = httpx.Client(
            base_url=self.url, headers=api_headers(settings), timeout=PATIENCE_S, trust_env=False
        )

    def submit(self, type: str, payload: Any, queue: str = "", **options: Any) -> dict[str, Any]:
        """Submit a job; options that are None are left to the contract."""
        given = {name: value for name, value in options.items() if value is not None}
        path = f"/jobs/{queue or queue_of(type)}"
        return dict(self._ask("POST", path, {"type": type, "payload": payload, **given}))

    def job(self, job_id: str, wait: float = 0) -> dict[str, Any]:
        """A job, after its end or `wait` seconds."""
        query = f"?wait={wait:g}" if wait else ""
        return dict(self._ask("GET", f"{_path(job_id)}{query}", patience=wait))

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """All events of a job."""
        return list(self._ask("GET", f"{_path(job_id)}/events")["events"])

    def queues(self) -> list[dict[str, Any]]:
        """All queues with their figures."""
        return list(self._ask("GET", "/queues")["queues"])

    def tell_job(self, job_id: str, act: str, body: Any = None) -> dict[str, Any]:
        """A command on a job: cancel, retry or promote."""
        return dict(self._ask("POST", f"{_path(job_id)}/{act}", body))

    def change_job(self, job_id: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Another time or priority for a job."""
        return dict(self._ask("PATCH", _path(job_id), change))

    def tell_queue(self, queue: str, act: str) -> dict[str, Any]:
        """A command on a queue: pause, resume or drain."""
        return dict(self._ask("POST", f"/queues/{quote(queue, safe='')}/{act}"))

    def limit_queue(self, queue: str, limits: Mapping[str, Any]) -> dict[str, Any]:
        """Set all limits of a queue."""
        return dict(self._ask("PUT", f"/queues/{quote(queue, safe='')}/limits", limits))

    def retain_queue(self, queue: str, retention: Mapping[str, Any]) -> dict[str, Any]:
        """Set how long a queue keeps ended jobs."""
        return dict(self._ask("PUT", f"/queues/{quote(queue, safe='')}/retention", retention))

    def bulk(self, order: Mapping[str, Any], *, dry_run: bool) -> dict[str, Any]:
        """An order for many jobs: the operation, or of a dry run what it would act on."""
        return dict(self._ask("POST", "/bulk", {**order, "dry_run": dry_run}))

    def submit_flow(self, flow: Mapping[str, Any]) -> dict[str, Any]:
        """Submit a flow."""
        return dict(self._ask("POST", "/flows", flow))

    def flow(self, flow_id: str, wait: float = 0) -> dict[str, Any]:
        """A flow, after its end or `wait` seconds."""
        query = f"?wait={wait:g}" if wait else ""
        return dict(self._ask("GET", f"/flows/{quote(flow_id, safe='')}{query}", patience=wait))

    def flows(self, state: str = "", limit: int = 50) -> list[dict[str, Any]]:
        """The newest flows, of one state if given."""
        query = f"?limit={limit}" + (f"&state={quote(state, safe='')}" if state else "")
        return list(self._ask("GET", f"/flows{query}")["flows"])

    def cancel_flow(self, flow_id: str, reason: str = "") -> dict[str, Any]:
        """Cancel a flow."""
        return dict(self._ask("POST", f"/flows/{quote(flow_id, safe='')}/cancel", {"reason": reason}))

    def workers(self) -> list[dict[str, Any]]:
        """All workers."""
        return list(self._ask("GET", "/workers")["workers"])

    def drain_worker(self, name: str) -> dict[str, Any]:
        """Ask a worker to leave."""
        return dict(self._ask("POST", f"/workers/{quote(name, safe='')}/drain"))

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Any request that is answered by an object, or by nothing."""
        return dict(self._ask(method, path, body))

    def _ask(self, method: str, path: str, body: Any = None, *, patience: float = 0) -> Any:
        try:
            answer = self._client.request(method, path, json=body, timeout=PATIENCE_S + patience)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"no answer from the API at {self.url} ({error}): start it with `penstock up`, "
                "or say where it is with --api"
            ) from None
        return checked(answer)


def checked(answer: httpx.Response) -> Any:
    """The answer's JSON; a problem is raised as the error it stands for."""
    try:
        content = msgspec.json.decode(answer.content)
    except msgspec.DecodeError:
        content = {}
    if not answer.is_success:
        raise _error(answer.status_code, content if isinstance(content, dict) else {}, answer.headers)
    return content


def queue_of(type: str) -> str:
    """The queue of a type: by its contract, or where that is not loaded here, its first word."""
    try:
        return declared(type).queue
    except UnknownType:
        return type.split(".", maxsplit=1)[0]


def _path(job_id: str) -> str:
    return f"/jobs/{parse_job_id(job_id).queue}/{job_id}"


def _error(status: int, problem: Mapping[str, Any], headers: httpx.Headers) -> PenstockError:
    detail = str(problem.get("detail") or problem.get("title") or f"the API answered {status}")
    match status:
        case 401 | 403:
            return Misconfigured(f"{detail}; put the key into PENSTOCK_API_KEYS as name:key")
        case 404:
            return NotFound(detail)
        case 409:
            return WrongState(detail)
        case 429 | 503:
            return Unavailable(detail, _seconds(headers.get("Retry-After", "")))
        case _ if problem.get("errors") and "known" not in problem:  # with those, the detail says it all
            return InvalidJob(msgspec.convert(problem["errors"], list[FieldProblem]))
        case _ if status < 500:
            return Refused(detail)
        case _:
            return Unavailable(detail)


def _seconds(text: str) -> float:
    return float(text) if text.isdigit() else 1.0
