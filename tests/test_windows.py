"""Where a sync starts and ends, and the windows in between: rules, then examples of them.

The rules are written against the standard library's own reckoning with zones, not against the
code's: whether clocks show a time twice is found by looking for the other instant that shows it.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tap_cometly.times import first_instant
from tap_cometly.windows import Window, WindowPlan, sync_range

SECOND, MINUTE, HOUR, DAY = 1, 60, 3600, 86_400
NEW_YORK, HAVANA, APIA = (
    ZoneInfo(name) for name in ("America/New_York", "America/Havana", "Pacific/Apia")
)
ZONES = (
    NEW_YORK,
    HAVANA,  # its clocks change at midnight, both ways
    APIA,  # skipped a whole day
    ZoneInfo("Asia/Kolkata"),
    ZoneInfo("Pacific/Auckland"),
    ZoneInfo("Australia/Lord_Howe"),  # its clocks change by half an hour
    ZoneInfo("Africa/Casablanca"),  # four changes a year
    ZoneInfo("UTC"),
)
unhurried = settings(deadline=None, max_examples=200)
LONG_AFTER = datetime(2100, 1, 1, tzinfo=UTC)


# What the standard library knows of a zone.


def at(text: str) -> datetime:
    """An instant from its ISO 8601 text, with an offset."""
    return datetime.fromisoformat(text).astimezone(UTC)


def texts(*instants: datetime) -> list[str]:
    """Instants as a person reads them best: in UTC, to the fraction of a second if there is one."""
    return [instant.astimezone(UTC).isoformat().replace("+00:00", "Z") for instant in instants]


def local(instant: datetime, zone: ZoneInfo) -> datetime:
    """What a zone's clocks show at an instant, without an offset."""
    return datetime.fromtimestamp(instant.timestamp(), zone).replace(tzinfo=None, fold=0)


def offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    """How far a zone's clocks are ahead of UTC at an instant."""
    return local(instant, zone) - local(instant, ZoneInfo("UTC"))


def shown_twice(instant: datetime, zone: ZoneInfo) -> bool:
    """Whether a zone's clocks show the time of an instant at another instant too."""
    shown = local(instant, zone)
    for hours in (-25, 25):
        other = instant + (offset(instant, zone) - offset(instant + timedelta(hours=hours), zone))
        if other != instant and local(other, zone) == shown:
            return True
    return False


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The first second at which a zone's calendar shows a day or a later one."""
    seconds = range(
        int(datetime.combine(day, time.min, UTC).timestamp()) - 2 * DAY,
        int(datetime.combine(day, time.min, UTC).timestamp()) + 2 * DAY,
    )
    found = bisect_left(seconds, day, key=lambda s: datetime.fromtimestamp(s, zone).date())
    return datetime.fromtimestamp(seconds[found], UTC)


def clock_changes(zone: ZoneInfo) -> list[datetime]:
    """Every instant from 2008 to 2026 at which a zone's clocks were put forward or back."""

    def utc_offset(second: int) -> timedelta | None:
        return datetime.fromtimestamp(second, zone).utcoffset()

    weeks = range(int(datetime(2008, 1, 1, tzinfo=UTC).timestamp()), 2**31, 7 * DAY)[: 18 * 52]
    changes = []
    for week, next_week in pairwise(weeks):
        old = utc_offset(week)
        if utc_offset(next_week) != old:
            seconds = range(week, next_week + 1)
            found = bisect_left(seconds, 1, key=lambda second: utc_offset(second) != old)
            changes.append(datetime.fromtimestamp(seconds[found], UTC))
    return changes


CLOCK_CHANGES = {zone: clock_changes(zone) for zone in ZONES}


def clear_of_repeated(boundary: datetime, window: Window, zone: ZoneInfo) -> datetime:
    """Where the contract has a window's boundary that would lie at some instant."""
    if not shown_twice(boundary, zone):
        return boundary
    change = min(CLOCK_CHANGES[zone], key=lambda change: abs(change - boundary))
    put_back_by = offset(change - timedelta(seconds=1), zone) - offset(change, zone)
    last_before = change - put_back_by - timedelta(seconds=1)
    return last_before if last_before > window.start else change + put_back_by


