"""The description of webhook endpoints (producer/webhook_routes.py)."""

from typing import Final

from penstock.producer.webhook_routes import EndpointList, EndpointRequest, EndpointView, Replay, TestSent
from penstock.ui.openapi_control import TAKEN, Command

ENDPOINT: Final = "/webhooks/{endpoint}"

PARAMETERS: Final = {"endpoint": "The endpoint's name."}
SHAPES: Final = (EndpointList, EndpointRequest, EndpointView, Replay, TestSent)

COMMANDS: Final = (
    Command(
        *("get", "/webhooks", "listWebhooks", "The webhook endpoints"),
        "",
        "",
        {200: ("By name.", "EndpointList")},
        (),
    ),
    Command(
        *("put", ENDPOINT, "setWebhook", "Make or change a webhook endpoint"),
        "Events from now on are sent to it by POST, at least once, signed as Standard Webhooks 1.0.0 has it; "
        "those of one job in order while all goes well. A queue that it was sent before goes on where it "
        "was. Only public addresses are reached.",
        "EndpointRequest",
        {201: ("Made; with its secret.", "EndpointView"), 200: ("Changed, or so already.", "EndpointView")},
        TAKEN,
    ),
    Command(
        *("get", ENDPOINT, "getWebhook", "A webhook endpoint"),
        "With how far each queue's log was read for it.",
        "",
        {200: ("The endpoint.", "EndpointView")},
        (404,),
    ),
    Command(
        *("delete", ENDPOINT, "removeWebhook", "Remove a webhook endpoint"),
        "What is still to be delivered to it fails.",
        "",
        {204: ("It is no more.", "")},
        (404,),
    ),
    Command(
        *("post", f"{ENDPOINT}/pause", "pauseWebhook", "Pause a webhook endpoint"),
        "What happens meanwhile is passed over: after it is resumed, replay what it missed.",
        "",
        {200: ("Paused.", "EndpointView")},
        (404,),
    ),
    Command(
        *("post", f"{ENDPOINT}/resume", "resumeWebhook", "Resume a webhook endpoint"),
        "",
        "",
        {200: ("Not paused.", "EndpointView")},
        (404,),
    ),
    Command(
        *("post", f"{ENDPOINT}/rotate", "rotateWebhook", "Give a webhook endpoint another secret"),
        "For a day its messages bear the signatures of both.",
        "",
        {200: ("With its new secret.", "EndpointView")},
        (404,),
    ),
    Command(
        *("post", f"{ENDPOINT}/replay", "replayWebhook", "Send again what happened since"),
        "As far as it is in the logs; each event under its own `webhook-id`, as before.",
        "Replay",
        {202: ("It begins.", "EndpointView")},
        TAKEN,
    ),
    Command(
        *("post", f"{ENDPOINT}/test", "testWebhook", "Send a test to a webhook endpoint"),
        "Once, now. The job's end tells how it went.",
        "",
        {202: ("The job that sends it.", "TestSent")},
        (404,),
    ),
)
