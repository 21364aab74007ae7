"""Jobs on a schedule: cron expressions, intervals, time zones.

Read in this order:

    facts      the events that schedules are made of
    timing     when a schedule ticks
    fold       from events to the schedules as they stand
    deciding   what becomes of ticks whose time has come
    ledger     reading the events, and the one way to add to them
    asking     from a request to a schedule, everything checked
    schedules  setting and reading them
    declaring  schedules in code
    scheduler  the process that submits
    keeping    how the ledger stays short
"""

from penstock.producer.schedules.asking import ScheduleRequest
from penstock.producer.schedules.declaring import schedule
from penstock.producer.schedules.schedules import Schedules

__all__ = ["ScheduleRequest", "Schedules", "schedule"]
