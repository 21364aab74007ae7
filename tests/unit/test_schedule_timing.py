"""Every tick of whole years, against going through all of their minutes, where clocks do odd things."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.producer.schedules.facts import Schedule
from penstock.producer.schedules.timing import ALIASES, after, cron_problem, following, newest, zone_problem

MINUTE_MS = 60_000
QUARTER_MS = 15 * MINUTE_MS
# A zone and a year in which its clocks change: by an hour, by half of one, by two, at midnight, by a day
# that was left out; and one whose clocks never change, at a quarter.
YEARS = [
    ("Europe/Berlin", 2026),
    ("America/New_York", 2024),
    ("Australia/Lord_Howe", 2024),
    ("Antarctica/Troll", 2024),
    ("Africa/Cairo", 2024),
    ("America/Sao_Paulo", 2018),
    ("Africa/Casablanca", 2024),
    ("Pacific/Apia", 2011),
    ("Asia/Kathmandu", 2024),
]
EXPRESSIONS = [
    "30 2 * * *",
    "0,30 2 * * *",
    "0 0 * * *",
    "15 1,2,3 * * *",
    "*/20 2 * * *",
    "30 * * * *",
    "0 */6 * * *",
    "5 0 * * FRI",
    "*/10 3 * * SUN",
    "7 4 L * *",
    "0 12 29 2 *",
    "10 0-3 1-7 * SUN",
]


def cron(expression: str, tz: str = "UTC", **more: Any) -> Schedule:
    return Schedule(queue="test", job=msgspec.Raw(b"{}"), cron=expression, tz=tz, **more)


def ms(*moment: int) -> int:
    return round(datetime(*moment, tzinfo=UTC).timestamp()) * 1000  # type: ignore[misc, arg-type]


class Year:
    """Every minute of a year by its local hour and minute; of each quarter of an hour (no clock changes
    within one) its local day and whether it comes a second time; and the jumps of the clock."""

    def __init__(self, tz: str, year: int) -> None:
        self.at: dict[tuple[int, int], list[int]] = defaultdict(list)
        self.quarters: dict[int, tuple[date, bool]] = {}
        self.jumps: list[tuple[int, list[datetime]]] = []
        zone, due = ZoneInfo(tz), None
        for quarter in range(ms(year, 1, 1), ms(year + 1, 1, 1), QUARTER_MS):
            aware = datetime.fromtimestamp(quarter / 1000, zone)
            local = aware.replace(tzinfo=None, fold=0)
            self.quarters[quarter] = local.date(), bool(aware.fold)
            for minute in range(15):
                self.at[local.hour, local.minute + minute].append(quarter + minute * MINUTE_MS)
            if due is not None and local > due:
                left_out = range(round((local - due).total_seconds()) // 60)
                self.jumps.append((quarter, [due + timedelta(minutes=minute) for minute in left_out]))
            due = local + timedelta(minutes=15)


@lru_cache(maxsize=2)
def year_of(tz: str, year: int) -> Year:
    return Year(tz, year)


@lru_cache(maxsize=200)
def reference(expression: str, tz: str, year: int) -> list[int]:
    """Vixie cron's rule, minute by minute; the expression itself is read by the library."""
    parsed, it = CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC)), year_of(tz, year)
    minute, hour = expression.split()[:2]
    is_time_of_day = minute[0] != "*" and hour[0] != "*"

    @cache
    def is_day(day: date) -> bool:
        return day.month in parsed.months and parsed.match_day(day)

    found = set()
    for time in product(parsed.hours, parsed.minutes):
        for tick in it.at[time]:
            day, again = it.quarters[tick // QUARTER_MS * QUARTER_MS]
            if is_day(day) and not (again and is_time_of_day):
                found.add(tick)
    for tick, left_out in it.jumps:
        times = (local for local in left_out if is_day(local.date()))
        if is_time_of_day and any(it.minute in parsed.minutes and it.hour in parsed.hours for it in times):
            found.add(tick)
    return sorted(found)


@pytest.mark.parametrize(("tz", "year"), YEARS)
def test_a_year_of_ticks_is_that_of_going_through_its_minutes(tz: str, year: int) -> None:
    for expression in EXPRESSIONS:
        told = newest(cron(expression, tz), ms(year, 1, 1) - 1, ms(year + 1, 1, 1) - 1, 10**6)
        assert told == reference(expression, tz, year), expression


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(YEARS[1:3]),
    st.sampled_from(EXPRESSIONS),
    st.integers(0, 366 * 24 * 60 * 60_000),
    st.integers(1, 5),
)
def test_from_any_moment_on_the_ticks_are_the_same(
    year: tuple[str, int], expression: str, moment: int, count: int
) -> None:
    begin, schedule = ms(year[1], 1, 1) + moment, cron(expression, year[0])
    ahead = following(schedule, begin, count)
    assert ahead[0] > begin
    assert ahead == sorted(set(ahead))
    assert newest(schedule, begin, ahead[-1], count) == ahead
    assert newest(schedule, begin, ahead[-1] - 1, count) == ahead[:-1]
    whole_year = reference(expression, *year)
    assert [it for it in ahead if it < ms(year[1] + 1, 1, 1)] == [it for it in whole_year if it > begin][
        :count
    ]


