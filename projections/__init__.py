"""Knowing what happened: read models folded from the log, and the questions they answer.

Read in this order:

    histogram    durations as counts in buckets
    views        the read models, as pure folds
    store        the views in Redis, written by compare-and-set (core/lua/apply.lua)
    projector    the process that folds
    rebuild      the views made anew from the log
    details      one job's story, told from its events
    figures      what is told of a whole queue
    queries      the questions
    routes       the same over HTTP
"""
