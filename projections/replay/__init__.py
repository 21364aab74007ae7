"""The replay tool: what an event log can do and a queue without one cannot.

Read in this order:

    asking      what people ask for, checked
    span        which stretch of a log is meant
    words       an event in a few words
    telling     one job's story, event by event
    tail        the logs as they grow
    sieve       which events are looked for
    grep        a search through the log itself

    wire        the log outside of Redis, as lines that vouch for themselves
    redaction   what is taken out of them
    files       where they are kept
    forms       plain, compressed, or Parquet
    parquet     the last of these
    holds       what is read is not removed meanwhile
    exporting   a stretch of a log, or one job's story, to a file
    importing   files back into a log

    archive     a log kept outside of Redis, for ever
    copies      the snapshots of the figures that it has
    draft       a segment that is being filled
    archiver    the process that keeps it
    compacting  a day's small segments put together
    history     log and archive, read as one

    findings    what is not as the log says
    sides       two sets of views, told at one position
    comparing   the views in use against those that the log says
    rebuilding  a rebuild that says what it put right
    auditing    what the scripts keep beside the log (core/lua/audit.lua)
    standing    jobs against their lane entries (core/lua/mend.lua)
    keeping     how the queue is governed; keys that should end
    verify      all of these
"""
