"""The life of an export: ahead but in order, polled with care, replaced when lost."""

from __future__ import annotations

import gc
import itertools
import weakref
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from simulator.faults import (
    Answer,
    CompletedWithoutUrl,
    Cut,
    DownloadUrl,
    Expired,
    ExportFails,
    ExportStuck,
    ExportVanishes,
    Form,
    Redirect,
    Refuse,
    ServerError,
    TooManyRequests,
    Truncated,
    UnknownStatus,
)
from simulator.files import FileForm
from tap_cometly.client import CometlyClient
from tap_cometly.errors import ExportError
from tap_cometly.exports import Exports
from tap_cometly.files import Storage
from tap_cometly.windows import WindowPlan
from tests.conftest import contacts_every

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from simulator import Request
    from simulator.faults import ExportFault, Fault, Where
    from tests.conftest import World

JUNE = datetime(2024, 6, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
IN_FLIGHT = [1, 2, 3, 5]

LOST = [
    pytest.param(ExportFails("Out of ink."), id="failed"),
    pytest.param(ExportVanishes(), id="vanished"),
    pytest.param(ExportStuck(), id="stuck"),
    pytest.param(UnknownStatus(polls=None), id="unknown-status"),
    pytest.param(CompletedWithoutUrl(polls=None), id="without-url"),
]


def until(end: datetime) -> str:
    """An `end_date`."""
    return end.isoformat()


def serve(world: World, days: int = 1, seconds: float = 0, **rules: Any) -> None:
    """A Space with a contact in each of June's first hours, and exports that take some seconds."""
    people = contacts_every(HOUR, JUNE + 30 * MINUTE, JUNE + days * DAY)
    world.fill(people, queued_seconds=seconds / 4, processing_seconds=seconds * 3 / 4, **rules)


def every_id(world: World) -> set[int]:
    """The ids of all contacts of a Space."""
    return {person.id for person in world.space.population.between(JUNE, JUNE + 99 * DAY)}


def exports_of(world: World, days: int, **settings: Any) -> Exports:
    """Exports of June's first days, a window each."""
    of_tap = world.tap(window_days=1, **settings).settings
    first = of_tap.start_date
    return Exports(
        WindowPlan(first, first + timedelta(days=days), of_tap.zone, of_tap.window_seconds),
        CometlyClient(of_tap, world.clock),
        Storage(of_tap.user_agent, world.clock),
        world.clock,
        of_tap,
    )


def asked(world: World, *kinds: Where) -> Iterator[Request]:
    """The requests of some kinds, in order."""
    return (request for request in world.simulator.requests if request.kind in kinds)


def created_ids(world: World) -> list[int]:
    """The exports that were created, in order."""
    return [request.export_id for request in world.requests("create") if request.status == 202]


def lost_ones(world: World) -> set[int]:
    """The exports that were given up."""
    creates: dict[Any, int] = {}
    lost = set()
    for request in world.requests("create"):
        if request.status == 202:
            lost |= {creates[request.start]} if request.start in creates else set()
            creates[request.start] = request.export_id
    # The last poll of these said so, though they are not replaced yet.
    for request in world.requests("poll"):
        if request.said == "failed" or request.status == 404:
            lost.add(request.export_id)
    return lost


def busiest_minute(times: Iterable[float]) -> int:
    """How many of some moments are in the minute that has most of them."""
    moments = list(times)
    return max(sum(start <= one < start + 60 for one in moments) for start in moments)


class TestOrder:
    """Exports are made at the same time, and handed on one by one."""

    def test_windows_come_in_order_and_meet(self, world: World) -> None:
        windows = [export.window for export in exports_of(world, days=5)]

        assert [window.start for window in windows] == [JUNE + n * DAY for n in range(5)]
        assert [window.end for window in windows] == [JUNE + (n + 1) * DAY for n in range(5)]

    def test_the_first_comes_first_though_it_takes_longest(self, world: World) -> None:
        world.simulator.faults.add("create", CompletedWithoutUrl(polls=6))

        first, *_ = exports_of(world, days=3)

        assert first.window.start == JUNE
        assert [request.export_id for request in world.requests("download")] == [1, 2, 3]

    def test_one_that_is_created_anew_keeps_its_place(self, world: World) -> None:
        world.simulator.faults.add("create", ExportFails())

        starts = [export.window.start for export in exports_of(world, days=4)]

        assert starts == [JUNE + n * DAY for n in range(4)]

    def test_a_file_that_was_read_is_let_go(self, world: World) -> None:
        serve(world, days=3)
        files = []

        for export in exports_of(world, days=3):
            files.append(weakref.ref(export.file))
            for _ in export.blocks():
                pass

        gc.collect()
        assert [file() for file in files[:-1]] == [None, None]

    def test_no_window_makes_no_request(self, world: World) -> None:
        assert list(exports_of(world, days=0)) == []
        assert world.simulator.requests == []

    def test_dates_are_sent_in_the_spaces_time(self, world: World) -> None:
        world.fill([], timezone="America/New_York")

        world.sync(start_date="2024-06-01T04:00:00Z", end_date="2024-06-01T15:30:07Z")

        (request,) = world.requests("create")
        assert request.json == {
            "start_date": "2024-06-01 00:00:00",
            "end_date": "2024-06-01 11:30:07",
        }


class TestAhead:
    """While Cometly works on one export it is given the next ones, but never too many."""

    @pytest.mark.parametrize("most", IN_FLIGHT)
    def test_so_many_are_created_before_the_first_is_read(self, world: World, most: int) -> None:
        next(iter(exports_of(world, days=9, max_concurrent_exports=most)))

        assert created_ids(world) == list(range(1, most + 1))

    @pytest.mark.parametrize("most", IN_FLIGHT)
    @pytest.mark.parametrize("fault", [None, ExportFails(), ExportVanishes(2), ExportStuck()])
    def test_never_more_are_created_and_not_wholly_read(
        self, world: World, most: int, fault: ExportFault | None
    ) -> None:
        serve(world, days=7, seconds=20)
        if fault:
            world.simulator.faults.add("create", fault, times=3, after=2)
        settings = {"max_concurrent_exports": most, "export_timeout_minutes": 1}
        read: set[int] = set()

        for export in exports_of(world, days=7, **settings):
            for _ in export.blocks():
                assert len(set(created_ids(world)) - lost_ones(world) - read) <= most
            read.add(export.export_id)

    @pytest.mark.parametrize("most", IN_FLIGHT)
    def test_one_that_is_read_makes_room_at_once(self, world: World, most: int) -> None:
        serve(world, days=9, seconds=5, creates_per_minute=None)

        world.sync(window_days=1, end_date=until(JUNE + 9 * DAY), max_concurrent_exports=most)

        # After a download comes a create, before any poll, as long as there is a window left.
        order = [request.kind for request in asked(world, "create", "poll", "download")]
        after_download = [next_ for one, next_ in itertools.pairwise(order) if one == "download"]
        assert after_download[: 9 - most] == ["create"] * (9 - most)

    def test_room_is_filled_when_a_rate_limit_ends_while_the_head_is_made(
        self, world: World
    ) -> None:
        serve(world, days=3, seconds=60)
        world.simulator.faults.add("create", TooManyRequests(retry_after=7), after=1)

        next(iter(exports_of(world, days=3, max_concurrent_exports=3)))

        began = world.requests("create")[0].time
        waits = [request.time - began for request in world.requests("create")]
        assert waits == [0, 0, 7, 7]

    def test_a_rate_limit_for_the_next_one_does_not_delay_the_reading(self, world: World) -> None:
        serve(world, days=3, seconds=10)
        world.simulator.faults.add("create", TooManyRequests(retry_after=600), after=1)

        next(iter(exports_of(world, days=3)))

        assert world.requests("download")[0].time - world.requests("create")[0].time < 15

    def test_a_rate_limit_for_the_first_one_is_waited_for(self, world: World) -> None:
        world.simulator.faults.add("create", TooManyRequests(retry_after=600), times=2)

        next(iter(exports_of(world, days=3)))

        began, _, third, *_ = (request.time for request in world.requests("create"))
        assert third - began == 1200

    def test_a_window_is_planned_when_there_is_room_for_it(self, world: World) -> None:
        """So that its length follows the windows read by then."""
        world.sync(end_date=until(JUNE + 29 * DAY), max_concurrent_exports=1)

        lengths = [end - start for start, end in world.windows()]
        assert lengths == [DAY, 10 * DAY, 18 * DAY]


class TestPace:
    """Cometly's limits are respected without being known; time is not wasted."""

    def test_only_the_export_that_is_to_be_read_next_is_polled(self, world: World) -> None:
        serve(world, days=3, seconds=30)

        next(iter(exports_of(world, days=3)))

        assert {request.export_id for request in world.requests("poll")} == {1}

    def test_one_that_was_made_meanwhile_is_polled_once(self, world: World) -> None:
        serve(world, days=3, seconds=30)

        world.sync(window_days=1, end_date=until(JUNE + 3 * DAY))

        polled = [request.export_id for request in world.requests("poll")]
        assert [polled.count(2), polled.count(3)] == [1, 1]

    @pytest.mark.parametrize("seconds", [10, 14, 25, 60, 220, 300])
    def test_a_quarter_of_the_time_is_wasted_at_most_and_never_more_than_15_seconds(
        self, world: World, seconds: float
    ) -> None:
        serve(world, seconds=seconds)

        next(iter(exports_of(world, days=1)))

        (create,), (download,) = world.requests("create"), world.requests("download")
        assert download.time - create.time <= min(1.25 * seconds, seconds + 15)

    @pytest.mark.parametrize("most", [1, 3, 5])
    @pytest.mark.parametrize("seconds", [4, 7, 12, 30, 200])
    def test_30_polls_a_minute_suffice(self, world: World, most: int, seconds: float) -> None:
        serve(world, days=12, seconds=seconds, polls_per_minute=None)
        world.simulator.faults.add("download", Expired(), times=6)
        world.simulator.faults.add("create", ExportFails(), times=4, after=2)

        run = world.sync(
            window_days=1, end_date=until(JUNE + 12 * DAY), max_concurrent_exports=most
        )

        assert run.error is None
        assert busiest_minute(request.time for request in world.requests("poll")) <= 30

    @pytest.mark.parametrize("seconds", [1, 10, 20, 30])
    def test_a_backfill_takes_12_seconds_an_export(self, world: World, seconds: float) -> None:
        serve(world, days=25, seconds=seconds)
        began = world.clock.now()

        world.sync(window_days=1, end_date=until(JUNE + 25 * DAY))

        assert world.clock.now() - began <= 25 * 12 * 1.1

    @pytest.mark.parametrize("seconds", [60, 120, 300])
    def test_slow_exports_are_made_at_the_same_time(self, world: World, seconds: float) -> None:
        serve(world, days=15, seconds=seconds)
        began = world.clock.now()

        world.sync(window_days=1, end_date=until(JUNE + 15 * DAY), max_concurrent_exports=5)

        assert world.clock.now() - began <= 3 * seconds * 1.25

    def test_higher_limits_are_made_use_of(self, world: World) -> None:
        serve(world, days=29, seconds=1, creates_per_minute=None, polls_per_minute=None)
        began = world.clock.now()

        world.sync(window_days=1, end_date=until(JUNE + 29 * DAY), max_concurrent_exports=5)

        assert world.clock.now() - began < 29

    def test_ten_years_of_a_quiet_space_take_some_fifty_exports(self, world: World) -> None:
        decade = 10 * 365 * DAY
        people = contacts_every(DAY, JUNE - decade + HOUR, JUNE)
        world.fill(people)

        run = world.sync(start_date=until(JUNE - decade), end_date=until(JUNE))

        assert set(run.ids) == {person.id for person in people}
        assert 45 <= len(world.windows()) <= 50

    def test_two_runs_at_once_share_the_limits_and_both_complete(self, world: World) -> None:
        serve(world, days=10, seconds=5)
        began = world.clock.now()

        both = [exports_of(world, days=10, max_concurrent_exports=5) for _ in range(2)]
        windows = [[export.window for export in pair] for pair in zip(*both, strict=True)]

        assert [one for one, _ in windows] == [other for _, other in windows]
        assert len(windows) == 10
        assert any(request.status == 429 for request in world.requests("create"))
        assert world.clock.now() - began >= 3 * 60  # for 20 exports, five a minute

    def test_a_rate_limit_for_polls_is_waited_for(self, world: World) -> None:
        world.simulator.faults.add("poll", TooManyRequests(retry_after=100))

        next(iter(exports_of(world, days=1)))

        limited, good = world.requests("poll")
        assert good.time - limited.time == 100


class TestLostExports:
    """Created anew once; then the window is halved; then the run fails."""

    @pytest.mark.parametrize("fault", LOST)
    def test_one_is_created_anew(self, world: World, fault: ExportFault) -> None:
        serve(world)
        world.simulator.faults.add("create", fault)

        run = world.sync(end_date=until(JUNE + DAY), export_timeout_minutes=1)

        assert world.windows() == [(JUNE, JUNE + DAY)] * 2
        assert run.error is None
        assert set(run.ids) == every_id(world)

    @pytest.mark.parametrize("fault", LOST)
    def test_after_two_the_window_is_halved(self, world: World, fault: ExportFault) -> None:
        serve(world)
        world.simulator.faults.add("create", fault, times=2)

        run = world.sync(end_date=until(JUNE + DAY), export_timeout_minutes=1)

        noon = JUNE + 12 * HOUR
        assert world.windows()[2:] == [(JUNE, noon), (noon, JUNE + DAY)]
        assert run.bookmarks == [bound_of(noon), bound_of(JUNE + DAY)]
        assert set(run.ids) == every_id(world)

    def test_a_half_is_created_anew_and_halved_by_the_same_rule(self, world: World) -> None:
        serve(world)
        world.simulator.faults.add("create", ExportFails(), times=4)

        run = world.sync(end_date=until(JUNE + DAY), max_concurrent_exports=1)

        six, noon, night = (JUNE + hours * HOUR for hours in (6, 12, 24))
        whole, first_half = [(JUNE, night)] * 2, [(JUNE, noon)] * 2
        quarters_and_half = [(JUNE, six), (six, noon), (noon, night)]
        assert world.windows() == whole + first_half + quarters_and_half
        assert set(run.ids) == every_id(world)

    @pytest.mark.parametrize("most", IN_FLIGHT)
    def test_large_windows_that_always_fail_end_in_small_ones(
        self, world: World, most: int
    ) -> None:
        serve(world, days=2)
        world.simulator.faults.add(
            "create", ExportFails(), times=None, when=lambda request: request.window > 5 * HOUR
        )

        run = world.sync(window_days=1, end_date=until(JUNE + 2 * DAY), max_concurrent_exports=most)

        assert run.error is None
        assert run.bookmarks == [bound_of(JUNE + n * 3 * HOUR) for n in range(1, 17)]
        assert set(run.ids) == every_id(world)

    def test_a_window_of_an_hour_is_not_halved(self, world: World) -> None:
        world.simulator.faults.add("create", ExportFails("Out of ink."), times=None)

        run = world.sync(end_date=until(JUNE + HOUR))

        assert isinstance(run.error, ExportError)
        assert world.windows() == [(JUNE, JUNE + HOUR)] * 2

    def test_a_window_of_little_more_than_an_hour_is_halved(self, world: World) -> None:
        world.simulator.faults.add("create", ExportFails(), times=2)

        run = world.sync(end_date=until(JUNE + HOUR + timedelta(seconds=1)))

        assert run.error is None
        assert len(world.windows()) == 4

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (ExportFails("Out of ink."), "Out of ink."),
            (ExportVanishes(), "Export not found."),
            (ExportStuck(), "not done 3 min after its creation"),
        ],
        ids=["failed", "vanished", "stuck"],
    )
    def test_the_last_error_names_export_window_and_reason(
        self, world: World, fault: ExportFault, said: str
    ) -> None:
        world.simulator.faults.add("create", fault, times=None)

        run = world.sync(end_date=until(JUNE + HOUR), export_timeout_minutes=3)

        assert str(run.error).startswith(
            "Export 2 of 2024-06-01T00:00:00+00:00 to 2024-06-01T01:00:00+00:00: "
        )
        assert said in str(run.error)

    def test_what_is_read_by_then_stays_claimed_and_no_more(self, world: World) -> None:
        serve(world, days=2)
        world.simulator.faults.add(
            "create",
            ExportFails(),
            times=None,
            when=lambda request: bool(request.end and request.end > JUNE + DAY),
        )

        run = world.sync(window_days=1, end_date=until(JUNE + 2 * DAY))

        assert isinstance(run.error, ExportError)
        assert run.bookmarks[-1] == bound_of(JUNE + DAY)

    def test_one_that_vanishes_before_its_file_is_begun_is_created_anew(self, world: World) -> None:
        serve(world)
        world.simulator.faults.add("download", Expired())
        world.simulator.faults.add("create", ExportVanishes(from_poll=2))

        run = world.sync(end_date=until(JUNE + DAY))

        assert created_ids(world) == [1, 2]
        assert set(run.ids) == every_id(world)

    def test_messages_of_failed_exports_show_no_secret(self, world: World) -> None:
        world.simulator.faults.add("create", ExportFails("Who is simulated-key?"), times=None)

        run = world.sync(end_date=until(JUNE + HOUR))

        assert "Who is [hidden]?" in str(run.error)


