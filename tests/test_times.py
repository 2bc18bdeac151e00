"""Reading dates and date-times of settings and states."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from tap_cometly.times import format_utc, read_instant

NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        pytest.param("2024-01-15T05:00:00Z", "2024-01-15T05:00:00", id="Z"),
        pytest.param("2024-01-15T05:00:00-05:00", "2024-01-15T10:00:00", id="west"),
        pytest.param("2024-01-15T05:00:00+0530", "2024-01-14T23:30:00", id="offset without colon"),
        pytest.param("2024-01-15T05:00:00+14", "2024-01-14T15:00:00", id="offset of hours"),
        pytest.param("2024-01-15 05:00:00Z", "2024-01-15T05:00:00", id="space for T"),
        pytest.param("2024-01-15T05:30", "2024-01-15T10:30:00", id="without seconds and offset"),
        pytest.param("20240115T053000Z", "2024-01-15T05:30:00", id="basic format"),
        pytest.param("2024-015T05:30:00Z", "2024-01-15T05:30:00", id="day of the year"),
        pytest.param("2024-W03-1T05:30:00Z", "2024-01-15T05:30:00", id="day of the week"),
        pytest.param("2024-01-15", "2024-01-15T05:00:00", id="date"),
        pytest.param("20240115", "2024-01-15T05:00:00", id="basic date"),
        pytest.param("2024-07-15", "2024-07-15T04:00:00", id="date in summer"),
        pytest.param("2024-01-15T05:00:00.999Z", "2024-01-15T05:00:00", id="fraction"),
        pytest.param("2024-01-15T05:00:00,999999999Z", "2024-01-15T05:00:00", id="comma"),
        pytest.param("1969-12-31T23:59:59.9Z", "1969-12-31T23:59:59", id="fraction before 1970"),
        pytest.param("2024-01-15t05:00:00z", "2024-01-15T05:00:00", id="lower case"),
        pytest.param("2024-01-15T05:00:00\u221205:00", "2024-01-15T10:00:00", id="minus sign"),
        pytest.param("2024-01-15T24:00:00Z", "2024-01-16T00:00:00", id="end of the day"),
        pytest.param("20240115T24Z", "2024-01-16T00:00:00", id="end of the day, basic format"),
        pytest.param("2024-11-03T01:30:00", "2024-11-03T05:30:00", id="repeated: the earlier"),
        pytest.param("2024-03-10T02:30:00", "2024-03-10T07:00:00", id="skipped: the change"),
    ],
)
def test_iso_8601_dates_are_read_in_new_york(written: str, instant: str) -> None:
    found = read_instant(written, NEW_YORK)

    assert found is not None
    assert format_utc(found) == f"{instant}+00:00"


def test_a_date_whose_midnight_is_skipped_is_the_first_instant_of_the_day() -> None:
    found = read_instant("2024-03-10", ZoneInfo("America/Havana"))

    assert found is not None
    assert format_utc(found) == "2024-03-10T05:00:00+00:00"


NOT_DATES = """now today 1705276800 2024 2024-01 2024-W03 2024-W00-1 2024-02-30 2023-366 0000-01-01
2024-1-5 2024/01/15 15.01.2024 05:00 T05:00:00Z P1D 2024-01-15/2024-01-16 2024-01-15/P1D 2024-01-15T
2024-01-15T00:00:00Z/P1DT2H R3/2024-01-15/P1D 2024-01-15T24:00:01Z 2024-01-15T25:00:00Z
2024-01-15T05:00:00Zulu 2024-01-15T05:00:00+24:00 2024-01-15T05:00:00+99:99"""
WITH_SPACE = ["", " ", "2024-01-15\n", " 2024-01-15", "2024-01-15T05:00:00 America/New_York"]


@pytest.mark.parametrize(
    "written", [*NOT_DATES.split(), *WITH_SPACE, "\u0662\u0660\u0662\u0664-01-15"]
)
def test_other_text_is_not_a_date(written: str) -> None:
    assert read_instant(written, NEW_YORK) is None


@pytest.mark.parametrize(
    "written", ["0001-01-01T00:00:00+14:00", "0001-01-01", "9999-12-31T23:59:59-14:00"]
)
def test_the_first_and_the_last_year_are_read(written: str) -> None:
    found = read_instant(written, ZoneInfo("UTC"))

    assert found is not None
    assert abs(found.year - int(written[:4])) <= 1