# Ranges and lengths to try the rules on.

zones = st.sampled_from(ZONES)


@st.composite
def moments(draw: st.DrawFn, zone: ZoneInfo) -> datetime:
    """Instants, most of them around a change of the clocks, many of them round."""
    changes = CLOCK_CHANGES[zone] or [datetime(2024, 2, 29, tzinfo=UTC)]
    change = draw(st.sampled_from(changes))
    unit = draw(st.sampled_from((SECOND, MINUTE, HOUR // 2, HOUR, DAY)))
    moment = change + timedelta(
        seconds=unit * draw(st.integers(-40, 20)) + draw(st.integers(-1, 1))
    )
    return day_start(local(moment, zone).date(), zone) if draw(st.integers(0, 3)) == 0 else moment


@st.composite
def ranges(draw: st.DrawFn, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Ranges of up to 40 days as a sync without a bookmark has them."""
    start = draw(moments(zone))
    unit = draw(st.sampled_from((MINUTE, HOUR, DAY)))
    seconds = unit * draw(st.integers(1, 40)) + draw(st.integers(0, 59))
    found = sync_range(
        start_date=start,
        end_date=start + timedelta(seconds=seconds),
        bookmark=None,
        lookback_days=0,
        now=LONG_AFTER,
        zone=zone,
    )
    assume(found is not None)
    assert found is not None
    return found


class Plan(NamedTuple):
    """All windows of a range."""

    zone: ZoneInfo
    windows: list[Window]
    start: datetime
    end: datetime


@st.composite
def fixed_plans(draw: st.DrawFn) -> Plan:
    """Windows of one fixed length."""
    zone = draw(zones)
    start, end = draw(ranges(zone))
    shares = st.integers(1, 40).map(lambda number: (end - start).total_seconds() / number)
    days = st.integers(1, 41).map(lambda number: float(number * DAY))
    length = max(MINUTE, draw(shares | days))
    return Plan(zone, all_windows(WindowPlan(start, end, zone, length)), start, end)


@st.composite
def adaptive_plans(draw: st.DrawFn) -> Plan:
    """Windows whose length followed some counts of contacts."""
    zone = draw(zones)
    start, end = draw(ranges(zone))
    counts = draw(st.lists(st.integers(0, 3_000_000), max_size=30))
    return Plan(zone, all_windows(WindowPlan(start, end, zone), counts), start, end)


plans = fixed_plans() | adaptive_plans()


def all_windows(plan: WindowPlan, counts: list[int] | None = None) -> list[Window]:
    """Every window of a plan, with so many contacts in the first ones and none in the others."""
    left, windows = list(counts or []), []
    while window := plan.next_window():
        windows.append(window)
        plan.learn(window, left.pop(0) if left else 0)
    return windows


def halvings(
    window: Window, zone: ZoneInfo, times: int = 4
) -> list[tuple[Window, tuple[Window, Window]]]:
    """A window with its halves, and those with theirs, so many times over."""
    halves = window.halves(zone)
    if halves is None or not times:
        return []
    further = [pair for half in halves for pair in halvings(half, zone, times - 1)]
    return [(window, halves), *further]


# Rules of windows.


@unhurried
@given(plans)
def test_windows_run_from_start_to_end_in_order_without_a_gap(plan: Plan) -> None:
    boundaries = [plan.start, *(window.end for window in plan.windows)]

    assert [window.start for window in plan.windows] == boundaries[:-1]
    assert boundaries[-1] == plan.end


@unhurried
@given(plans)
def test_every_window_is_a_second_or_longer(plan: Plan) -> None:
    assert all(window.end - window.start >= timedelta(seconds=1) for window in plan.windows)


@unhurried
@given(plans)
def test_boundaries_are_whole_seconds(plan: Plan) -> None:
    assert all(window.end.microsecond == 0 for window in plan.windows)


@unhurried
@given(plans)
def test_no_boundary_has_a_time_that_clocks_show_twice(plan: Plan) -> None:
    boundaries = [plan.start, *(window.end for window in plan.windows)]

    assert [one for one in boundaries if shown_twice(one, plan.zone)] == []


@unhurried
@given(plans)
def test_windows_of_days_end_at_the_midnight_so_many_calendar_days_on(plan: Plan) -> None:
    for window in plan.windows:
        if window.nominal_seconds >= DAY:
            day = local(window.start, plan.zone).date() + timedelta(window.nominal_seconds // DAY)
            midnight = day_start(day, plan.zone)
            assert window.end == min(clear_of_repeated(midnight, window, plan.zone), plan.end)


@unhurried
@given(plans)
def test_shorter_windows_last_their_whole_minutes(plan: Plan) -> None:
    for window in plan.windows:
        if window.nominal_seconds < DAY:
            minutes_on = window.start + timedelta(minutes=int(window.nominal_seconds // MINUTE))
            assert window.end == min(clear_of_repeated(minutes_on, window, plan.zone), plan.end)


@unhurried
@given(plans)
def test_halves_meet_in_the_window_where_clocks_show_the_time_once(plan: Plan) -> None:
    for window in plan.windows[:3]:
        for whole, (first, second) in halvings(window, plan.zone):
            assert (first.start, second.end) == (whole.start, whole.end)
            assert whole.start < first.end == second.start < whole.end
            assert not shown_twice(first.end, plan.zone)


@unhurried
@given(plans)
def test_halves_have_half_the_nominal_length(plan: Plan) -> None:
    for whole, halves in halvings(plan.windows[0], plan.zone):
        assert [half.nominal_seconds for half in halves] == [whole.nominal_seconds / 2] * 2


@unhurried
@given(plans)
def test_halves_are_equal_unless_the_middle_is_in_repeated_time(plan: Plan) -> None:
    for whole, (first, _) in halvings(plan.windows[0], plan.zone):
        middle = whole.start + timedelta(seconds=whole.seconds // 2)
        assert first.end == clear_of_repeated(middle, whole, plan.zone)


# Rules of adaptive lengths.


def contract_length(nominal: Fraction, contacts: int) -> Fraction:
    """The next nominal length, as the contract has it."""
    wanted = nominal * Fraction(100_000, contacts) if contacts else nominal * 10
    wanted = min(max(wanted, nominal / 10), nominal * 10)
    return min(max(wanted, Fraction(HOUR)), Fraction(90 * DAY))


@unhurried
@given(zones, st.lists(st.integers(0, 3_000_000), min_size=1, max_size=30))
def test_adaptive_lengths_follow_the_last_read_window(zone: ZoneInfo, counts: list[int]) -> None:
    plan = WindowPlan(datetime(2001, 1, 1, tzinfo=UTC), LONG_AFTER, zone)
    expected = Fraction(DAY)
    for contacts in counts:
        window = plan.next_window()
        assert window is not None
        assert window.nominal_seconds == pytest.approx(float(expected), rel=1e-9)
        plan.learn(window, contacts)
        expected = contract_length(expected, contacts)


@pytest.mark.parametrize(
    ("contacts", "hours"),
    [
        pytest.param(100_000, 24, id="as-many-as-aimed-at"),
        pytest.param(200_000, 12, id="twice-as-many"),
        pytest.param(50_000, 48, id="half-as-many"),
        pytest.param(10_000, 240, id="a-tenth"),
        pytest.param(9_999, 240, id="at-most-tenfold"),
        pytest.param(0, 240, id="none"),
        pytest.param(1_000_000, 2.4, id="ten-times-as-many"),
        pytest.param(50_000_000, 2.4, id="at-least-a-tenth"),
    ],
)
def test_after_a_day_of_so_many_contacts_the_length_is(contacts: int, hours: float) -> None:
    plan = WindowPlan(at("2024-01-01T00:00:00Z"), LONG_AFTER, ZoneInfo("UTC"))
    first, _ = plan.next_window(), plan.next_window()
    assert first is not None

    plan.learn(first, contacts)

    third = plan.next_window()
    assert third is not None
    assert third.nominal_seconds == pytest.approx(hours * HOUR)


def test_adaptive_lengths_start_with_one_day_and_stay_within_an_hour_and_90_days() -> None:
    start, utc = at("2024-01-01T00:00:00Z"), ZoneInfo("UTC")
    quiet, busy = (
        WindowPlan(start, LONG_AFTER, utc),
        WindowPlan(start, start + timedelta(days=2), utc),
    )

    growing = [window.nominal_seconds / DAY for window in all_windows(quiet)]
    shrinking = [window.nominal_seconds / HOUR for window in all_windows(busy, [10**7] * 99)]

    assert growing[:4] == [1, 10, 90, 90]
    assert shrinking[:4] == pytest.approx([24, 2.4, 1, 1])


def test_windows_planned_before_anything_is_read_keep_the_length() -> None:
    plan = WindowPlan(at("2024-01-01T00:00:00Z"), LONG_AFTER, ZoneInfo("UTC"))

    ahead = [plan.next_window() for _ in range(3)]

    assert [window and window.seconds for window in ahead] == [DAY, DAY, DAY]


def test_a_window_that_a_midnight_cut_short_tells_by_its_nominal_length() -> None:
    plan = WindowPlan(at("2024-01-01T23:00:00Z"), LONG_AFTER, ZoneInfo("UTC"))
    short = plan.next_window()
    assert short is not None
    assert short.seconds == HOUR

    plan.learn(short, 50_000)

    following = plan.next_window()
    assert following is not None
    assert following.seconds == 2 * DAY


def test_a_half_tells_by_half_the_nominal_length() -> None:
    plan = WindowPlan(at("2024-01-01T00:00:00Z"), LONG_AFTER, ZoneInfo("UTC"))
    window = plan.next_window()
    assert window is not None
    halves = window.halves(ZoneInfo("UTC"))
    assert halves is not None

    plan.learn(halves[1], 100_000)

    following = plan.next_window()
    assert following is not None
    assert following.seconds == 12 * HOUR


def test_a_fixed_length_follows_nothing() -> None:
    start = at("2024-01-01T00:00:00Z")
    plan = WindowPlan(start, start + timedelta(days=10), ZoneInfo("UTC"), 2.0 * DAY)

    lengths = [window.seconds for window in all_windows(plan, [0, 10**7, 5])]

    assert lengths == [2 * DAY] * 5


# Examples of windows.


def bounds(zone: ZoneInfo, start: str, end: str, seconds: float) -> list[str]:
    """Every boundary of a range with windows of a fixed length, in UTC."""
    windows = all_windows(WindowPlan(at(start), at(end), zone, seconds))
    return texts(at(start), *(window.end for window in windows))


def test_days_in_india_end_at_half_past_six_in_the_evening_of_utc() -> None:
    assert bounds(
        ZoneInfo("Asia/Kolkata"), "2024-01-14T12:00:00Z", "2024-01-16T12:00:00Z", DAY
    ) == [
        "2024-01-14T12:00:00Z",
        "2024-01-14T18:30:00Z",
        "2024-01-15T18:30:00Z",
        "2024-01-16T12:00:00Z",
    ]


def test_a_day_and_a_half_is_cut_to_a_day() -> None:
    assert bounds(ZoneInfo("UTC"), "2024-01-01T00:00:00Z", "2024-01-03T00:00:00Z", 1.5 * DAY) == [
        "2024-01-01T00:00:00Z",
        "2024-01-02T00:00:00Z",
        "2024-01-03T00:00:00Z",
    ]


def test_a_minute_and_a_half_is_cut_to_a_minute() -> None:
    assert bounds(ZoneInfo("UTC"), "2024-01-01T00:00:30Z", "2024-01-01T00:02:00Z", 90) == [
        "2024-01-01T00:00:30Z",
        "2024-01-01T00:01:30Z",
        "2024-01-01T00:02:00Z",
    ]


def test_days_are_calendar_days_of_23_and_25_hours_when_clocks_change() -> None:
    spring = bounds(NEW_YORK, "2024-03-10T05:00:00Z", "2024-03-11T04:00:00Z", DAY)
    autumn = bounds(NEW_YORK, "2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z", DAY)

    assert (len(spring), len(autumn)) == (2, 2)


def test_hours_pass_over_the_hour_that_new_york_repeats() -> None:
    # From 1:00 to 2:00 on 3 November clocks show every time twice: 05:00 to 07:00 in UTC.
    assert bounds(NEW_YORK, "2024-11-03T04:00:00Z", "2024-11-03T09:00:00Z", HOUR) == [
        "2024-11-03T04:00:00Z",
        "2024-11-03T04:59:59Z",  # back, to the last second before the stretch
        "2024-11-03T07:00:00Z",  # not back again: to the first second after it
        "2024-11-03T08:00:00Z",
        "2024-11-03T09:00:00Z",
    ]


def test_half_hours_pass_over_the_half_hour_that_lord_howe_repeats() -> None:
    # From 1:30 to 2:00 on 7 April: 14:30 to 15:30 in UTC.
    zone = ZoneInfo("Australia/Lord_Howe")
    assert bounds(zone, "2024-04-06T14:00:00Z", "2024-04-06T16:00:00Z", HOUR / 2) == [
        "2024-04-06T14:00:00Z",
        "2024-04-06T14:29:59Z",
        "2024-04-06T15:30:00Z",
        "2024-04-06T16:00:00Z",
    ]


def test_a_midnight_that_havana_repeats_is_no_boundary() -> None:
    # Clocks go from 1:00 back to 0:00: the first hour of 3 November is 04:00 to 06:00 in UTC.
    assert bounds(HAVANA, "2024-11-02T04:00:00Z", "2024-11-05T05:00:00Z", DAY) == [
        "2024-11-02T04:00:00Z",
        "2024-11-03T03:59:59Z",
        "2024-11-03T06:00:00Z",
        "2024-11-04T05:00:00Z",
        "2024-11-05T05:00:00Z",
    ]


@pytest.mark.parametrize(
    ("zone", "day", "first_second"),
    [
        ("America/Havana", "2024-03-10", "2024-03-10T05:00:00Z"),
        ("Africa/Cairo", "2024-04-26", "2024-04-25T22:00:00Z"),
        ("Asia/Beirut", "2024-03-31", "2024-03-30T22:00:00Z"),
    ],
)
def test_a_skipped_midnight_is_the_first_instant_of_its_day(
    zone: str, day: str, first_second: str
) -> None:
    midnight = datetime.fromisoformat(day)

    assert texts(first_instant(midnight, ZoneInfo(zone))) == [first_second]


def test_a_skipped_time_is_the_instant_of_the_change() -> None:
    half_past_two = datetime(2024, 3, 10, 2, 30)  # noqa: DTZ001 - what a clock shows

    assert texts(first_instant(half_past_two, NEW_YORK)) == ["2024-03-10T07:00:00Z"]


def test_a_repeated_time_is_the_earlier_one() -> None:
    half_past_one = datetime(2024, 11, 3, 1, 30)  # noqa: DTZ001 - what a clock shows

    assert texts(first_instant(half_past_one, NEW_YORK)) == ["2024-11-03T05:30:00Z"]


def test_a_day_whose_midnight_is_skipped_starts_at_its_first_instant() -> None:
    assert bounds(HAVANA, "2024-03-09T05:00:00Z", "2024-03-11T04:00:00Z", DAY) == [
        "2024-03-09T05:00:00Z",
        "2024-03-10T05:00:00Z",  # clocks show 1:00
        "2024-03-11T04:00:00Z",
    ]


def test_the_day_that_samoa_skipped_has_no_window() -> None:
    # 29 December 2011 was followed by 31 December.
    assert bounds(APIA, "2011-12-29T10:00:00Z", "2012-01-01T10:00:00Z", DAY) == [
        "2011-12-29T10:00:00Z",
        "2011-12-30T10:00:00Z",
        "2011-12-31T10:00:00Z",
        "2012-01-01T10:00:00Z",
    ]


def test_a_middle_in_repeated_time_moves_to_the_last_second_before() -> None:
    window = Window(at("2024-11-03T04:00:00Z"), at("2024-11-03T08:00:00Z"), 4 * HOUR)

    halves = window.halves(NEW_YORK)

    assert halves is not None
    assert texts(halves[0].end) == ["2024-11-03T04:59:59Z"]


def test_a_middle_in_repeated_time_that_starts_the_window_moves_past_it() -> None:
    window = Window(at("2024-11-03T04:59:59Z"), at("2024-11-03T08:00:00Z"), 3 * HOUR)

    halves = window.halves(NEW_YORK)

    assert halves is not None
    assert texts(halves[0].end) == ["2024-11-03T07:00:00Z"]


def test_a_window_of_nothing_but_repeated_time_has_no_halves() -> None:
    window = Window(at("2024-11-03T04:59:59Z"), at("2024-11-03T07:00:00Z"), HOUR)

    assert window.halves(NEW_YORK) is None


def test_a_window_of_one_second_has_no_halves() -> None:
    window = Window(at("2024-01-01T00:00:00Z"), at("2024-01-01T00:00:01Z"), 60)

    assert window.halves(NEW_YORK) is None


# The range of a sync.


def span(  # noqa: PLR0913 - as many as a sync has
    *,
    start_date: str = "2024-01-01T00:00:00Z",
    end_date: str | None = None,
    bookmark: str | None = None,
    lookback_days: float = 0,
    now: str = "2025-01-01T00:00:00Z",
    zone: ZoneInfo = NEW_YORK,
) -> list[str] | None:
    """The start and the end of a sync in UTC, or None where there is nothing to do."""
    found = sync_range(
        start_date=at(start_date),
        end_date=at(end_date) if end_date else None,
        bookmark=at(bookmark) if bookmark else None,
        lookback_days=lookback_days,
        now=at(now),
        zone=zone,
    )
    return None if found is None else texts(*found)


def start_of(bookmark: str, lookback_days: float, zone: ZoneInfo = NEW_YORK) -> str:
    """The start of a sync with a bookmark long after start_date, in UTC."""
    found = span(
        start_date="2000-01-01T00:00:00Z",
        bookmark=bookmark,
        lookback_days=lookback_days,
        now="2100-01-01T00:00:00Z",
        zone=zone,
    )
    assert found is not None
    return found[0]


def test_without_a_bookmark_a_sync_runs_from_start_date_to_five_minutes_ago() -> None:
    assert span(now="2024-06-01T12:00:00Z") == ["2024-01-01T00:00:00Z", "2024-06-01T11:55:00Z"]


def test_without_a_bookmark_there_is_no_lookback() -> None:
    assert span(lookback_days=7) == span(lookback_days=0)


def test_the_end_is_a_whole_second() -> None:
    assert span(now="2024-06-01T12:00:00.999999Z") == [
        "2024-01-01T00:00:00Z",
        "2024-06-01T11:55:00Z",
    ]


@pytest.mark.parametrize(
    ("end_date", "end"),
    [
        ("2024-05-01T00:00:00Z", "2024-05-01T00:00:00Z"),
        ("2024-06-01T11:54:59Z", "2024-06-01T11:54:59Z"),
        ("2024-06-01T11:55:01Z", "2024-06-01T11:55:00Z"),
        ("2999-01-01T00:00:00Z", "2024-06-01T11:55:00Z"),
    ],
)
def test_the_end_is_end_date_or_five_minutes_ago_whichever_is_earlier(
    end_date: str, end: str
) -> None:
    assert span(end_date=end_date, now="2024-06-01T12:00:00Z") == ["2024-01-01T00:00:00Z", end]


def test_without_lookback_a_sync_starts_at_its_bookmark() -> None:
    assert start_of("2024-05-10T17:23:45Z", 0) == "2024-05-10T17:23:45Z"


@pytest.mark.parametrize(
    ("lookback_days", "start"),
    [
        pytest.param(1, "2024-05-09T04:00:00Z", id="yesterday's-midnight"),
        pytest.param(7, "2024-05-03T04:00:00Z", id="a-week-ago"),
        pytest.param(0.5, "2024-05-10T04:00:00Z", id="the-same-day-still"),
        pytest.param(0.6, "2024-05-09T04:00:00Z", id="the-day-before"),
        pytest.param(1.6, "2024-05-08T04:00:00Z", id="a-day-and-a-part"),
        pytest.param(0.3333333, "2024-05-10T04:00:00Z", id="a-part-that-is-no-whole-second"),
        pytest.param(1e-9, "2024-05-10T04:00:00Z", id="next-to-nothing"),
    ],
)
def test_with_lookback_a_sync_starts_at_the_local_midnight_before(
    lookback_days: float, start: str
) -> None:
    ten_past_one_in_the_afternoon = "2024-05-10T17:10:00Z"

    assert start_of(ten_past_one_in_the_afternoon, lookback_days) == start


def test_a_bookmark_at_a_midnight_looks_back_to_a_midnight_exactly() -> None:
    assert start_of("2024-05-10T04:00:00Z", 1) == "2024-05-09T04:00:00Z"


@pytest.mark.parametrize(
    ("bookmark", "start"),
    [
        ("2024-03-11T04:00:00Z", "2024-03-10T05:00:00Z"),  # a day of 23 hours
        ("2024-11-04T05:00:00Z", "2024-11-03T04:00:00Z"),  # a day of 25 hours
    ],
)
def test_whole_days_of_lookback_are_calendar_days(bookmark: str, start: str) -> None:
    assert start_of(bookmark, 1) == start


def test_a_part_of_a_day_is_looked_back_in_elapsed_time() -> None:
    # The second 1:30 of 3 November; two hours before it clocks showed 0:30, the first 1:30 less
    # two hours is the day before.
    assert start_of("2024-11-03T06:30:00Z", 2 / 24) == "2024-11-03T04:00:00Z"


@pytest.mark.parametrize("lookback_days", [400, 100_000, 10.0**15, 1.7e308])
def test_no_lookback_leads_before_start_date(lookback_days: float) -> None:
    found = span(
        start_date="2024-01-01T17:00:00Z",
        bookmark="2024-05-10T00:00:00Z",
        lookback_days=lookback_days,
    )

    assert found is not None
    assert found[0] == "2024-01-01T17:00:00Z"


def test_a_start_date_after_the_bookmark_is_the_start() -> None:
    found = span(
        start_date="2024-06-01T00:00:00Z", bookmark="2024-05-01T00:00:00Z", lookback_days=3
    )

    assert found is not None
    assert found[0] == "2024-06-01T00:00:00Z"


def test_a_start_date_put_earlier_moves_no_start_of_a_sync_with_a_bookmark() -> None:
    starts = {
        (span(start_date=start_date, bookmark="2024-05-10T17:10:00Z", lookback_days=1) or [])[0]
        for start_date in ("2024-05-01T00:00:00Z", "2024-01-01T00:00:00Z", "2000-01-01T00:00:00Z")
    }

    assert starts == {"2024-05-09T04:00:00Z"}


@pytest.mark.parametrize("lookback_days", [0, 1, 30])
@pytest.mark.parametrize("bookmark", ["2024-05-01T00:00:00Z", "2024-05-01T00:00:01Z"])
def test_with_a_bookmark_at_or_after_the_end_there_is_nothing_to_do(
    bookmark: str, lookback_days: float
) -> None:
    end_date = "2024-05-01T00:00:00Z"

    assert span(end_date=end_date, bookmark=bookmark, lookback_days=lookback_days) is None


def test_a_bookmark_a_second_before_the_end_leaves_a_second_to_do() -> None:
    assert span(end_date="2024-05-01T00:00:00Z", bookmark="2024-04-30T23:59:59Z") == [
        "2024-04-30T23:59:59Z",
        "2024-05-01T00:00:00Z",
    ]


@pytest.mark.parametrize("start_date", ["2024-05-01T00:00:00Z", "2024-05-02T00:00:00Z"])
def test_with_a_start_not_before_the_end_there_is_nothing_to_do(start_date: str) -> None:
    assert span(start_date=start_date, now="2024-05-01T00:05:00Z") is None


def test_an_end_in_repeated_time_moves_back_to_the_last_second_before() -> None:
    for end_date in ("2024-11-03T05:00:00Z", "2024-11-03T06:00:00Z", "2024-11-03T06:59:59Z"):
        assert span(end_date=end_date) == ["2024-01-01T00:00:00Z", "2024-11-03T04:59:59Z"]


def test_the_first_second_after_repeated_time_is_a_good_end() -> None:
    assert span(end_date="2024-11-03T07:00:00Z") == ["2024-01-01T00:00:00Z", "2024-11-03T07:00:00Z"]


def test_a_start_in_repeated_time_moves_back_to_the_last_second_before() -> None:
    for start_date in ("2024-11-03T05:00:00Z", "2024-11-03T06:59:59Z"):
        assert span(start_date=start_date, end_date="2024-11-04T05:00:00Z") == [
            "2024-11-03T04:59:59Z",
            "2024-11-04T05:00:00Z",
        ]


def test_a_lookback_to_a_repeated_midnight_moves_back_to_the_last_second_before() -> None:
    assert start_of("2024-11-03T15:00:00Z", 0.01, HAVANA) == "2024-11-03T03:59:59Z"


def test_a_lookback_to_a_skipped_midnight_is_the_first_instant_of_that_day() -> None:
    assert start_of("2024-03-11T15:00:00Z", 1, HAVANA) == "2024-03-10T05:00:00Z"


def test_a_bookmark_in_repeated_time_waits_for_an_end_beyond_it() -> None:
    for days in (0, 1):
        end_date = "2024-11-03T06:50:00Z"
        assert span(bookmark="2024-11-03T05:10:00Z", end_date=end_date, lookback_days=days) is None


@unhurried
@given(zones, st.data())
def test_the_ends_of_a_range_move_only_back_and_only_out_of_repeated_time(
    zone: ZoneInfo, data: st.DataObject
) -> None:
    start, end = sorted((data.draw(moments(zone)), data.draw(moments(zone))))

    found = sync_range(
        start_date=start, end_date=end, bookmark=None, lookback_days=0, now=LONG_AFTER, zone=zone
    )

    for asked, got in zip((start, end), found or (), strict=False):
        if shown_twice(asked, zone):
            assert got < asked
            assert not shown_twice(got, zone)
            assert shown_twice(got + timedelta(seconds=1), zone)
        else:
            assert got == asked


@unhurried
@given(zones, st.data(), st.integers(1, 60))
def test_whole_days_of_lookback_start_with_that_calendar_day(
    zone: ZoneInfo, data: st.DataObject, days: int
) -> None:
    bookmark = data.draw(moments(zone))
    midnight = day_start(local(bookmark, zone).date() - timedelta(days), zone)

    found = start_of(bookmark.isoformat(), days, zone)

    if shown_twice(midnight, zone):
        assert midnight - timedelta(hours=2) < at(found) < midnight
        assert shown_twice(at(found) + timedelta(seconds=1), zone)
    else:
        assert at(found) == midnight


@unhurried
@given(zones, st.data(), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_part_of_a_day_of_lookback_starts_with_the_day_of_that_moment(
    zone: ZoneInfo, data: st.DataObject, part: float
) -> None:
    bookmark = data.draw(moments(zone))
    midnight = day_start(local(bookmark - timedelta(days=part), zone).date(), zone)

    found = start_of(bookmark.isoformat(), part, zone)

    if shown_twice(midnight, zone):
        assert midnight - timedelta(hours=2) < at(found) < midnight
    else:
        assert at(found) == midnight
