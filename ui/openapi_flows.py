"""The description of flows: what is submitted, and how one is cancelled (producer/flow_routes.py)."""

from typing import Final

from penstock.producer.flow_routes import AcceptedFlow, FlowCancellation
from penstock.producer.flows.client import FlowDetail
from penstock.producer.flows.intake import MAX_FLOW_BYTES, MAX_NODES, FlowRequest
from penstock.ui.openapi_control import Command

SHAPES: Final = (FlowRequest, AcceptedFlow, FlowCancellation, FlowDetail)
PARAMETERS: Final = {"flow_id": "The flow's id, like flow.1795477369681-0."}

COMMANDS: Final = (
    Command(
        *("post", "/flows", "submitFlow", "Submit a flow"),
        "A graph of jobs: each node is a job that is submitted when those named in its `after` have ended, "
        "and gets their results. Checked and accepted as a whole; nothing is written unless all is right. "
        f"At most {MAX_NODES:,} nodes and {MAX_FLOW_BYTES:,} bytes. An Idempotency-Key makes this safe to "
        "repeat.",
        "FlowRequest",
        {202: ("Accepted: the flow is in its ledger.", "AcceptedFlow")},
        (400, 408, 413, 415, 422),
    ),
    Command(
        *("post", "/flows/{flow_id}/cancel", "cancelFlow", "Cancel a flow"),
        "What runs is cancelled, the rest is never submitted.",
        "FlowCancellation",
        {200: ("It ends now; its nodes follow within moments.", "FlowDetail")},
        (400, 404, 408, 409, 413, 415, 422),
    ),
)
