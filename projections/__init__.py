"""Knowing what happened: read models folded from the log, and the questions they answer.

Read in this order:

    histogram    durations as counts in buckets
    tally        what is counted of the jobs of one type
    views        the read models, as pure folds
    base         what the trimmed part of a log had counted
    store        the views in Redis, written by compare-and-set (core/lua/apply.lua)
    snapshots    what had been counted now and then, to look back from
    folding      a log folded up to its end
    shadow       views made anew beside those in use (core/lua/shadow_*.lua)
    rebuild      the views made anew from the log
    projector    the process that folds
    trimming     a batch of ended jobs leaves the log (core/lua/trim.lua)
    retention    which, and when
    details      one job's story, told from its events
    figures      what is told of a whole queue
    scaling      how many workers a queue needs
    queries      the questions
    routes       the same over HTTP
    filters      the jobs that fit a filter
    bulk         acting on all of them

    moments            moments as people write them
    series             figures over time, for charts
    failures           failed jobs by error
    known              words to look for: types, tags, workers, errors
    children           the jobs made from a job
    search             a search through all jobs, told as it goes on
    past               a partition as it was
    travel             the questions, as of a moment
    exploring_routes   charts, failures, the search and the rest over HTTP

    metrics_types    what the views have counted, as samples for Prometheus
    metrics_server   what Redis says of itself
    metrics          all that a projector tells

    feed_cursor     where a reader is, over all logs, as one short text
    feed_tail       the growing end of one log, and whether one can go on from a place in it
    feed_hub        all logs, each read once
    feed_stream     what waits for one client
    feed_events     an event as a message, and who wants it
    feed            the exact feed
    feed_pulse      what happened lately, for a screen
    feed_beat       the same as messages, ten a second
    feed_condensed  the condensed feed
    feeds           both
    feed_metrics    who follows, and who did not keep up
    feed_routes     both over HTTP

    webhook_router   which events are for which endpoint
    webhooks         events become deliveries

    sealed    what is shown of sealed words
    tracing   when the views knew of a job, as spans
    replay    the log itself, read, searched, compared, taken out and put back (its own order: see there)
"""