@pytest.mark.parametrize(
    ("expression", "day", "local"),
    [
        ("30 2 * * *", (2026, 3, 29), ["03:00+0200"]),
        ("0,15,30 2 * * *", (2026, 3, 29), ["03:00+0200"]),
        ("30 2 * * *", (2026, 10, 25), ["02:30+0200"]),
        ("30 1-3 * * *", (2026, 10, 25), ["01:30+0200", "02:30+0200", "03:30+0100"]),
        ("*/30 2 * * *", (2026, 3, 29), []),
        ("*/30 2 * * *", (2026, 10, 25), ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]),
    ],
)
def test_the_days_on_which_clocks_change_in_berlin(
    expression: str, day: tuple[int, int, int], local: list[str]
) -> None:
    zone = ZoneInfo("Europe/Berlin")
    begin = round(datetime(*day, tzinfo=zone).timestamp()) * 1000
    end = round((datetime(*day, tzinfo=zone) + timedelta(days=1)).timestamp()) * 1000
    told = newest(cron(expression, "Europe/Berlin"), begin - 1, end - 1, 100)
    assert [datetime.fromtimestamp(tick / 1000, zone).strftime("%H:%M%z") for tick in told] == local


@given(
    every=st.integers(1, 10**7),
    start=st.integers(0, 2**41),
    moment=st.integers(0, 2**42),
    count=st.integers(1, 20),
)
def test_an_interval_is_even_and_counts_from_its_start(
    every: int, start: int, moment: int, count: int
) -> None:
    schedule = Schedule(queue="test", job=msgspec.Raw(b"{}"), every=every, start=start)
    ticks = following(schedule, moment, count)
    assert all((tick - start) % (every * 1000) == 0 and tick >= start for tick in ticks)
    assert ticks[0] > moment
    assert ticks[0] - moment <= every * 1000 or ticks[0] == start
    assert newest(schedule, moment, ticks[-1], count) == ticks
    step = every * 1000
    last = [it for it in range(ticks[-1] - 2 * step, ticks[-1] + 1, step) if it >= start and it > 0]
    assert newest(schedule, 0, ticks[-1], 3) == last


def test_there_are_no_ticks_before_the_start_and_after_the_end() -> None:
    schedule = cron("0 12 * * *", start=ms(2026, 5, 1, 12), end=ms(2026, 5, 3, 12))
    days = [ms(2026, 5, day, 12) for day in (1, 2, 3)]
    assert following(schedule, 0, 10) == days
    assert newest(schedule, 0, ms(2027, 1, 1), 2) == days[1:]
    assert after(schedule, days[-1]) is None


def test_the_newest_of_a_million_ticks_are_found_from_the_end() -> None:
    """A year of minutes would take seconds from its beginning."""
    schedule = cron("* * * * *", "Europe/Berlin")
    until = ms(2026, 11, 24)
    assert newest(schedule, ms(1990, 1, 1), until, 2) == [until - MINUTE_MS, until]
    yearly = cron("@yearly")
    assert newest(yearly, ms(2000, 6, 1), ms(2003, 6, 1), 2) == [ms(2002, 1, 1), ms(2003, 1, 1)]


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_what_it_stands_for(alias: str) -> None:
    assert cron_problem(alias) == ""
    moment = ms(2026, 11, 24)
    assert following(cron(alias), moment, 3) == following(cron(ALIASES[alias]), moment, 3)


@pytest.mark.parametrize(
    "expression",
    ["* * * *", "* * * * * *", "60 * * * *", "0 0 31 2 *", "@reboot", "a b c d e", "*/0 0 * * *"],
)
def test_what_is_no_cron_expression_is_said_so(expression: str) -> None:
    assert cron_problem(expression)


@pytest.mark.parametrize("tz", ["Europe/Berlni", "../../etc/passwd", "", "/etc/localtime", "Europe", "\0"])
def test_what_is_no_time_zone_is_said_so(tz: str) -> None:
    assert zone_problem(tz)
    assert zone_problem("Europe/Berlin") == ""
