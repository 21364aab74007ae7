"""Doing work.

Read in this order:

    handlers    which function does which job
    context     what a handler may ask of its worker
    attempts    one attempt, from delivery to outcome
    outcomes    the ways it can end, each as an event
    executors   threads and processes
    retry       when to try again
    outbox      what waits to be said in the next cycle
    partition   a worker's work on one partition: loop, listen, beat
    worker      the process: startup, main loop, shutdown
    metrics     what it measures of itself
    testing     the same executor without the loop, for tests
    rehearsal, rehearsal_stage   past jobs, run with other code and without effects
    whatif_past, whatif          past jobs, played again in virtual time with other settings

    email, image, ai    the handlers that come with Penstock
"""

from penstock.consumers.context import Context
from penstock.consumers.handlers import handler

__all__ = ["Context", "handler"]
