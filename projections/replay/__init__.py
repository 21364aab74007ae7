"""The replay tool: what an event log can do and a queue without one cannot. Read in this order:

words       an event in a few words
telling     one job's story, event by event
tail        the logs as they grow
"""
