"""The log of requests and responses."""

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
    """A request and its response.

    Attributes:
        kind: `create`, `poll`, `download` or `other`.
        time: Time of arrival in Unix seconds, by the Space's clock.
        method: The HTTP method.
        path: The decoded path, without the query.
        query: The decoded query.
        headers: The headers; names are case-insensitive.
        json: The decoded JSON body, if any.
        export_id: The export that it created, polled or downloaded.
        start: Start of the export's window in UTC, if known.
        end: End of the export's window in UTC, if known.
        status: Status of the response; None without a response.
        bytes_sent: Bytes of the body that were sent; the client may have read fewer.
        export_status: The export status in a poll response.
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
    export_status: str | None = None
    fault: str | None = None

    @property
    def window(self) -> timedelta:
        """The length of the export's window; zero if unknown."""
        return self.end - self.start if self.start and self.end else timedelta()
