"""What a simulator was asked, and what it answered."""

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
    """One request.

    Attributes:
        kind: `create`, `poll`, `download` or `other`.
        time: When it came, in Unix seconds by the Space's clock.
        method: The HTTP method.
        path: The path, without the query.
        query: The query, decoded.
        headers: The headers; names are found in any case.
        json: The decoded JSON of the body; None without one.
        export_id: The export it is about; of a create the one it made, None if it made none.
        start: Start of the window it is about, an instant in UTC; None if unknown.
        end: End of that window, likewise.
        status: What was answered; None as long as nothing is, and if nothing ever was.
        bytes_sent: Bytes of the body given to the connection; the client may have read fewer.
        said: What a poll said its export's status is.
        fault: The name of the scripted fault it met.
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
