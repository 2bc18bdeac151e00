"""Runs a sync: plans windows, exports them, reads their contacts and logs the progress."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tap_cometly.client import CometlyClient
from tap_cometly.exports import Exports, error_context
from tap_cometly.files import Storage
from tap_cometly.progress import Progress
from tap_cometly.times import LONGER_THAN_ANY_RANGE_SECONDS, format_utc
from tap_cometly.windows import WindowPlan, sync_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgspec import Struct

    from tap_cometly.contacts import ContactReader
    from tap_cometly.exports import Export
    from tap_cometly.settings import Settings
    from tap_cometly.times import Clock
    from tap_cometly.windows import Window

logger = logging.getLogger("tap-cometly")


def windows_of_contacts(
    settings: Settings, bookmark: datetime | None, reader: ContactReader, clock: Clock
) -> Iterator[tuple[Window, Iterator[list[Struct]]]]:
    """Export everything from the bookmark, or `start_date`, to the end of the range.

    Args:
        settings: The Space, and the range.
        bookmark: The end of the last window that an earlier run finished.
        reader: Decodes and checks the contacts.
        clock: Tells the time, and waits.

    Yields:
        Each window in order, with its contacts in blocks, which must be read before the next
        window is requested.
    """
    sync = sync_range(
        start_date=settings.start_date,
        end_date=settings.end_date,
        bookmark=bookmark,
        lookback_days=settings.lookback_days,
        now=datetime.fromtimestamp(clock.now(), UTC),
        zone=settings.zone,
    )
    if sync is None:
        name, instant = "start_date", settings.start_date
        if bookmark is not None and bookmark >= instant:
            name, instant = "bookmark", bookmark
        logger.info(
            "Nothing to sync: the %s (%s) is at or after the end of the range, which is end_date "
            "or five minutes ago",
            name,
            format_utc(instant),
        )
        return
    progress = Progress(*sync, settings.zone, clock.monotonic())
    logger.info("%s", progress.opening())
    plan = WindowPlan(*sync, settings.zone, settings.window_seconds)
    client, storage = CometlyClient(settings, clock), Storage(settings.user_agent, clock)
    exports = Exports(plan, client, storage, clock, settings)
    for export in exports:
        yield export.window, _contacts(export, reader)
        now, left = clock.monotonic(), exports.windows_left
        logger.info("%s", progress.window_done(export.window, export.contacts, now, left))
    logger.info("%s", progress.closing(clock.monotonic()))


def _contacts(export: Export, reader: ContactReader) -> Iterator[list[Struct]]:
    """The contacts of an export's file, in blocks; counts them."""
    assert export.file  # noqa: S101 - open while the export is handed over
    with error_context(export):
        # By `map`, which drops a block as soon as its contacts are read.
        for contacts in map(reader.read, export.file.blocks()):
            export.contacts += len(contacts)
            yield contacts


def newest_first(
    settings: Settings, reader: ContactReader, clock: Clock
) -> Iterator[tuple[Window, Iterator[list[Struct]]]]:
    """Search backwards from the end of the range, in steps of 1, 10, 100 … days.

    Yields:
        As `windows_of_contacts`, but newest steps first.
    """
    settings = replace(settings, max_concurrent_exports=1)
    client, storage = CometlyClient(settings, clock), Storage(settings.user_agent, clock)
    now = datetime.fromtimestamp(clock.now(), UTC)
    end, days = settings.end_date, 1
    while True:
        until = min(end or now, now)
        step = sync_range(
            start_date=max(settings.start_date, until - timedelta(days=days)),
            end_date=end,
            bookmark=None,
            lookback_days=0,
            now=now,
            zone=settings.zone,
        )
        if step is None:
            return
        plan = WindowPlan(*step, settings.zone, LONGER_THAN_ANY_RANGE_SECONDS)
        for export in Exports(plan, client, storage, clock, settings):
            yield export.window, _contacts(export, reader)
        end, days = step[0], min(days * 10, 100_000)  # 100,000 days reach back beyond 1900
