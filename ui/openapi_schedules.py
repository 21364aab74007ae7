"""The description of schedules: how they are set and told what to do (producer/schedule_routes.py)."""

from typing import Final

from penstock.producer.schedules.asking import ScheduleRequest
from penstock.producer.schedules.schedules import SchedulePreview, ScheduleView
from penstock.ui.openapi_control import TAKEN, Command

SCHEDULE: Final = "/schedules/{schedule}"

PARAMETERS: Final = {"schedule": "The schedule's name: up to 100 of a-z, 0-9, dot, - and _."}
SHAPES: Final = (ScheduleRequest, ScheduleView, SchedulePreview)

COMMANDS: Final = (
    Command(
        *("put", SCHEDULE, "setSchedule", "Set a schedule"),
        "In place of what had its name; setting the same again changes nothing. With another rhythm it "
        "begins now, with the same it goes on and no tick is lost. It stays paused if it was.",
        "ScheduleRequest",
        {201: ("Created.", "ScheduleView"), 200: ("Changed, or so already.", "ScheduleView")},
        TAKEN,
    ),
    Command(
        *("post", f"{SCHEDULE}/preview", "previewSchedule", "What would come of a schedule"),
        "When it would tick, told even where its job is wrong, and every wrong field: for a form that "
        "is being filled in. Nothing is written.",
        "ScheduleRequest",
        {200: ("If it were set now.", "SchedulePreview")},
        TAKEN,
    ),
    Command(
        *("delete", SCHEDULE, "removeSchedule", "Remove a schedule"),
        "Its jobs stay, and what was decided can still be read.",
        "",
        {204: ("Removed.", "")},
        (404,),
    ),
    Command(
        *("post", f"{SCHEDULE}/pause", "pauseSchedule", "Pause a schedule"),
        "No tick is due until it is resumed, and those passed over are not made up for. What was decided "
        "before still runs.",
        "",
        {200: ("Paused.", "ScheduleView")},
        (404,),
    ),
    Command(
        *("post", f"{SCHEDULE}/resume", "resumeSchedule", "Resume a schedule"),
        "From now on.",
        "",
        {200: ("Not paused.", "ScheduleView")},
        (404,),
    ),
    Command(
        *("post", f"{SCHEDULE}/trigger", "triggerSchedule", "Run a schedule's job now"),
        "Paused or not, as soon as a scheduler sees it. It is never skipped for a job that runs: it waits "
        "for that, or cancels it, where the schedule says so. An Idempotency-Key makes this safe to repeat.",
        "",
        {202: ("A scheduler submits its job.", "ScheduleView")},
        (404,),
    ),
)
