"""The range of a sync, and its windows.

Expected values come from the standard library's zones, not from the tap's own wall-clock code: a
time is repeated if another instant has the same wall-clock time.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tap_cometly.windows import Window, WindowPlan, sync_range

MINUTE, HOUR, DAY = 60, 3600, 86_400
NEW_YORK, HAVANA, APIA, LORD_HOWE, KOLKATA, UTC_ZONE = ZONES = (
    ZoneInfo("America/New_York"),
    ZoneInfo("America/Havana"),  # its clocks change at midnight, both ways
    ZoneInfo("Pacific/Apia"),  # skipped a whole day
    ZoneInfo("Australia/Lord_Howe"),  # its clocks change by half an hour
    ZoneInfo("Asia/Kolkata"),
    ZoneInfo("UTC"),
)
END_OF_TIME = datetime(2100, 1, 1, tzinfo=UTC)
many_examples = settings(deadline=None, max_examples=150)


def at(text: str) -> datetime:
    """An instant from text like 2024-01-01T00:00:00Z."""
    return datetime.fromisoformat(text)


def text(instant: datetime) -> str:
    """An instant as text like 2024-01-01T00:00:00Z."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def local(instant: datetime, zone: ZoneInfo) -> datetime:
    """The wall-clock time of an instant in a zone."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def shown_twice(instant: datetime, zone: ZoneInfo) -> bool:
    """Whether a zone's clocks show the time of an instant at another instant too."""

    def offset(moment: datetime) -> timedelta:
        return moment.astimezone(zone).utcoffset() or timedelta()

    others = (
        instant + (offset(instant) - offset(instant + timedelta(hours=hours)))
        for hours in (-25, 25)
    )
    return any(other != instant and local(other, zone) == local(instant, zone) for other in others)


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The first second at which a zone's calendar shows a day or a later one."""
    noon = int(datetime.combine(day, time(12), UTC).timestamp())
    seconds = range(noon - 2 * DAY, noon + 2 * DAY)
    found = bisect_left(seconds, day, key=lambda s: datetime.fromtimestamp(s, zone).date())
    return datetime.fromtimestamp(seconds[found], UTC)


def clock_changes(zone: ZoneInfo) -> list[datetime]:
    """The instants from 2011 to 2025 at which a zone's clocks change."""
    weeks = range(int(datetime(2011, 1, 1, tzinfo=UTC).timestamp()), 1_767_000_000, 7 * DAY)
    changes = []
    for week, next_week in pairwise(weeks):
        old, new = (datetime.fromtimestamp(one, zone).utcoffset() for one in (week, next_week))
        if old != new:
            seconds = range(week, next_week + 1)
            found = bisect_left(
                seconds, 1, key=lambda s: datetime.fromtimestamp(s, zone).utcoffset() != old
            )
            changes.append(datetime.fromtimestamp(seconds[found], UTC))
    return changes or [datetime(2024, 2, 29, tzinfo=UTC)]


CLOCK_CHANGES = {zone: clock_changes(zone) for zone in ZONES}
zones = st.sampled_from(ZONES)


