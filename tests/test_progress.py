"""Progress lines, duration and time left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tap_cometly.progress import Progress, duration
from tap_cometly.windows import Window

START = datetime(2024, 1, 1, 5, tzinfo=UTC)


def progress() -> Progress:
    """The progress of a sync of 100 days in New York, which began at second 1000."""
    return Progress(START, START + timedelta(100), ZoneInfo("America/New_York"), began=1000)


def days(first: float, last: float) -> Window:
    """A window of that sync, in days after its start."""
    return Window(START + timedelta(first), START + timedelta(last), 86_400)


def columns(line: str) -> list[str]:
    """The parts of a line, without the spaces that align them."""
    return [part.strip() for part in line.split("|")]


def test_the_first_line_is_the_range_in_the_spaces_time_zone() -> None:
    assert progress().opening() == (
        "Contacts created from 2024-01-01 00:00:00 to 2024-04-10 01:00:00 (America/New_York)"
    )


def test_a_window_is_one_line_in_the_spaces_time_zone() -> None:
    assert progress().window_done(days(0, 25), 98_765, now=1090, windows_left=3) == (
        "2024-01-01 00:00:00 to 2024-01-26 00:00:00 |    98,765 contacts |     90.0 s |"
        "  25% done | about 4 min left"
    )


def test_columns_are_aligned() -> None:
    sync = progress()
    lines = [
        sync.window_done(days(0, 0.001), 1, now=1000.04, windows_left=3),
        sync.window_done(days(0.001, 30), 104, now=1009.5, windows_left=2),
        sync.window_done(days(30, 70), 9_876_543, now=2_809.5, windows_left=1),
        sync.window_done(days(70, 100), 0, now=88_000, windows_left=0),
    ]

    bars = [[place for place, sign in enumerate(line) if sign == "|"] for line in lines]

    assert bars == [bars[0]] * 4


def test_one_contact_is_singular() -> None:
    sync = progress()

    assert columns(sync.window_done(days(0, 100), 1, now=1090, windows_left=0))[1] == "1 contact"
    assert sync.closing(now=1090) == "Complete: 1 contact in 90 s"


def test_the_time_of_a_window_counts_from_the_previous_window() -> None:
    sync = progress()

    lines = [
        sync.window_done(days(0, 1), 5, now=1004.5, windows_left=99),
        sync.window_done(days(1, 2), 5, now=1007, windows_left=98),
    ]

    assert [columns(line)[2] for line in lines] == ["4.5 s", "2.5 s"]


def test_the_last_line_sums_up_contacts_and_time() -> None:
    sync = progress()
    sync.window_done(days(0, 50), 1_000_000, now=1300, windows_left=1)
    sync.window_done(days(50, 100), 234_567, now=1600, windows_left=0)

    assert sync.closing(now=1720) == "Complete: 1,234,567 contacts in 12 min"


class TestTimeLeft:
    """The estimate of the time left."""

    @staticmethod
    def after(*windows: tuple[float, float], windows_left: int) -> str:
        """The time left after windows, each with its last day and its seconds."""
        sync, first, now, left = progress(), 0.0, 1000.0, ""
        for last, seconds in windows:
            now += seconds
            left = columns(sync.window_done(days(first, last), 5, now, windows_left))[-1]
            first = last
        return left

    def test_the_time_left_is_unknown_before_a_tenth_of_the_range_and_five_windows(self) -> None:
        windows = [(last, 60) for last in (1, 2, 3, 9.9)]

        assert self.after(*windows, windows_left=9) == "time left unknown"

    def test_the_time_left_is_known_after_a_tenth_of_the_range(self) -> None:
        assert self.after((10, 60), windows_left=9) == "about 9 min left"

    def test_the_time_left_is_known_after_five_windows(self) -> None:
        windows = [(last, 60) for last in (1, 2, 3, 4, 5)]

        assert self.after(*windows, windows_left=10) == "about 10 min left"

    def test_recent_windows_count_more_than_earlier_ones(self) -> None:
        windows = [(20, 600), (40, 0), (60, 60), (80, 120)]

        weighted = (600 * 0.9**3 + 60 * 0.9 + 120) / (0.9**3 + 0.9**2 + 0.9 + 1)
        assert self.after(*windows, windows_left=1) == f"about {duration(weighted)} left"

    def test_after_the_last_window_the_sync_is_complete(self) -> None:
        assert self.after((50, 60), (100, 60), windows_left=0) == "complete"

    def test_just_before_the_end_99_percent_are_done(self) -> None:
        line = progress().window_done(days(0, 99.9), 5, now=1010, windows_left=1)

        assert columns(line)[3:] == ["99% done", "about 10 s left"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (3599, "59 min"),
        (3600, "1 h 00 min"),
        (3 * 3600 + 5 * 60 + 59, "3 h 05 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 00 h"),
        (2 * 86_400 + 4 * 3600, "2 d 04 h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words
