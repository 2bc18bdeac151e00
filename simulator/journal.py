"""The log of requests and answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

Kind = Literal["create", "poll", "download", "other"]


@dataclass(eq=False)
class Request:
    """A request and its answer.

    Attributes:
        kind: `create`, `poll`, `download` or `other`.
        time: Its arrival in Unix seconds, by the Space's clock.
        method: The HTTP method.
        path: The path, decoded, without the query.
        query: The query, decoded.
        headers: The headers; names are case-insensitive.
        json: The decoded JSON body; None without one.
        export_id: The export it is about, or which it created.
        start: Start of the export's window in UTC; None if unknown.
        end: End of that window, likewise.
        status: Status of the answer; None without an answer.
        bytes_sent: Bytes of the body passed to the connection; the client may have read fewer.
        said: The export status in the answer to a poll.
        fault: The name of the injected fault.
    """

    kind: Kind
    time: float
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    json: object = None
    export_id: int | None = None
    start: datetime | None = None
    end: datetime | None = None
    status: int | None = None
    bytes_sent: int = 0
    said: str | None = None
    fault: str | None = None

    @property
    def window(self) -> timedelta:
        """The elapsed time from `start` to `end`; zero if unknown."""
        return self.end - self.start if self.start and self.end else timedelta()
