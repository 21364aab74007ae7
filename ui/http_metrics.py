"""HTTP requests, measured around the whole app, so that what its inner layers refuse is counted too.

A live feed ends when its reader leaves: it is measured to its first byte.
"""

import time
from typing import TYPE_CHECKING, Any, Final

from penstock.core import telemetry as names
from penstock.core.probes import Sample
from penstock.core.telemetry import HTTP_BOUNDS, HTTP_DURATION

if TYPE_CHECKING:
    from penstock.ui.metrics import Metrics

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FEED: Final = b"text/event-stream"


class Measured:
    """An ASGI app, measured."""

    def __init__(self, app: Any, metrics: "Metrics") -> None:
        self._app: Final = app
        self._record: Final = metrics.recorder(HTTP_DURATION, HTTP_BOUNDS)
        self._active = 0
        metrics.probes.add(self._samples)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, measured = time.perf_counter(), 500, False

        def measure() -> None:
            nonlocal measured
            if not measured:
                measured = True
                self._record(time.perf_counter() - began, _labels(scope, status))

        async def watched(message: Any) -> None:
            nonlocal status
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
                if any(
                    value.startswith(_FEED) for name, value in message["headers"] if name == b"content-type"
                ):
                    measure()

        self._active += 1
        try:
            await self._app(scope, receive, watched)
        finally:
            self._active -= 1
            measure()

    async def _samples(self) -> list[Sample]:
        return [Sample(names.HTTP_ACTIVE, self._active)]


def _labels(scope: Any, status: int) -> dict[str, str]:
    method = scope["method"]
    labels = {
        "http.request.method": method if method in _METHODS else "_OTHER",
        "http.response.status_code": str(status),
    }
    route = scope.get("path_template")
    if route:
        labels["http.route"] = route
    return labels