class TestTimeOut:
    """An export has some minutes from its creation on."""

    @pytest.mark.parametrize("minutes", [0.1, 0.7, 10, 33.3])
    def test_it_is_given_up_at_that_very_moment(self, world: World, minutes: float) -> None:
        world.clock.sleep(0.1)  # a moment that floating point cannot hold
        world.simulator.faults.add("create", ExportStuck())

        next(iter(exports_of(world, days=1, export_timeout_minutes=minutes)))

        stuck, anew = world.requests("create")
        assert anew.time - stuck.time == pytest.approx(minutes * 60)

    def test_it_counts_from_the_creation_not_from_the_first_poll(self, world: World) -> None:
        serve(world, days=2)
        world.simulator.faults.add("create", ExportStuck(), after=1)
        exports = iter(exports_of(world, days=2))

        next(exports)
        world.clock.sleep(31 * 60)  # reading takes its time
        next(exports)

        assert [request.export_id for request in world.requests("poll")][-2:] == [2, 3]

    def test_one_that_is_completed_by_then_is_not_lost(self, world: World) -> None:
        exports = iter(exports_of(world, days=2))

        next(exports)
        world.clock.sleep(10 * 3600)
        next(exports)

        assert created_ids(world) == [1, 2]


class TestStatus:
    """What Cometly says of an export, and what it leaves out."""

    def test_an_unknown_status_counts_as_processing(self, world: World) -> None:
        world.simulator.faults.add("create", UnknownStatus(polls=5))

        next(iter(exports_of(world, days=1)))

        assert created_ids(world) == [1]
        assert len(world.requests("poll")) == 6

    def test_a_run_warns_once_of_unknown_statuses(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.simulator.faults.add("create", UnknownStatus("archiving", polls=3), times=2)

        list(exports_of(world, days=2))

        warnings = [record for record in caplog.records if "archiving" in record.getMessage()]
        assert [record.levelname for record in warnings] == ["WARNING"]

    def test_completed_without_url_is_polled_again_without_a_word(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.simulator.faults.add("create", CompletedWithoutUrl(polls=3))

        next(iter(exports_of(world, days=1)))

        said = [request.said for request in world.requests("poll")]
        assert said.count("completed") == 4
        assert [record for record in caplog.records if record.levelname == "WARNING"] == []

    def test_0_is_an_id_like_any_other(self, world: World) -> None:
        world.simulator.faults.add("create", Answer(202, {"export_id": 0, "status": "queued"}))

        next(iter(exports_of(world, days=1)))

        assert world.requests("poll")[0].path.endswith("/exports/0")


class TestWhileAFileIsRead:
    """An export is polled again when its URL is refused."""

    @pytest.fixture(autouse=True)
    def _broken_off(self, world: World) -> None:
        """The connection is cut in mid-file, and the URL is refused then."""
        serve(world)
        world.simulator.faults.add("create", Form(FileForm(plain=True)))
        world.simulator.faults.add("download", Cut(200))
        world.simulator.faults.add("download", Expired())

    def test_a_fresh_url_goes_on(self, world: World) -> None:
        run = world.sync(end_date=until(JUNE + DAY))

        assert run.error is None
        assert set(run.ids) == every_id(world)
        order = [request.kind for request in asked(world, "poll", "download")]
        assert order == ["poll", "download", "download", "poll", "download"]

    def test_a_fresh_url_comes_soon(self, world: World) -> None:
        serve(world, seconds=300)
        world.simulator.faults.add("download", Expired())

        next(iter(exports_of(world, days=1)))

        first, second = world.requests("download")
        assert second.time - first.time <= 2.5

    def test_an_export_that_vanishes_then_ends_the_run(self, world: World) -> None:
        world.simulator.faults.add("poll", Refuse(404, "Export not found."), after=1)

        run = world.sync(end_date=until(JUNE + DAY))

        assert "Export 1 of 2024-06-01T00:00:00+00:00 to " in str(run.error)
        assert "Export not found." in str(run.error)
        assert created_ids(world) == [1]

    def test_an_export_that_fails_then_ends_the_run(self, world: World) -> None:
        world.simulator.faults.add("poll", ExportFails("Out of ink."), after=1)

        run = world.sync(end_date=until(JUNE + DAY))

        assert "Out of ink." in str(run.error)
        assert created_ids(world) == [1]

    def test_a_key_that_is_withdrawn_then_ends_the_run(self, world: World) -> None:
        world.simulator.faults.add("poll", Refuse(401, "Unauthenticated."), after=1)

        run = world.sync(end_date=until(JUNE + DAY))

        assert "Export 1 of 2024-06-01T00:00:00+00:00 to " in str(run.error)
        assert "Unauthenticated." in str(run.error)

    def test_a_missing_url_is_waited_for_however_old_the_export(self, world: World) -> None:
        nameless = Answer(200, {"export_id": 1, "status": "completed"})
        world.simulator.faults.add("poll", nameless, times=3, after=1)
        exports = iter(exports_of(world, days=1))
        export = next(exports)

        world.clock.sleep(3600)  # between two blocks, say
        read = b"".join(block.lines for block in export.blocks())

        assert read.count(b"\n") == len(every_id(world))
        assert next(exports, None) is None


class TestErrors:
    """Every failure after a create names the export and its window, as in the records."""

    @pytest.mark.parametrize(
        ("where", "fault"),
        [
            ("poll", Refuse(401, "No.")),
            ("poll", Refuse(403, "No.")),
            ("poll", Redirect("https://elsewhere.example/")),
            ("poll", ServerError()),
            ("poll", Answer(200, b"<html>")),
            ("poll", DownloadUrl("http://bucket.example/file")),
            ("poll", DownloadUrl("https://[bad")),
            ("download", Redirect("https://elsewhere.example/")),
            ("download", Answer(404)),
            ("download", Expired()),
            ("download", ServerError()),
            ("create", Truncated(-1)),
            ("create", Form(FileForm(lines=(b"no json",)))),
        ],
        ids=repr,
    )
    def test_one_that_ends_a_run_names_them(self, world: World, where: Where, fault: Fault) -> None:
        serve(world, days=2)
        second = JUNE + DAY
        world.simulator.faults.add(
            where, fault, times=None, when=lambda request: request.start == second
        )

        run = world.sync(window_days=1, end_date=until(JUNE + 2 * DAY))

        window = "2024-06-02T00:00:00+00:00 to 2024-06-03T00:00:00+00:00"
        assert f"Export 2 of {window}: " in str(run.error)
        assert len(str(run.error).splitlines()) == 1
        assert run.bookmarks[-1] == bound_of(second)

    def test_a_create_that_fails_names_its_window(self, world: World) -> None:
        world.simulator.faults.add("create", Refuse(401, "Unauthenticated."), after=1)

        run = world.sync(window_days=1, end_date=until(JUNE + 2 * DAY))

        window = "2024-06-02T00:00:00+00:00 to 2024-06-03T00:00:00+00:00"
        assert str(run.error).startswith(f"The export of {window}: Cometly refused to create")


class TestHeartbeat:
    """A wait is mentioned now and then."""

    @pytest.fixture(autouse=True)
    def _at_info(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")

    def test_for_an_export(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        serve(world, seconds=100)

        next(iter(exports_of(world, days=1)))

        assert [message for message in caplog.messages if message.startswith("Waiting")] == [
            f"Waiting for export 1, {seconds} s so far" for seconds in (30, 60, 90)
        ]

    @pytest.mark.parametrize(
        ("kind", "what"),
        [("create", "Cometly's limit on new exports"), ("poll", "export 1")],
    )
    def test_for_a_rate_limit(
        self, world: World, caplog: pytest.LogCaptureFixture, kind: Where, what: str
    ) -> None:
        world.simulator.faults.add(kind, TooManyRequests(retry_after=100))

        next(iter(exports_of(world, days=1)))

        beats = [message for message in caplog.messages if message.startswith("Waiting")]
        assert len(beats) == 3
        assert all(f"Waiting for {what}" in beat for beat in beats)

    def test_not_for_a_short_wait(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        serve(world, days=3, seconds=20)

        list(exports_of(world, days=3))

        assert "Waiting" not in caplog.text


def bound_of(moment: datetime) -> str:
    """A moment as in the records."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S+00:00")
