"""The vocabulary of Penstock. It imports no other room and knows no HTTP and no handler.

Read in this order:

    contracts    job types: payload, queue, default options
    positions    places in the log, job ids
    events       what is written, and how
    lifecycle    states, transitions, the one fold
    keys         every Redis key
    dispatch     the atomic scripts (lua/) behind typed calls
    log          reading the log
    append       facts that no script which moves jobs would write; ledgers
    endings      waiting for a job's end
    artifacts    the files jobs read and write
    telemetry    every metric: name, unit, labels, meaning (as a table: METRICS.md)
    probes       samples of them, taken when somebody asks
    tracing      the context of a trace, in events and out of them; logs that name it
    settings, connection, errors
    line         a connection of its own for who makes one call at a time
    waiting      waiting that ends when a process is asked to stop

The living design is README.md in this folder.
"""

from penstock.core.contracts import Backoff, Options, contract
from penstock.core.errors import Permanent, RetryLater, Unrehearsed

__all__ = ["Backoff", "Options", "Permanent", "RetryLater", "Unrehearsed", "contract"]