@st.composite
def moments(draw: st.DrawFn, zone: ZoneInfo) -> datetime:
    """Instants, mostly around a clock change, often round ones."""
    change = draw(st.sampled_from(CLOCK_CHANGES[zone]))
    unit = draw(st.sampled_from((1, MINUTE, HOUR // 2, HOUR, DAY)))
    seconds = unit * draw(st.integers(-40, 20)) + draw(st.integers(-1, 1))
    moment = change + timedelta(seconds=seconds)
    return day_start(local(moment, zone).date(), zone) if draw(st.booleans()) else moment


class Planned(NamedTuple):
    """All windows of a range."""

    zone: ZoneInfo
    start: datetime
    end: datetime
    windows: list[Window]


@st.composite
def plans(draw: st.DrawFn) -> Planned:
    """The windows of a range of up to 40 days, fixed or adaptive, some of them halved."""
    zone = draw(zones)
    start = draw(moments(zone))
    unit = draw(st.sampled_from((MINUTE, HOUR, DAY)))
    end = start + timedelta(seconds=unit * draw(st.integers(1, 40)) + draw(st.integers(0, 59)))
    found = span(start_date=start, end_date=end, zone=zone)
    assume(found is not None)
    assert found is not None
    fixed = draw(st.none() | st.integers(1, 40).map(lambda n: (end - start).total_seconds() / n))
    plan = WindowPlan(*found, zone, max(fixed, MINUTE) if fixed else None)
    windows = []
    while window := plan.next_window():
        parts = [window]
        while draw(st.integers(0, 9)) == 0 and (halves := plan.halve(parts[-1])):
            parts[-1:] = halves
        windows += parts
        plan.learn(window, draw(st.integers(0, 3_000_000)), draw(st.floats(0, 1)))
    return Planned(zone, *found, windows)


def span(**known: object) -> tuple[datetime, datetime] | None:
    """The range of a sync, by default in New York, without a bookmark, long ago."""
    defaults = {
        "start_date": at("2024-01-01T00:00:00Z"),
        "end_date": None,
        "bookmark": None,
        "lookback_days": 0,
        "now": END_OF_TIME,
        "zone": NEW_YORK,
    }
    return sync_range(**(defaults | known))  # type: ignore[arg-type]


class TestAllWindows:
    """Property tests: windows of any range, fixed or adaptive, and halves."""

    @many_examples
    @given(plans())
    def test_windows_cover_the_range_without_a_gap(self, planned: Planned) -> None:
        ends = [window.end for window in planned.windows]

        assert [window.start for window in planned.windows] == [planned.start, *ends[:-1]]
        assert ends[-1] == planned.end

    @many_examples
    @given(plans())
    def test_each_window_lasts_a_whole_number_of_seconds(self, planned: Planned) -> None:
        lengths = [window.end - window.start for window in planned.windows]

        assert min(lengths) >= timedelta(seconds=1)
        assert {length.microseconds for length in lengths} == {0}

    @many_examples
    @given(plans())
    def test_no_boundary_is_a_time_that_clocks_show_twice(self, planned: Planned) -> None:
        boundaries = [planned.start, *(window.end for window in planned.windows)]

        assert [text(one) for one in boundaries if shown_twice(one, planned.zone)] == []


def boundaries(zone: ZoneInfo, start: str, end: str, seconds: float) -> list[str]:
    """The boundaries of a range in windows of a fixed length."""
    plan = WindowPlan(at(start), at(end), zone, seconds)
    found = [start]
    while window := plan.next_window():
        found.append(text(window.end))
    return found


class TestBoundaries:
    """Where windows of a given length end."""

    @pytest.mark.parametrize(
        ("zone", "seconds", "expected"),
        [
            # Days end at local midnights; lengths are cut to whole days or minutes.
            (KOLKATA, DAY, "01-14T12:00:00 01-14T18:30:00 01-15T18:30:00 01-16T12:00:00"),
            (UTC_ZONE, 1.99 * DAY, "01-01T00:00:00 01-02T00:00:00 01-03T00:00:00"),
            (UTC_ZONE, 90, "01-01T00:00:30 01-01T00:01:30 01-01T00:02:30"),
            # Not at a midnight less than an hour after the start.
            (UTC_ZONE, DAY, "01-01T23:00:01 01-03T00:00:00 01-03T12:00:00"),
            (UTC_ZONE, DAY, "01-01T23:00:00 01-02T00:00:00 01-03T00:00:00"),
            # A day of 23 hours.
            (NEW_YORK, DAY, "03-09T05:00:00 03-10T05:00:00 03-11T04:00:00"),
            # Times from 1:00 to 2:00 repeat: a boundary in them moves before or after them.
            (NEW_YORK, HOUR, "11-03T04:00:00 11-03T04:59:59 11-03T07:00:00 11-03T08:00:00"),
            # Times from 1:30 to 2:00 repeat.
            (LORD_HOWE, HOUR / 2, "04-06T14:00:00 04-06T14:29:59 04-06T15:30:00 04-06T16:00:00"),
            # Times from 0:00 to 1:00 repeat; the midnight a second after the boundary is skipped.
            (HAVANA, DAY, "11-02T04:00:00 11-03T03:59:59 11-04T05:00:00 11-05T05:00:00"),
            # A midnight that is skipped.
            (HAVANA, DAY, "03-09T05:00:00 03-10T05:00:00 03-11T04:00:00"),
        ],
    )
    def test_boundaries_respect_midnights_and_clock_changes(
        self, zone: ZoneInfo, seconds: float, expected: str
    ) -> None:
        instants = [f"2024-{one}Z" for one in expected.split()]

        assert boundaries(zone, instants[0], instants[-1], seconds) == instants

    def test_boundaries_skip_the_day_that_samoa_skipped(self) -> None:
        instants = [f"2011-12-{day}T10:00:00Z" for day in (29, 30, 31)]

        assert boundaries(APIA, instants[0], instants[-1], DAY) == instants


A_DAY = Window(at("2024-01-01T00:00:00Z"), at("2024-01-02T00:00:00Z"), DAY)
TEN_DAYS = Window(at("2024-01-01T00:00:00Z"), at("2024-01-11T00:00:00Z"), 10 * DAY)
NEUTRAL_SHARE = 0.5
"""A share of the timeout that does not change the aim after a window of 100,000 contacts."""


def days(plan: WindowPlan, count: int = 1) -> list[float]:
    """The lengths in days of the next windows."""
    windows = [plan.next_window() for _ in range(count)]
    return [window.nominal_seconds / DAY for window in windows if window]


@pytest.fixture
def new_plan() -> WindowPlan:
    """The plan of a sync of many years, at its start."""
    return WindowPlan(datetime(1950, 1, 1, tzinfo=UTC), END_OF_TIME, UTC_ZONE)


@pytest.fixture
def plan(new_plan: WindowPlan) -> WindowPlan:
    """The plan of that sync after its first three windows, which are a day long."""
    days(new_plan, 3)
    return new_plan


class TestAdaptiveLength:
    """The length of a window follows from the last window that was read."""

    def test_before_the_first_read_windows_grow_to_ten_days(self, new_plan: WindowPlan) -> None:
        assert days(new_plan, 7) == [1, 1, 1, 3, 9, 10, 10]

    def test_the_first_three_windows_are_always_a_day(self, new_plan: WindowPlan) -> None:
        for contacts in (0, 10**7, 5):
            assert days(new_plan) == [1]
            new_plan.learn(A_DAY, contacts, NEUTRAL_SHARE)

    @pytest.mark.parametrize(
        ("contacts", "length"),
        [
            pytest.param(100_000, 1, id="as many as the aim"),
            pytest.param(200_000, 0.5, id="twice as many"),
            pytest.param(30_000, 3, id="less than a third: cut to whole days"),
            pytest.param(9_999, 10, id="no more than tenfold"),
            pytest.param(0, 10, id="none"),
            pytest.param(50_000_000, 0.1, id="no less than a tenth"),
        ],
    )
    def test_the_next_length_follows_from_the_contacts_of_a_day(
        self, plan: WindowPlan, contacts: int, length: float
    ) -> None:
        plan.learn(A_DAY, contacts, timeout_share=1)

        assert days(plan) == [length]

    def test_a_window_is_never_longer_than_90_days(self, plan: WindowPlan) -> None:
        plan.learn(TEN_DAYS, 0, NEUTRAL_SHARE)

        assert days(plan) == [90]

    def test_a_window_is_never_shorter_than_an_hour(self, plan: WindowPlan) -> None:
        plan.learn(replace(A_DAY, nominal_seconds=2 * HOUR), 10**7, NEUTRAL_SHARE)

        assert days(plan) == [1 / 24]

    def test_a_window_cut_at_midnight_counts_with_its_planned_length(self) -> None:
        plan = WindowPlan(at("2024-01-01T20:00:00Z"), END_OF_TIME, UTC_ZONE)
        first, _, _ = (plan.next_window() for _ in range(3))
        assert first is not None
        assert first.seconds == 4 * HOUR

        plan.learn(first, 50_000, timeout_share=1)

        assert days(plan) == [2]

    def test_a_fixed_length_never_changes(self) -> None:
        plan = WindowPlan(at("2024-01-01T00:00:00Z"), END_OF_TIME, UTC_ZONE, 2.0 * DAY)
        for contacts in (0, 10**7, 5):
            assert days(plan) == [2]
            plan.learn(A_DAY, contacts, timeout_share=0)
            plan.halve(A_DAY)


class TestAim:
    """The aim is the number of contacts that a window should have; a day has 100,000."""

    def test_the_aim_doubles_up_to_500_000_contacts(self, plan: WindowPlan) -> None:
        for aim in (2, 4, 5, 5):
            plan.learn(A_DAY, 100_000, timeout_share=0.01)
            assert days(plan) == [aim]

    def test_the_aim_halves_down_to_100_000_contacts(self, plan: WindowPlan) -> None:
        for _ in range(3):
            plan.learn(A_DAY, 100_000, timeout_share=0.01)
        for aim in (2.5, 1.25, 1, 1):
            plan.learn(replace(A_DAY, nominal_seconds=6 * HOUR), 100_000, timeout_share=0.67)
            assert days(plan) == [pytest.approx(aim / 4, abs=MINUTE / DAY)]

    @pytest.mark.parametrize(
        ("contacts", "timeout_share", "length"),
        [
            pytest.param(100_000, 0.33, 2, id="doubled: 200,000 would take 0.66 of the timeout"),
            pytest.param(100_000, 0.34, 1, id="not doubled: 200,000 would take 0.68"),
            pytest.param(50_000, 0.16, 4, id="doubled: 200,000 would take 0.64"),
            pytest.param(50_000, 0.17, 2, id="not doubled: 200,000 would take 0.68 too"),
        ],
    )
    def test_the_aim_doubles_if_twice_as_many_take_less_than_two_thirds_of_the_timeout(
        self, plan: WindowPlan, contacts: int, timeout_share: float, length: float
    ) -> None:
        plan.learn(A_DAY, contacts, timeout_share)

        assert days(plan) == [length]

    def test_an_export_without_contacts_does_not_change_the_aim(self, plan: WindowPlan) -> None:
        plan.learn(A_DAY, 0, timeout_share=0)
        plan.learn(A_DAY, 100_000, NEUTRAL_SHARE)

        assert days(plan) == [1]

    def test_the_aim_halves_when_a_window_is_halved(self, plan: WindowPlan) -> None:
        plan.learn(A_DAY, 100_000, timeout_share=0.01)
        plan.halve(TEN_DAYS)
        plan.learn(A_DAY, 100_000, NEUTRAL_SHARE)

        assert days(plan) == [1]


class TestCeiling:
    """After a halving, the length of the next windows is limited."""

    @pytest.fixture(autouse=True)
    def _few_contacts(self, plan: WindowPlan) -> None:
        """Without the limit, windows would be ten days long."""
        plan.learn(A_DAY, 10_000, timeout_share=1)

    def test_after_a_halving_ten_windows_are_limited_to_the_half(self, plan: WindowPlan) -> None:
        plan.halve(TEN_DAYS)

        assert days(plan, 12) == [5] * 10 + [10] * 2

    def test_after_a_second_halving_twenty_windows_are_limited(self, plan: WindowPlan) -> None:
        plan.halve(TEN_DAYS)
        days(plan, 10)
        plan.halve(replace(TEN_DAYS, nominal_seconds=6 * DAY))

        assert days(plan, 22) == [3] * 20 + [10] * 2

    def test_after_two_halvings_the_shorter_half_is_the_limit(self, plan: WindowPlan) -> None:
        plan.halve(replace(TEN_DAYS, nominal_seconds=6 * DAY))
        plan.halve(TEN_DAYS)

        assert days(plan, 21) == [3] * 20 + [10]

    @pytest.mark.parametrize(("contacts", "length"), [(49_999, 5), (50_000, 20)])
    def test_a_window_with_50_000_contacts_removes_the_limit(
        self, plan: WindowPlan, contacts: int, length: float
    ) -> None:
        plan.halve(TEN_DAYS)
        plan.learn(TEN_DAYS, contacts, timeout_share=1)

        assert days(plan) == [length]

    def test_the_limit_applies_before_the_first_read(self, new_plan: WindowPlan) -> None:
        new_plan.halve(A_DAY)

        assert days(new_plan, 5) == [0.5] * 5


class TestHalves:
    """A window whose exports failed is replaced by its halves."""

    @staticmethod
    def halves(start: str, end: str, zone: ZoneInfo = NEW_YORK) -> list[str] | None:
        """Start, middle and end of the halves of a window."""
        window = Window(at(start), at(end), (at(end) - at(start)).total_seconds())
        halves = WindowPlan(at(start), at(end), zone).halve(window)
        return halves and [text(halves[0].start), text(halves[0].end), text(halves[1].end)]

    @pytest.mark.parametrize(
        "boundaries",
        [
            pytest.param(
                ["2024-01-01T00:00:00Z", "2024-01-01T12:00:00Z", "2024-01-02T00:00:00Z"], id="a day"
            ),
            pytest.param(
                ["2024-01-01T00:00:00Z", "2024-01-01T00:30:00Z", "2024-01-01T01:00:01Z"],
                id="an hour and a second",
            ),
            pytest.param(
                ["2024-11-03T04:00:00Z", "2024-11-03T04:59:59Z", "2024-11-03T08:00:00Z"],
                id="back out of the repeated hour",
            ),
            pytest.param(
                ["2024-11-03T04:59:59Z", "2024-11-03T07:00:00Z", "2024-11-03T08:00:00Z"],
                id="past the repeated hour",
            ),
        ],
    )
    def test_halves_meet_in_the_middle_or_beside_repeated_time(self, boundaries: list[str]) -> None:
        assert self.halves(boundaries[0], boundaries[2]) == boundaries

    def test_an_hour_is_not_halved(self) -> None:
        assert self.halves("2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z") is None

    def test_a_window_of_only_repeated_time_is_not_halved(self) -> None:
        assert self.halves("2024-11-03T04:59:59Z", "2024-11-03T07:00:00Z") is None

    def test_each_half_counts_with_half_the_planned_length(self, plan: WindowPlan) -> None:
        halves = plan.halve(A_DAY)

        assert halves
        assert [half.nominal_seconds for half in halves] == [DAY / 2] * 2


def texts(found: tuple[datetime, datetime] | None) -> list[str] | None:
    """A range as text."""
    return found and [text(instant) for instant in found]


class TestRange:
    """Where a sync starts and ends."""

    def test_without_a_bookmark_the_range_is_from_start_date_to_five_minutes_ago(self) -> None:
        found = span(now=at("2024-06-01T12:00:00.999999Z"), lookback_days=7)

        assert texts(found) == ["2024-01-01T00:00:00Z", "2024-06-01T11:55:00Z"]

    @pytest.mark.parametrize(
        ("end_date", "end"),
        [
            ("2024-05-01T00:00:00Z", "2024-05-01T00:00:00Z"),
            ("2024-06-01T11:55:01Z", "2024-06-01T11:55:00Z"),
        ],
    )
    def test_the_range_ends_at_end_date_or_five_minutes_ago(self, end_date: str, end: str) -> None:
        found = span(end_date=at(end_date), now=at("2024-06-01T12:00:00Z"))

        assert texts(found) == ["2024-01-01T00:00:00Z", end]

    @pytest.mark.parametrize(
        ("zone", "bookmark", "lookback_days", "start"),
        [
            (NEW_YORK, "2024-05-10T17:23:45Z", 0, "2024-05-10T17:23:45Z"),
            (NEW_YORK, "2024-05-10T17:10:00Z", 1, "2024-05-09T04:00:00Z"),
            (NEW_YORK, "2024-05-10T04:00:00Z", 1, "2024-05-09T04:00:00Z"),  # midnight
            (NEW_YORK, "2024-05-10T17:10:00Z", 7, "2024-05-03T04:00:00Z"),
            (NEW_YORK, "2024-05-10T17:10:00Z", 0.5, "2024-05-10T04:00:00Z"),
            (NEW_YORK, "2024-05-10T17:10:00Z", 0.6, "2024-05-09T04:00:00Z"),
            (NEW_YORK, "2024-05-10T17:10:00Z", 1.6, "2024-05-08T04:00:00Z"),
            (NEW_YORK, "2024-05-10T17:10:00Z", 1e-9, "2024-05-10T04:00:00Z"),
            (NEW_YORK, "2024-03-11T04:00:00Z", 1, "2024-03-10T05:00:00Z"),  # 23 hours
            (NEW_YORK, "2024-11-04T05:00:00Z", 1, "2024-11-03T04:00:00Z"),  # 25 hours
            (NEW_YORK, "2024-11-03T06:30:00Z", 2 / 24, "2024-11-03T04:00:00Z"),  # elapsed
            (HAVANA, "2024-11-03T15:00:00Z", 0.01, "2024-11-03T03:59:59Z"),  # repeated midnight
            (HAVANA, "2024-03-10T15:00:00Z", 0.01, "2024-03-10T05:00:00Z"),  # skipped midnight
            (NEW_YORK, "2024-05-10T17:10:00Z", 1.7e308, "2024-01-01T00:00:00Z"),  # start_date
            (NEW_YORK, "2023-05-10T17:10:00Z", 1, "2024-01-01T00:00:00Z"),  # start_date
        ],
    )
    def test_with_a_bookmark_the_range_starts_at_the_local_midnight_before_the_lookback(
        self, zone: ZoneInfo, bookmark: str, lookback_days: float, start: str
    ) -> None:
        found = span(bookmark=at(bookmark), lookback_days=lookback_days, zone=zone)

        assert found
        assert text(found[0]) == start

    @pytest.mark.parametrize("lookback_days", [0, 1, 30])
    @pytest.mark.parametrize("bookmark", ["2024-05-01T00:00:00Z", "2024-05-01T00:00:01Z"])
    def test_with_a_bookmark_at_or_after_the_end_there_is_nothing_to_sync(
        self, bookmark: str, lookback_days: float
    ) -> None:
        end_date = at("2024-05-01T00:00:00Z")

        assert span(end_date=end_date, bookmark=at(bookmark), lookback_days=lookback_days) is None

    @pytest.mark.parametrize("start_date", ["2024-05-01T00:00:00Z", "2024-05-02T00:00:00Z"])
    def test_with_a_start_not_before_the_end_there_is_nothing_to_sync(
        self, start_date: str
    ) -> None:
        assert span(start_date=at(start_date), now=at("2024-05-01T00:05:00Z")) is None

    def test_with_bookmark_and_end_in_repeated_time_there_is_nothing_to_sync(self) -> None:
        bookmark, end_date = at("2024-11-03T05:10:00Z"), at("2024-11-03T06:50:00Z")

        assert span(bookmark=bookmark, end_date=end_date) is None

    @many_examples
    @given(zones, st.data())
    def test_start_and_end_move_only_back_and_only_out_of_repeated_time(
        self, zone: ZoneInfo, data: st.DataObject
    ) -> None:
        requested = sorted((data.draw(moments(zone)), data.draw(moments(zone))))

        found = span(start_date=requested[0], end_date=requested[1], zone=zone)

        if found is None:  # both may move to the start of the same repeated time
            assert requested[1] - requested[0] <= timedelta(hours=2, seconds=1)
            return
        for before, after in zip(requested, found, strict=True):
            if shown_twice(before, zone):
                assert after < before
                assert not shown_twice(after, zone)
                assert shown_twice(after + timedelta(seconds=1), zone)
            else:
                assert after == before

    @many_examples
    @given(zones, st.data(), st.integers(1, 60))
    def test_whole_days_of_lookback_are_calendar_days(
        self, zone: ZoneInfo, data: st.DataObject, lookback_days: int
    ) -> None:
        bookmark = data.draw(moments(zone))
        midnight = day_start(local(bookmark, zone).date() - timedelta(lookback_days), zone)
        long_ago = at("2000-01-01T00:00:00Z")

        found = span(start_date=long_ago, bookmark=bookmark, lookback_days=lookback_days, zone=zone)

        assert found
        if shown_twice(midnight, zone):
            assert shown_twice(found[0] + timedelta(seconds=1), zone)
            assert found[0] < midnight
        else:
            assert found[0] == midnight
