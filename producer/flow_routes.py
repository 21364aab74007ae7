"""Flows over HTTP.

    POST /flows               202   a graph of jobs, accepted or refused as a whole
    GET  /flows               200   newest first
    GET  /flows/{id}          200   with its nodes; `wait` for its end
    POST /flows/{id}/cancel   200   what runs is cancelled, the rest is never submitted; 409 if it is over

What can be read is as fresh as the ledger: a flow can be read as soon as it was accepted.
"""

from typing import Annotated, Final

import msgspec
from litestar import get, post
from litestar.datastructures import CacheControlHeader
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, PathParameter, QueryParameter
from litestar.response.base import ASGIResponse

from penstock.core.errors import WrongState
from penstock.core.settings import Settings
from penstock.producer.bodies import AnyRequest, media_type, whole
from penstock.producer.flows.client import FlowDetail, FlowPage, Flows
from penstock.producer.flows.course import FlowState
from penstock.producer.flows.intake import MAX_FLOW_BYTES, FlowRequest
from penstock.producer.reading import read_fields
from penstock.producer.routes import JSON, key_of, trace_of

MAX_WAIT_S: Final = 60
MAX_LIMIT: Final = 500
MAX_COMMAND: Final = 64 * 1024
# What is written as JSON by people takes more room than what we keep of it.
MAX_REQUEST: Final = 4 * MAX_FLOW_BYTES

_FRESH: Final = CacheControlHeader(no_store=True)
_encode: Final = msgspec.json.Encoder().encode

FlowId = Annotated[str, PathParameter(description="The flow's id, like flow.1795477369681-0.")]
Wait = Annotated[
    float,
    QueryParameter(ge=0, le=MAX_WAIT_S, description="Seconds to wait for the flow's end before answering."),
]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="How many at most.")]
Before = Annotated[str, QueryParameter(description="The `next` of the page before.", max_length=40)]
OfState = Annotated[FlowState | None, QueryParameter(name="state", description="Only flows in this state.")]


class FlowCancellation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a flow is cancelled; kept in its history."""

    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class AcceptedFlow(msgspec.Struct, frozen=True):
    """A flow that is in its ledger."""

    id: str
    nodes: int


def flow_writers(flows: Flows, settings: Settings) -> list[HTTPRouteHandler]:
    """The handlers that change something, for an app that puts the caller into `request.user`."""

    @post("/flows", include_in_schema=False)
    async def submit_flow(request: AnyRequest) -> ASGIResponse:
        media_type(request, JSON)
        body = await whole(request, min(MAX_REQUEST, settings.max_body), "flow")
        asked = read_fields(body, FlowRequest)
        asked = msgspec.structs.replace(asked, key=key_of(request, asked.key))
        handle = await flows.submit(asked, by=request.user.name, trace=trace_of(request))
        return _answer(AcceptedFlow(handle.id, len(asked.nodes)), 202, location=f"/flows/{handle.id}")

    @post("/flows/{flow_id:str}/cancel", include_in_schema=False)
    async def cancel_flow(request: AnyRequest, flow_id: FromPath[str]) -> ASGIResponse:
        body = await whole(request, MAX_COMMAND, "command")
        if body:
            media_type(request, JSON)
        told = read_fields(body or b"{}", FlowCancellation)
        done = await flows.cancel(flow_id, by=request.user.name, reason=told.reason)
        flow = await flows.get(flow_id)
        if not done:
            raise WrongState(f"{flow_id} is {'being cancelled' if flow.state == 'active' else flow.state}")
        return _answer(flow)

    return [submit_flow, cancel_flow]


def flow_readers(flows: Flows) -> list[HTTPRouteHandler]:
    """The handlers that read."""

    @get("/flows", cache_control=_FRESH, summary="The flows", operation_id="listFlows", tags=["flows"])
    async def list_flows(in_state: OfState = None, before: Before = "", limit: Limit = 50) -> FlowPage:
        """Newest first, without their nodes."""
        return await flows.list(state=in_state, before=before, limit=limit)

    @get(
        "/flows/{flow_id:str}",
        cache_control=_FRESH,
        summary="A flow with its nodes",
        operation_id="getFlow",
        tags=["flows"],
    )
    async def get_flow(flow_id: FlowId, wait: Wait = 0) -> FlowDetail:
        """As its ledger has it at this moment, or with `wait` as soon as it has ended."""
        return await (flows.wait(flow_id, wait) if wait else flows.get(flow_id))

    return [list_flows, get_flow]


def _answer(told: msgspec.Struct, status: int = 200, **headers: str) -> ASGIResponse:
    headers["cache-control"] = "no-store"
    return ASGIResponse(body=_encode(told), status_code=status, headers=headers, media_type=JSON)
