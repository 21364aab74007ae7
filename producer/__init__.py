"""Asking for work.

Read in this order:

    intake     from a request to a `submitted` event: check everything, encode once
    outlet     one script call for all who submit at the same time
    client     the Python client and its handles
    metrics    what a producer measures of itself
    commands   cancel, retry, promote, reschedule jobs; pause, limit, drain queues
    redrive    copies of ended jobs, changed, checked, and submitted at a rate
    sync       the same without an event loop
    flows      graphs of jobs, and the process that carries them out; a package of its own
    schedules  jobs by the clock, and the process that submits them; a package of its own
    auth, ratelimit, routes, control_routes, flow_routes, schedule_routes    the same over HTTP
"""

from penstock.producer.client import Handle, Producer
from penstock.producer.sync import SyncHandle, SyncProducer

__all__ = ["Handle", "Producer", "SyncHandle", "SyncProducer"]
