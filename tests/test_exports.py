"""Exports: in flight, polled, read in order, retried, and split when they fail."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from simulator.faults import (
    CompletedWithoutUrl,
    Cut,
    Expired,
    ExportFails,
    ExportStuck,
    ExportVanishes,
    Layout,
    Refuse,
    Truncated,
    UnknownStatus,
)
from simulator.files import FileLayout
from tap_cometly.client import (
    CometlyClient,
    CreateRefused,
    ExportNotFound,
    ExportStatus,
    RateLimited,
)
from tap_cometly.errors import ExportError
from tap_cometly.exports import Export, Exports
from tap_cometly.files import Storage
from tap_cometly.settings import Settings
from tap_cometly.windows import Window, WindowPlan
from tests.conftest import VirtualClock, contacts_every

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulator.faults import Endpoint, ExportFault, Fault
    from tests.conftest import World

TIMES = ("created_at", "completed_at")
JUNE = datetime(2024, 6, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SETTINGS = Settings.read({"api_key": "none", "start_date": "2024-06-01"}, default_user_agent="test")


# A model of Cometly without HTTP.


@dataclass
class Job:
    """An export of the model: its window, and the seconds at which processing begins and ends."""

    start: datetime
    end: datetime
    created: float
    begins: float
    ends: float
    outcome: str
    polls: list[float] = field(default_factory=list)


class FakeCometly:
    """Cometly's two calls and its storage, on a virtual clock.

    Attributes:
        outcomes: Outcomes of the first exports: `completed`, `slow`, `failed`, `vanished`,
            `hangs` or the status of a refused create; all others complete.
        seconds: Processing time of an export.
        workers: The number of exports processed in parallel; the others are queued.
        creates_per_minute: The limit on creates.
        hides: Which of `created_at` and `completed_at` a completed export does not have.
        jobs: The exports created so far.
        max_in_flight: The largest number of windows that were created and not yet read.
    """

    def __init__(
        self,
        *outcomes: str,
        seconds: float = 10,
        workers: int = 99,
        creates_per_minute: int = 5,
        hides: tuple[str, ...] = (),
    ) -> None:
        self.outcomes = list(outcomes)
        self.seconds = seconds
        self.workers = workers
        self.creates_per_minute = creates_per_minute
        self.hides = hides
        self.clock = VirtualClock()
        self.began = self.clock.monotonic()
        self.jobs: list[Job] = []
        self.max_in_flight = 0
        self._unread: set[tuple[datetime, datetime]] = set()

    @property
    def now(self) -> float:
        return round(self.clock.monotonic() - self.began, 3)

    def create_export(self, start_date: str, end_date: str) -> int:
        """Create an export, refuse it, or raise RateLimited."""
        recent = [job.created for job in self.jobs if job.created > self.now - 60]
        if len(recent) >= self.creates_per_minute:
            raise RateLimited(recent[0] + 60 - self.now)
        outcome = self.outcomes.pop(0) if self.outcomes else "completed"
        if outcome.isdecimal():
            message = "Cometly refused"
            raise CreateRefused(message, int(outcome), "wait")
        start, end = (datetime.fromisoformat(f"{text}+00:00") for text in (start_date, end_date))
        busy = sorted(job.ends for job in self.jobs if job.ends > self.now)
        begins = busy[-self.workers] if len(busy) >= self.workers else self.now
        ends = begins + self.seconds + (300 if outcome == "slow" else 0)
        self.jobs.append(Job(start, end, self.now, begins, ends, outcome))
        self._unread = {one for one in self._unread if one[1] <= start or one[0] >= end}
        self._unread.add((start, end))
        self.max_in_flight = max(self.max_in_flight, len(self._unread))
        return len(self.jobs)

    def get_export(self, export_id: int) -> ExportStatus:
        """The status of an export."""
        job = self.jobs[export_id - 1]
        job.polls.append(self.now)
        if self.now < job.begins:
            return ExportStatus(export_id, "queued", None, None)
        if self.now < job.ends or job.outcome == "hangs":
            return ExportStatus(export_id, "processing", None, None)
        if job.outcome in ("failed", "vanished"):
            self._unread.discard((job.start, job.end))
        if job.outcome == "vanished":
            message = "Deleted."
            raise ExportNotFound(message)
        if job.outcome == "failed":
            return ExportStatus(export_id, "failed", None, "Query failed.")
        times = [JUNE + timedelta(seconds=second) for second in (job.created, job.ends)]
        done = ExportStatus(export_id, "completed", "https://storage.invalid", None, *times)
        hidden: dict[str, Any] = dict.fromkeys(self.hides)
        return replace(done, **hidden)

    def open(self, url: str, fresh_url: object) -> FakeCometly:
        del url, fresh_url
        return self

    def close(self) -> None:
        """Close nothing."""

    def exports(self, days: float = 9, window_days: float | None = 1, **changes: Any) -> Exports:
        """The exports of the first days of June, by default in windows of a day."""
        seconds = window_days and window_days * DAY.total_seconds()
        self.plan = RecordingPlan(JUNE, JUNE + days * DAY, SETTINGS.zone, seconds)
        return Exports(
            self.plan,
            cast("CometlyClient", self),
            cast("Storage", self),
            self.clock,
            replace(SETTINGS, **changes),
        )

    def read(self, exports: Exports) -> Iterator[Export]:
        """Yield each export; count it as read when the next one is requested."""
        for export in exports:
            yield export
            self._unread.discard((export.window.start, export.window.end))

    def created(self) -> list[float]:
        return [job.created for job in self.jobs]

    def max_unfinished(self) -> int:
        """The largest number of exports that were queued or processing at the same time."""
        return max(
            sum(job.created <= latest.created < job.ends for job in self.jobs)
            for latest in self.jobs
        )


class RecordingPlan(WindowPlan):
    """A plan that records the arguments of `learn`."""

    learned: list[tuple[int, float]] | None = None

    @override
    def learn(self, window: Window, contacts: int, timeout_share: float) -> None:
        self.learned = [*(self.learned or []), (contacts, timeout_share)]
        super().learn(window, contacts, timeout_share)


servers = st.builds(
    lambda outcomes, **rules: FakeCometly(*outcomes, **rules),
    st.lists(st.sampled_from(["completed", "slow", "failed", "vanished", "hangs"]), max_size=10),
    seconds=st.sampled_from([0.3, 70, 900]),
    workers=st.sampled_from([1, 2, 99]),
    creates_per_minute=st.sampled_from([5, 99]),
)
many_examples = settings(deadline=None, max_examples=150)


class TestAllExports:
    """Property tests: any server, any failures."""

    @many_examples
    @given(servers, st.integers(1, 25))
    def test_windows_are_read_in_order_without_a_gap(
        self, cometly: FakeCometly, limit: int
    ) -> None:
        windows = [export.window for export in cometly.exports(max_concurrent_exports=limit)]

        assert (windows[0].start, windows[-1].end) == (JUNE, JUNE + 9 * DAY)
        assert all(one.end == following.start for one, following in pairwise(windows))

    @settings(deadline=None, max_examples=50)
    @given(servers, st.integers(1, 25))
    def test_no_more_exports_are_in_flight_than_allowed(
        self, cometly: FakeCometly, limit: int
    ) -> None:
        for _ in cometly.read(cometly.exports(days=30, max_concurrent_exports=limit)):
            pass

        assert cometly.max_in_flight <= limit

    @many_examples
    @given(st.lists(st.sampled_from(["completed", "failed", "409", "422", "423"]), max_size=20))
    def test_refused_creates_fail_the_run_or_skip_no_window(self, outcomes: list[str]) -> None:
        cometly = FakeCometly(*outcomes)
        end = JUNE

        with suppress(ExportError):
            for export in cometly.exports():
                end = export.window.end
            assert end == JUNE + 9 * DAY


class TestInFlight:
    """How many exports are created before the first one is read."""

    @pytest.mark.parametrize("workers", [1, 3])
    def test_one_more_export_is_in_flight_than_cometly_processes(self, workers: int) -> None:
        cometly = FakeCometly(workers=workers, seconds=300)

        list(cometly.exports(days=30))

        assert cometly.max_unfinished() == workers + 1

    @pytest.mark.parametrize("limit", [1, 2, 3, 25])
    def test_as_many_exports_are_in_flight_as_allowed_while_none_is_queued(
        self, limit: int
    ) -> None:
        cometly = FakeCometly(seconds=600)

        list(cometly.exports(days=30, max_concurrent_exports=limit))

        assert cometly.max_unfinished() == limit

    def test_exports_are_created_as_fast_as_the_limit_on_creates_allows(self) -> None:
        cometly = FakeCometly(seconds=200)

        next(iter(cometly.exports(days=30)))

        assert cometly.created()[:10] == [0, 0, 1, 2, 3, 60, 61, 62, 63, 64]

    def test_an_export_is_created_as_soon_as_another_is_read(self) -> None:
        cometly = FakeCometly(seconds=100)
        exports = iter(cometly.exports(max_concurrent_exports=2))

        next(exports)
        read_at = cometly.now
        next(exports)

        assert cometly.created()[2] == read_at

    def test_without_concurrency_a_window_is_planned_after_the_previous_one_is_read(self) -> None:
        cometly = FakeCometly()

        exports = cometly.exports(days=60, window_days=None, max_concurrent_exports=1)
        lengths = [(export.window.end - export.window.start) / DAY for export in exports]

        assert lengths == [1, 1, 1, 10, 47]

    def test_windows_left_includes_those_in_flight_and_those_not_planned_yet(self) -> None:
        exports = FakeCometly().exports(days=4.5, max_concurrent_exports=2)

        assert [exports.windows_left for _ in exports] == [4, 3, 2, 1, 0]

    def test_a_limit_on_creates_does_not_delay_reading(self) -> None:
        cometly = FakeCometly(creates_per_minute=1)

        next(iter(cometly.exports()))

        assert cometly.now < 15


class TestPolls:
    """Which exports are polled, and when."""

    @pytest.mark.parametrize("seconds", [10, 14, 25, 60, 220, 300])
    def test_a_completed_export_is_noticed_within_a_quarter_of_its_age(
        self, seconds: float
    ) -> None:
        cometly = FakeCometly(seconds=seconds)

        next(iter(cometly.exports()))

        assert cometly.now <= min(1.25 * seconds, seconds + 15)

    def test_the_newest_export_is_polled_every_quarter_of_its_age_while_queued(self) -> None:
        cometly = FakeCometly(workers=1, seconds=100)

        next(iter(cometly.exports()))

        delays = [after - before for before, after in pairwise(cometly.jobs[1].polls)]
        assert delays[:4] == [5, 5, 5, 5]
        assert delays[4:7] == [pytest.approx(5.25 * 1.25**n, abs=0.01) for n in range(3)]
        assert delays[9:10] == [15]

    def test_the_newest_export_is_polled_once_if_it_is_processing(self) -> None:
        cometly = FakeCometly(seconds=100)

        next(iter(cometly.exports(max_concurrent_exports=4)))

        assert [job.polls for job in cometly.jobs[1:]] == [[1], [2], []]

    @pytest.mark.parametrize(
        ("days", "limit"), [pytest.param(9, 2, id="allowed"), pytest.param(2, 25, id="planned")]
    )
    def test_the_newest_export_is_not_polled_if_no_other_can_be_created(
        self, days: int, limit: int
    ) -> None:
        cometly = FakeCometly(workers=1, seconds=100)

        next(iter(cometly.exports(days=days, max_concurrent_exports=limit)))

        assert cometly.jobs[1].polls == []

    def test_a_rate_limited_poll_is_retried_after_the_limit(self, world: World) -> None:
        world.fill([], polls_per_minute=1, queued_seconds=2, processing_seconds=3)

        run = world.sync(end_date="2024-06-02T00:00:00Z")

        refused, good = (request.time for request in world.requests("poll")[-2:])
        assert run.error is None
        assert good - refused == pytest.approx(58, abs=1)


class TestFailures:
    """A failed export is retried once, then its window is split; at an hour the run fails."""

    @pytest.mark.parametrize("outcome", ["failed", "vanished", "hangs"])
    def test_a_failed_export_is_retried(self, outcome: str) -> None:
        cometly = FakeCometly(outcome, seconds=90)

        windows = [export.window for export in cometly.exports(days=3)]

        assert [window.end - window.start for window in windows] == [DAY] * 3
        assert [job.start for job in cometly.jobs].count(JUNE) == 2

    @pytest.mark.parametrize("outcome", ["failed", "vanished", "hangs"])
    def test_a_window_is_split_when_the_retry_failed_too(self, outcome: str) -> None:
        cometly = FakeCometly(outcome, outcome, seconds=90)

        windows = [export.window for export in cometly.exports(days=1)]

        assert [window.end - window.start for window in windows] == [DAY / 2] * 2

    def test_windows_planned_after_a_split_are_not_longer_than_the_half(self) -> None:
        cometly = FakeCometly("failed", "failed")

        exports = cometly.exports(days=9, window_days=None, max_concurrent_exports=1)

        lengths = [export.window.end - export.window.start for export in exports]
        assert lengths[:6] == [DAY / 2] * 6

    def test_a_window_of_an_hour_that_failed_twice_fails_the_run(self) -> None:
        cometly = FakeCometly("failed", "failed")

        with pytest.raises(ExportError) as error:
            list(cometly.exports(days=1 / 24))

        assert str(error.value) == (
            "Export 2 of 2024-06-01T00:00:00+00:00 to 2024-06-01T01:00:00+00:00: failed: "
            '"Query failed."; retry failed too; rerun the tap later, and if it fails again, '
            "contact Cometly's support."
        )

    def test_windows_before_a_failed_window_are_read_first(self) -> None:
        cometly = FakeCometly("slow", *["failed"] * 99, seconds=0.5, creates_per_minute=99)
        read = []

        def read_all() -> None:
            for export in cometly.exports(days=3):
                read.append(export.window.start)  # noqa: PERF401 - the loop may fail

        with pytest.raises(ExportError):
            read_all()

        assert read == [JUNE]

    def test_all_failed_exports_are_found_together_and_retried_in_order(self) -> None:
        cometly = FakeCometly(
            "failed", "completed", "failed", "failed", seconds=30, creates_per_minute=99
        )

        windows = [export.window for export in cometly.exports(days=5, max_concurrent_exports=5)]

        assert [window.start for window in windows] == [JUNE + n * DAY for n in range(5)]
        assert [job.start for job in cometly.jobs[5:]] == [JUNE, JUNE + 2 * DAY, JUNE + 3 * DAY]
        assert max(cometly.created()[5:]) - min(cometly.created()[5:]) < 5

    def test_after_several_failures_the_other_exports_are_polled_once(self) -> None:
        cometly = FakeCometly(
            "failed", "slow", "failed", "failed", seconds=30, creates_per_minute=99
        )

        next(iter(cometly.exports(days=5, max_concurrent_exports=5)))

        failed = cometly.jobs[2].polls[-1]
        assert cometly.jobs[1].polls.count(failed) == 1

    def test_an_export_that_is_not_found_is_polled_with_pauses_until_its_timeout(self) -> None:
        cometly = FakeCometly("vanished", seconds=0.1)

        list(cometly.exports(days=1, export_timeout_seconds=20))

        assert cometly.created() == [0, pytest.approx(20, abs=1)]
        assert len(cometly.jobs[0].polls) < 10

    @pytest.mark.parametrize(
        ("outcome", "reason"),
        [("failed", 'failed: "Query failed."'), ("vanished", 'not found: "Deleted."')],
    )
    def test_retries_and_splits_are_logged(
        self, caplog: pytest.LogCaptureFixture, outcome: str, reason: str
    ) -> None:
        list(FakeCometly(outcome, outcome).exports(days=1))

        export = "of 2024-06-01T00:00:00+00:00 to 2024-06-02T00:00:00+00:00"
        assert caplog.messages == [
            f"Export 1 {export}: {reason}; retrying",
            f"Export 2 {export}: {reason}; retry failed too; splitting the window",
        ]

    def test_a_404_in_the_first_minute_is_not_a_failure(self) -> None:
        cometly = FakeCometly("vanished", seconds=5)

        list(cometly.exports(days=1))

        assert cometly.created() == [0, pytest.approx(60, abs=15)]


class TestTimeout:
    """How long an export may be queued or processed."""

    @pytest.mark.parametrize("minutes", [0.1, 0.7, 10, 33.3])
    def test_a_hanging_export_is_retried_exactly_at_its_timeout(self, minutes: float) -> None:
        cometly = FakeCometly("hangs", seconds=0.1)
        cometly.clock.sleep(0.1)  # a time that floating point cannot represent
        cometly.began += 0.1

        next(iter(cometly.exports(days=1, export_timeout_seconds=minutes * 60)))

        assert cometly.created() == [0, pytest.approx(minutes * 60, abs=0.002)]

    def test_the_timeout_counts_from_the_completion_of_the_previous_export(self) -> None:
        cometly = FakeCometly(workers=1, seconds=1000)

        assert len(list(cometly.exports(days=5))) == len(cometly.jobs)

    def test_a_retry_that_waits_for_earlier_exports_does_not_time_out(self) -> None:
        cometly = FakeCometly("failed", workers=1, seconds=1000)

        assert len(list(cometly.exports(days=5))) == 5
        assert len(cometly.jobs) == 6

    def test_the_timeout_counts_from_the_completion_of_a_successful_retry(self) -> None:
        cometly = FakeCometly("failed", "hangs", seconds=60)

        list(cometly.exports(days=2))

        assert cometly.created()[3] == pytest.approx(120 + 1800, abs=15)

    def test_a_hanging_export_delays_the_timeout_of_a_retry_by_one_timeout(self) -> None:
        cometly = FakeCometly("failed", "hangs", "hangs", seconds=60)

        list(cometly.exports(days=2))

        first, hanging, retry, last = cometly.created()[:4]
        assert (first, hanging) == (0, 0)
        assert last - retry == pytest.approx(2 * 1800, abs=15)

    def test_the_timeout_of_a_retry_counts_from_the_export_created_before_it(self) -> None:
        cometly = FakeCometly("failed", "completed", "hangs", workers=1, seconds=1000)

        list(cometly.exports(days=2))

        assert cometly.created()[3] == pytest.approx(2000 + 1800, abs=15)

    def test_the_timeout_counts_from_the_creation_if_that_is_later(self) -> None:
        cometly = FakeCometly("completed", "hangs", seconds=10)

        list(cometly.exports(days=2, max_concurrent_exports=1))

        first, hanging, retry = cometly.created()
        assert hanging > first + 10
        assert retry - hanging == pytest.approx(1800)

    def test_a_completed_export_does_not_time_out(self) -> None:
        cometly = FakeCometly()

        for _ in cometly.exports(days=2):
            cometly.clock.sleep(36_000)

        assert len(cometly.jobs) == 2


class TestProcessingTime:
    """Processing times, from which the plan learns."""

    def test_the_processing_time_is_taken_from_cometlys_times(self) -> None:
        cometly = FakeCometly(seconds=90)

        for export in cometly.exports(days=1):
            export.contacts = 70
            cometly.clock.sleep(1000)

        assert cometly.plan.learned == [(70, 0.05)]

    @pytest.mark.parametrize("hides", [TIMES[:1], TIMES[1:], TIMES])
    def test_without_cometlys_times_the_taps_clock_is_used(self, hides: tuple[str, ...]) -> None:
        cometly = FakeCometly(seconds=90, hides=hides)

        list(cometly.exports(days=1))

        assert cometly.plan.learned
        assert cometly.plan.learned[0][1] == pytest.approx(cometly.now / 1800, abs=0.001)

    def test_processing_begins_at_the_first_poll_after_the_queue(self) -> None:
        cometly = FakeCometly(workers=1, seconds=90)

        list(cometly.exports(days=9))

        assert cometly.plan.learned
        seconds = [share * 1800 for _, share in cometly.plan.learned]
        queued = seconds[1:-1]  # the last one is not polled until it is read
        assert all(90 - 15 <= each <= 90 for each in queued)

    def test_processing_begins_15_seconds_after_a_queued_poll_if_the_next_is_late(self) -> None:
        export = Export(Window(JUNE, JUNE + DAY, DAY.total_seconds()), is_created=True)

        export.update(ExportStatus(1, "queued", None, None), now=100)
        export.update(ExportStatus(1, "processing", None, None), now=400)
        export.update(ExportStatus(1, "completed", "https://storage.invalid", None), now=515)

        assert export.processing_seconds == 515 - 115


class TestRefusedCreates:
    """409, 422 and 423: too many exports in flight, or a window that is too long."""

    @pytest.mark.parametrize("status", ["409", "422", "423"])
    def test_a_refused_create_is_retried_when_the_others_are_read(self, status: str) -> None:
        cometly = FakeCometly("completed", "slow", status, seconds=60)

        opened = [(export.window.start, cometly.now) for export in cometly.read(cometly.exports())]

        assert [start for start, _ in opened] == [JUNE + n * DAY for n in range(9)]
        assert cometly.created()[2] >= opened[1][1]
        assert cometly.max_in_flight == 2

    def test_after_a_refusal_as_many_exports_are_in_flight_as_before_it(self) -> None:
        cometly = FakeCometly("completed", "completed", "409", seconds=60)

        list(cometly.exports())

        assert cometly.created()[2] == cometly.created()[3]
        assert cometly.max_unfinished() == 2

    @pytest.mark.parametrize("status", ["409", "423"])
    def test_a_refused_create_fails_the_run_if_nothing_else_is_in_flight(self, status: str) -> None:
        with pytest.raises(ExportError, match="Cometly refused"):
            list(FakeCometly(status).exports(window_days=3))

    def test_422_splits_a_window_of_more_than_a_day(self, caplog: pytest.LogCaptureFixture) -> None:
        cometly = FakeCometly("422")

        windows = [export.window for export in cometly.exports(days=2, window_days=2)]

        assert [window.end - window.start for window in windows] == [DAY] * 2
        assert "Cometly refused; splitting the window" in caplog.text

    def test_422_for_a_window_of_a_day_fails_the_run(self) -> None:
        with pytest.raises(ExportError, match="Cometly refused"):
            list(FakeCometly("422").exports())

    def test_a_refused_retry_waits_for_the_other_exports_to_complete(self) -> None:
        cometly = FakeCometly("failed", "completed", "completed", "409", seconds=50)

        windows = [export.window for export in cometly.exports(max_concurrent_exports=3)]

        assert len(windows) == 9
        assert cometly.created()[3] > 50 + 15

    def test_a_retry_that_is_refused_twice_fails_the_run(self) -> None:
        cometly = FakeCometly("failed", "completed", "completed", "409", "409", seconds=50)

        with pytest.raises(ExportError, match="Cometly refused"):
            list(cometly.exports(max_concurrent_exports=3))


# With the real client, storage and HTTP, against the simulator.


def serve(world: World, days: int = 1, seconds: float = 0, **rules: Any) -> None:
    """Serve a Space with a contact in each hour of the first days of June."""
    people = contacts_every(HOUR, JUNE + 30 * MINUTE, JUNE + days * DAY)
    world.fill(people, processing_seconds=seconds, **rules)


def every_id(world: World) -> list[int]:
    return sorted(person.id for person in world.space.population.between(JUNE, JUNE + 99 * DAY))


def max_unfinished(world: World) -> int:
    """The largest number of exports that were queued or processing at the same time."""
    exports = world.space.exports.values()
    return max(
        sum(one.created_at <= latest.created_at < one.completed_at for one in exports)
        for latest in exports
    )


class TestSpaces:
    """Complete runs against several kinds of Spaces."""

    def test_exports_in_flight_increase_in_a_parallel_space(self, world: World) -> None:
        serve(world, days=29, seconds=200, queued_seconds=0)

        run = world.sync(window_days=1, end_date="2024-06-30T00:00:00Z")

        assert run.error is None
        assert max_unfinished(world) > 15

    def test_a_serial_space_has_two_exports_in_flight_and_no_timeout(self, world: World) -> None:
        serve(world, days=9, seconds=1200, workers=1)

        run = world.sync(window_days=1, end_date="2024-06-10T00:00:00Z")

        assert run.error is None
        assert max_unfinished(world) == 2
        assert len(world.windows()) == 9

    @pytest.mark.parametrize("status", [409, 422, 423])
    def test_no_contact_is_missing_if_a_third_export_is_refused(
        self, world: World, status: int
    ) -> None:
        serve(world, days=9, seconds=60, max_exports_in_flight=2, in_flight_refusal=status)

        run = world.sync(window_days=1, end_date="2024-06-10T00:00:00Z")

        assert sorted(run.ids) == every_id(world)
        assert [request.status for request in world.requests("create")].count(status) == 1

    def test_no_contact_is_missing_if_more_than_seven_days_are_refused(self, world: World) -> None:
        serve(world, days=29, max_range_days=7)

        run = world.sync(end_date="2024-06-30T00:00:00Z")

        assert sorted(set(run.ids)) == every_id(world)
        lengths = [end - start for start, end in world.windows()]
        assert max(lengths) <= 7 * DAY
        assert len(lengths) < 12

    def test_windows_of_a_daily_run_start_at_local_midnights(self, world: World) -> None:
        world.fill([], timezone="America/New_York")
        state = {"bookmarks": {"contacts": {"replication_key_value": "2024-06-30T11:55:00Z"}}}

        world.sync(state)

        first, second, third = ("2024-06-29T04", "2024-06-30T04", "2024-07-01T04")
        assert [start.isoformat()[:13] for start, _ in world.windows()] == [first, second, third]

    def test_dates_are_sent_in_the_spaces_time_zone(self, world: World) -> None:
        world.fill([], timezone="America/New_York")

        world.sync(start_date="2024-06-01T04:00:00Z", end_date="2024-06-01T15:30:07Z")

        (request,) = world.requests("create")
        assert request.json == {
            "start_date": "2024-06-01 00:00:00",
            "end_date": "2024-06-01 11:30:07",
        }


class TestResponses:
    """Unusual responses to polls."""

    def test_an_unknown_status_counts_as_processing(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.simulator.faults.add("create", UnknownStatus("archiving", polls=3), times=2)

        world.sync(window_days=1, end_date="2024-06-03T00:00:00Z")

        assert len(world.windows()) == 2
        assert [message for message in caplog.messages if "archiving" in message] == [
            "Unknown export status 'archiving'; treating it as processing"
        ]

    def test_a_completed_export_without_a_url_is_polled_again(self, world: World) -> None:
        world.simulator.faults.add("create", CompletedWithoutUrl(polls=3))

        world.sync(end_date="2024-06-02T00:00:00Z")

        assert [request.export_status for request in world.requests("poll")].count("completed") == 4

    def test_an_export_without_a_url_for_five_minutes_is_only_retried(self, world: World) -> None:
        world.simulator.faults.add("create", CompletedWithoutUrl(polls=None), times=None)

        run = world.sync(end_date="2024-06-02T00:00:00Z")

        assert "completed without a download URL for 5 min" in str(run.error)
        assert world.windows() == [(JUNE, JUNE + DAY)] * 2
        first, second = (request.time for request in world.requests("create"))
        assert 300 <= second - first < 320

    @pytest.mark.parametrize(
        "fault", [ExportFails(), ExportVanishes(), ExportStuck(), UnknownStatus(polls=None)]
    )
    def test_no_contact_is_missing_after_two_failures(
        self, world: World, fault: ExportFault
    ) -> None:
        serve(world)
        world.simulator.faults.add("create", fault, times=2)

        run = world.sync(end_date="2024-06-02T00:00:00Z", export_timeout_minutes=1)

        assert run.bookmarks == ["2024-06-01T12:00:00+00:00", "2024-06-02T00:00:00+00:00"]
        assert sorted(set(run.ids)) == every_id(world)


class TestFiles:
    """When the storage refuses a URL, the export is polled for a fresh one."""

    @pytest.fixture(autouse=True)
    def _space(self, world: World) -> None:
        serve(world)

    def cut(self, world: World) -> None:
        """Cut the connection within the file, then refuse the URL."""
        world.simulator.faults.add("create", Layout(FileLayout(plain=True)))
        world.simulator.faults.add("download", Cut(200))
        world.simulator.faults.add("download", Expired())

    def test_a_download_is_resumed_with_a_fresh_url(self, world: World) -> None:
        self.cut(world)

        run = world.sync(end_date="2024-06-02T00:00:00Z")

        assert run.error is None
        assert sorted(run.ids) == every_id(world)
        assert len(world.windows()) == 1

    def test_an_export_is_retried_if_its_urls_are_refused_at_byte_0(self, world: World) -> None:
        world.simulator.faults.add(
            "download", Expired(), times=None, when=lambda request: request.export_id == 1
        )

        run = world.sync(end_date="2024-06-02T00:00:00Z")

        assert run.error is None
        assert sorted(run.ids) == every_id(world)
        assert len(world.windows()) == 2

    def test_an_export_that_fails_while_its_file_is_read_fails_the_run(self, world: World) -> None:
        self.cut(world)
        world.simulator.faults.add("poll", ExportFails("Query failed."), after=1, times=None)

        run = world.sync(end_date="2024-06-02T00:00:00Z")

        assert 'its download cannot be resumed (failed: "Query failed.")' in str(run.error)
        assert len(world.windows()) == 1

    def test_a_file_is_freed_once_it_is_read(self, world: World) -> None:
        tap = world.tap()
        plan = WindowPlan(JUNE, JUNE + 3 * DAY, SETTINGS.zone)
        client, storage = CometlyClient(tap.settings, world.clock), Storage("test", world.clock)
        files = []

        gc.disable()
        for export in Exports(plan, client, storage, world.clock, tap.settings):
            files.append(weakref.ref(cast("Any", export.file)))
            list(cast("Any", export.file).blocks())
        freed = [file() is None for file in files[:-1]]
        gc.enable()

        assert freed == [True, True]


class TestErrors:
    """Every error names the window, and after the create also the export."""

    @pytest.mark.parametrize(
        ("where", "fault", "name"),
        [
            pytest.param("create", Refuse(401, "No."), "The export", id="create"),
            pytest.param("poll", Refuse(401, "No."), "Export 2", id="poll"),
            pytest.param("create", Truncated(-1), "Export 2", id="file"),
            pytest.param("create", Layout(FileLayout(lines=(b"no json",))), "Export 2", id="line"),
        ],
    )
    def test_an_error_names_the_export_and_its_window(
        self, world: World, where: Endpoint, fault: Fault, name: str
    ) -> None:
        serve(world, days=2)
        world.simulator.faults.add(
            where, fault, times=None, when=lambda request: request.start == JUNE + DAY
        )

        run = world.sync(window_days=1, end_date="2024-06-03T00:00:00Z")

        window = "2024-06-02T00:00:00+00:00 to 2024-06-03T00:00:00+00:00"
        assert str(run.error).startswith(f"{name} of {window}: ")
        assert len(str(run.error).splitlines()) == 1


class TestHeartbeat:
    """A long wait is logged every 30 seconds."""

    def test_waiting_for_an_export_is_logged_every_30_seconds(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")

        next(iter(FakeCometly(seconds=95).exports(days=1)))

        assert caplog.messages == [
            f"Waiting for export 1, {seconds} s so far" for seconds in (30, 60, 90)
        ]

    def test_waiting_for_the_limit_on_creates_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        cometly = FakeCometly(seconds=1, creates_per_minute=1)
        caplog.set_level("INFO")

        list(cometly.exports(days=2, max_concurrent_exports=1))

        assert caplog.messages == ["Waiting to create an export, 30 s so far"]
