"""The description of the commands on jobs, queues and workers (producer/control_routes.py)."""

from typing import Any, Final, NamedTuple

Json = dict[str, Any]

JOB: Final = "/jobs/{queue}/{job_id}"
QUEUE: Final = "/queues/{queue}"

PARAMETERS: Final = {
    "queue": "The queue's name.",
    "job_id": "The job's whole id, like email.0.1795477369681-0.",
    "name": "The worker's name.",
}


class Command(NamedTuple):
    """One operation: what it is called, what it takes, and its answers beside the refusals."""

    method: str
    path: str
    id: str
    summary: str
    description: str
    body: str
    answers: dict[int, tuple[str, str]]
    refusals: tuple[int, ...]


TAKEN: Final = (400, 404, 408, 413, 415, 422)  # whoever reads a body may refuse it in these ways

COMMANDS: Final = (
    Command(
        *("post", f"{JOB}/cancel", "cancelJob", "Cancel a job"),
        "Waiting, delayed or running. It is over at once. The handler of a running one is told within half a "
        "second: a coroutine may clean up, a thread sees `cancelled` in its context, a process is ended.",
        "Cancellation",
        {200: ("Cancelled.", "CommandedJob")},
        (*TAKEN, 409),
    ),
    Command(
        *("post", f"{JOB}/retry", "retryJob", "Run an ended job again"),
        "From the beginning, with all its attempts, under its own id; each end is taken up once. With a "
        "`payload`, which is checked against the contract, a new job with the options of the first is "
        "submitted, whose `origin` is that job; an Idempotency-Key makes this safe to repeat.",
        "Retry",
        {
            202: ("The job that will run.", "AcceptedJob"),
            200: ("The idempotency key was known: the first job.", "AcceptedJob"),
        },
        (*TAKEN, 409),
    ),
    Command(
        *("post", f"{JOB}/promote", "promoteJob", "Let a delayed job run now"),
        "Also one that waits for its next attempt.",
        "",
        {200: ("It waits for a worker.", "CommandedJob")},
        (404, 409),
    ),
    Command(
        *("patch", JOB, "rescheduleJob", "Give a job another time or priority"),
        "Before it has started. A delayed job goes before all lanes when it is due, so it gets a priority "
        "only together with a time.",
        "Change",
        {200: ("Done.", "CommandedJob")},
        (*TAKEN, 409),
    ),
    Command(
        *("post", f"{QUEUE}/pause", "pauseQueue", "Pause a queue"),
        "Its jobs are accepted and wait; what runs goes on.",
        "",
        {200: ("Paused.", "GovernedQueue")},
        (404,),
    ),
    Command(
        *("post", f"{QUEUE}/resume", "resumeQueue", "Resume a queue"),
        "",
        "",
        {200: ("Not paused.", "GovernedQueue")},
        (404,),
    ),
    Command(
        *("put", f"{QUEUE}/limits", "limitQueue", "Set the limits of a queue"),
        "All of them: what is left out or 0 is no limit. They hold over all workers.",
        "Limits",
        {200: ("Set.", "GovernedQueue")},
        TAKEN,
    ),
    Command(
        *("put", f"{QUEUE}/retention", "retainQueue", "Set how long a queue keeps ended jobs"),
        "In seconds by outcome; what is left out or 0 is as the settings say. Then a job goes with all its "
        "events, and its id answers 404. What still waits or runs always stays.",
        "Retention",
        {200: ("Set.", "GovernedQueue")},
        TAKEN,
    ),
    Command(
        *("post", f"{QUEUE}/drain", "drainQueue", "Cancel all that waits in a queue"),
        "Delayed jobs and retries too. What runs goes on; what is submitted meanwhile stays.",
        "",
        {200: ("How many were cancelled.", "Drained")},
        (404,),
    ),
    Command(
        *("post", "/bulk", "bulk", "Act on many jobs"),
        "On all jobs that fit the filter as it is asked for: retry, cancel, discard (of failed ones), "
        "promote, or reprioritize. The operation is itself a job, of queue `penstock`: it tells its "
        "progress, and cancelling it stops it. With `dry_run` nothing changes. An Idempotency-Key "
        "makes this safe to repeat.",
        "BulkRequest",
        {
            200: ("A dry run: how many would be acted on, and the first ten.", "Preview"),
            202: ("The operation.", "AcceptedJob"),
        },
        TAKEN,
    ),
    Command(
        *("post", "/redrive", "redrive", "Submit many jobs again"),
        "New jobs, made from all ended ones that fit the filter (`failed` ones unless it names a state) as "
        "it is asked for; their `origin` names the first. `patch`, a JSON merge patch (RFC 7396), changes "
        "their payloads, which are checked against the contracts; `rate` is in jobs per second. The redrive "
        "is itself a job, of queue `penstock`: it tells its progress, and cancelling it stops it. Asked for "
        "again under its `id`, one that was cancelled or has failed goes on, and no job is submitted twice. "
        "With `dry_run` nothing changes.",
        "RedriveRequest",
        {
            200: ("A dry run; or a redrive of this `id` that runs or is complete.", "RedrivePreview"),
            202: ("The redrive.", "AcceptedJob"),
        },
        (*TAKEN, 409),
    ),
    Command(
        *("get", "/workers", "listWorkers", "The workers, and what each runs"),
        "As of this moment: nothing of it is projected.",
        "",
        {200: ("By name.", "WorkerList")},
        (),
    ),
    Command(
        *("post", "/workers/{name}/drain", "drainWorker", "Ask a worker to leave"),
        "It takes no more jobs, finishes what it runs within its grace time, gives back the rest with no "
        "attempt spent, and exits. Whoever keeps it running (`penstock up`, systemd, Kubernetes) then starts "
        "a new one: this is how a worker is restarted from afar.",
        "",
        {202: ("It is told within half a second.", "DrainedWorker")},
        (404,),
    ),
)
