"""The bookmark: it belongs to windows, not to records.

It is the end of the last window whose contacts were all written, and only `advance` moves it.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from singer_sdk.streams._state import StreamStateManager  # of the public Stream.state_manager
from typing_extensions import override

from tap_cometly.errors import SettingError, TapError
from tap_cometly.times import format_utc, read_instant

if TYPE_CHECKING:
    from collections.abc import Mapping

STREAM = "contacts"
REPLICATION_KEY = "created_until"

logger = logging.getLogger("tap-cometly")


def read_state(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check a given state and bring it into the shape that the SDK reads.

    Args:
        given: A STATE value, or what `meltano state get` prints.

    Returns:
        The state without `partitions` and `progress_markers`, which the stream does not have.

    Raises:
        TapError: It is not a Singer state, or its entry for the stream is malformed.
    """
    if set(given) == {"singer_state"} and isinstance(given["singer_state"], dict):
        given = given["singer_state"]
    if not given:
        return {}
    bookmarks = given.get("bookmarks")
    if not isinstance(bookmarks, dict) or not isinstance(bookmarks.get(STREAM, {}), dict):
        message = (
            "The --state file is not a Singer state; pass the value of a STATE line, "
            'like {"bookmarks": {"contacts": {…}}}, or leave --state out.'
        )
        raise TapError(message)
    if bookmarks and STREAM not in bookmarks:
        logger.warning("The state has no bookmark for '%s'; starting from start_date", STREAM)
    return {
        "bookmarks": {
            stream: {
                key: value
                for key, value in entry.items()
                if key not in ("partitions", "progress_markers")
            }
            for stream, entry in bookmarks.items()
            if isinstance(entry, dict)
        }
    }


def warn_about_future_bookmark(given: Any, now: datetime) -> None:  # noqa: ANN401 - any JSON
    """Log a warning if the bookmark is in the future; invalid states are rejected elsewhere."""
    try:
        value = given.get("singer_state", given)["bookmarks"][STREAM]["replication_key_value"]
    except (AttributeError, KeyError, TypeError):
        return
    bookmark = read_instant(value, UTC) if isinstance(value, str) else None
    if bookmark is not None and bookmark > now:
        logger.warning("The bookmark is in the future: %s", format_utc(bookmark))


class WindowStateManager(StreamStateManager):
    """The SDK's state manager, with a bookmark that only finished windows move.

    Attributes:
        bookmark: The end of the last finished window, UTC; None before `read_bookmark`, or if
            there is none.
    """

    bookmark: datetime | None = None

    @property
    def is_flushed(self) -> bool:
        """Always true, so that the SDK writes no STATE line in the middle of a window."""
        return True

    @is_flushed.setter
    def is_flushed(self, value: bool) -> None:
        pass

    def read_bookmark(self) -> None:
        """Read the bookmark that an earlier run wrote.

        Raises:
            SettingError: It is not a date-time.
        """
        entry = self.tap_state.get("bookmarks", {}).get(self.stream_name, {})
        value = entry.get("replication_key_value")
        key = entry.get("replication_key") or REPLICATION_KEY
        if value is None:
            return
        if key != REPLICATION_KEY:
            logger.warning(
                "The state's bookmark is for the replication key '%s', not '%s'; "
                "starting from start_date",
                key,
                REPLICATION_KEY,
            )
            return
        self.bookmark = read_instant(value, UTC) if isinstance(value, str) else None
        if self.bookmark is None:
            allowed = "an ISO 8601 date-time like 2024-01-15T00:00:00+00:00, or null"
            raise SettingError("replication_key_value", value, allowed, kind="The state's bookmark")

    def advance(self, end: datetime) -> None:
        """Move the bookmark to the end of a finished window, but never back."""
        if self.bookmark is None or end > self.bookmark:
            self.bookmark = end
            self.stream_state["replication_key"] = REPLICATION_KEY
            self.stream_state["replication_key_value"] = format_utc(end)

    @override
    def write_starting_replication_value(self, *args: Any, **kwargs: Any) -> None:
        pass

    @override
    def write_replication_key_signpost(self, *args: Any, **kwargs: Any) -> None:
        pass

    @override
    def increment_state(self, *args: Any, **kwargs: Any) -> None:
        pass

    @override
    def finalize_state(self, state: dict[str, Any] | None = None) -> None:
        pass
