"""How far a sync is: lines that a person can read one below the other."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

import pendulum
import pytest

from tap_cometly.progress import Progress, duration
from tap_cometly.windows import Window

NEW_YORK = ZoneInfo("America/New_York")
START = pendulum.datetime(2024, 1, 1, 5)
END = START.add(days=100)


def progress(began: float = 0) -> Progress:
    """The progress of a sync of 100 days in New York."""
    return Progress(START, END, NEW_YORK, began)


def days(first: float, last: float) -> Window:
    """A window of that sync, from so many days on to so many days on."""
    return Window(START + timedelta(days=first), START + timedelta(days=last), 86_400)


def columns(line: str) -> list[str]:
    """The parts of a line, without the spaces that align them."""
    return [part.strip() for part in line.split("|")]


def test_the_opening_tells_the_range_in_the_time_of_the_space() -> None:
    assert progress().opening() == (
        "Contacts created from 2024-01-01 00:00:00 to 2024-04-10 01:00:00 (America/New_York)"
    )


def test_a_window_is_one_line_in_the_time_of_the_space() -> None:
    line = progress().window_done(days(0, 25), contacts=98_765, now=90)

    assert line == (
        "2024-01-01 00:00:00 to 2024-01-26 00:00:00 |    98,765 contacts |     90.0 s |"
        "  25% done | about 4 min left"
    )


def test_columns_stay_in_place_whatever_stands_in_them() -> None:
    sync = progress()
    lines = [
        sync.window_done(days(0, 0.001), contacts=0, now=0.04),
        sync.window_done(days(0.001, 30), contacts=104, now=9.5),
        sync.window_done(days(30, 70), contacts=9_876_543, now=1_809.5),
        sync.window_done(days(70, 100), contacts=100_000, now=88_000),
    ]

    bars = [[place for place, sign in enumerate(line) if sign == "|"] for line in lines]

    assert bars == [bars[0]] * len(lines)


def test_a_window_takes_the_seconds_since_the_one_before() -> None:
    sync = progress(began=1000)

    lines = [sync.window_done(days(0, 1), 5, now=1004.5), sync.window_done(days(1, 2), 5, now=1007)]

    assert [columns(line)[2] for line in lines] == ["4.5 s", "2.5 s"]


def test_the_time_left_follows_the_share_that_is_done() -> None:
    sync = progress(began=1000)
    sync.window_done(days(0, 10), contacts=5, now=1500)

    line = sync.window_done(days(10, 20), contacts=5, now=3000)

    assert columns(line)[3:] == ["20% done", "about 2 h 13 min left"]


def test_with_little_done_the_time_left_is_unknown() -> None:
    assert columns(progress().window_done(days(0, 0.5), 5, now=9))[3:] == [
        "0% done",
        "time left unknown yet",
    ]


def test_a_sync_is_not_wholly_done_before_its_last_window() -> None:
    line = progress().window_done(days(0, 99.9), contacts=5, now=9_990)

    assert columns(line)[3:] == ["99% done", "about 10 s left"]


def test_after_the_last_window_a_sync_is_complete() -> None:
    line = progress().window_done(days(50, 100), contacts=5, now=60)

    assert columns(line)[3:] == ["100% done", "complete"]


def test_the_closing_adds_up_contacts_and_time() -> None:
    sync = progress(began=1000)
    sync.window_done(days(0, 50), contacts=1_000_000, now=1300)
    sync.window_done(days(50, 100), contacts=234_567, now=1600)

    assert sync.closing(now=1720) == "Complete: 1,234,567 contacts in 12 min"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (40, "40 s"),
        (119, "119 s"),
        (120, "2 min"),
        (720, "12 min"),
        (3599, "60 min"),
        (3600, "1 h 00 min"),
        (3 * 3600 + 5 * 60 + 59, "3 h 05 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 00 h"),
        (2 * 86_400 + 4 * 3600, "2 d 04 h"),
    ],
)
def test_spans_of_time_are_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
