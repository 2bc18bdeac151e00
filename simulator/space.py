"""The rules of a Cometly Space, without HTTP: exports, rate limits, URLs, file contents."""

from __future__ import annotations

import base64
import hashlib
import heapq
import hmac
import math
import re
import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import parse_qs, urlencode
from zoneinfo import ZoneInfo

from simulator.files import FileLayout, make_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from simulator.population import Contact, Population

ApiEndpoint = Literal["create", "poll"]

_MINUTE: Final = 60.0
_WALL_CLOCK: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)", re.ASCII)
_CACHE_BYTES: Final = 256 * 2**20
_PENDING_MESSAGES: Final = {
    "queued": "Export is queued. Please check back in a few minutes.",
    "processing": "Export is being processed. Please check back in a few minutes.",
}


class Refused(Exception):  # noqa: N818 - a response, not a bug
    """The Space refuses a request.

    Attributes:
        status: The HTTP status.
        message: The message of the response.
        errors: For a 422, Laravel's messages by field.
    """

    def __init__(
        self, status: int, message: str, errors: Mapping[str, list[str]] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors


class ExportRequest(NamedTuple):
    """A valid create request.

    Attributes:
        start: `start_date`, aware, in the Space's zone.
        end: `end_date`, aware, in the Space's zone.
        comet_tokens: Whether the file has `comet_tokens`.
        all_emails: Whether the file has `emails`.
    """

    start: datetime
    end: datetime
    comet_tokens: bool
    all_emails: bool

    @property
    def utc_window(self) -> tuple[datetime, datetime]:
        """Start and end in UTC."""
        return to_utc(self.start), to_utc(self.end)


@dataclass(eq=False)
class Export:
    """An export job; all its times are fixed when it is created.

    Attributes:
        id: Numbered from 1 in each Space.
        request: The create request.
        created_at: Unix seconds.
        started_at: Unix seconds; when `queued` becomes `processing`.
        completed_at: Unix seconds.
        polls: Number of polls.
        completed_polls: Number of polls since its completion.
        population: The contacts at its completion; None before.
        contacts: Number of contacts in its file; None before its first download.
    """

    id: int
    request: ExportRequest
    created_at: float
    started_at: float
    completed_at: float
    polls: int = 0
    completed_polls: int = 0
    population: Population | None = None
    contacts: int | None = None

    @property
    def path(self) -> str:
        """The path of the file in the storage."""
        return f"/exports/{uuid.uuid5(uuid.NAMESPACE_URL, f'export {self.id}')}.ndjson.gz"


class Quota(NamedTuple):
    """The state of an endpoint's rate limit after a request.

    Attributes:
        limit: Requests per minute; None: unlimited.
        remaining: Requests left in this minute.
        retry_after: Seconds until the next minute, if this request exceeds the limit.
    """

    limit: int | None
    remaining: int
    retry_after: int | None

    @property
    def headers(self) -> dict[str, str]:
        """The rate limit headers."""
        if self.limit is None:
            return {}
        headers = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
        }
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return headers


class StoredFile(NamedTuple):
    """An object in the storage: its bytes, ETag and number of contacts."""

    data: bytes
    etag: str
    contacts: int


@dataclass(eq=False)
class Space:
    """A Cometly Space: contacts, exports and rules. Thread-safe.

    Attributes:
        population: The contacts; those created after the current time do not exist yet.
        api_key: The only valid key.
        timezone: IANA name of the zone of the dates in create requests.
        end_inclusive: Whether a contact created exactly at `end_date` is in the export.
        wall_clock_comparison: Compare local times instead of UTC times, like a database that stores
            local times. This differs only when a clock change repeats an hour.
        fold: Which occurrence of a repeated local time a request means: 0 the first, 1 the second.
        queued_seconds: Minimum time that an export is queued.
        processing_seconds: Processing time of an export.
        seconds_per_contact: Additional processing time per contact.
        workers: How many exports are processed in parallel, in order of creation; the others stay
            queued. None: unlimited.
        max_exports_in_flight: Refuse a create while this many exports are queued or processing.
        in_flight_refusal: The HTTP status of that refusal.
        max_range_days: Refuse a create with a longer range with 422.
        creates_per_minute: Rate limit of create requests; None: unlimited.
        polls_per_minute: Rate limit of polls; None: unlimited.
        url_lifetime_seconds: How long a download URL is valid after the poll that returned it.
        clock: Returns the time in Unix seconds; None: the real clock.
        sleep: Advances `clock` for slow responses; None: sleep in real time.
        exports: All exports by id.
    """

    population: Population
    _: KW_ONLY
    api_key: str = "simulated-key"
    timezone: str = "UTC"
    end_inclusive: bool = True
    wall_clock_comparison: bool = False
    fold: Literal[0, 1] = 0
    queued_seconds: float = 1.0
    processing_seconds: float = 2.0
    seconds_per_contact: float = 0.0
    workers: int | None = None
    max_exports_in_flight: int | None = None
    in_flight_refusal: Literal[409, 422, 423] = 409
    max_range_days: float | None = None
    creates_per_minute: int | None = 5
    polls_per_minute: int | None = 30
    url_lifetime_seconds: int = 900
    clock: Callable[[], float] | None = None
    sleep: Callable[[float], None] | None = None
    exports: dict[int, Export] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:  # noqa: D105
        self._zone = ZoneInfo(self.timezone)
        endpoints: tuple[ApiEndpoint, ...] = ("create", "poll")
        self._rate_limits = {name: _RateLimit(self.limit(name)) for name in endpoints}
        self._workers_free_at = [-math.inf] * (self.workers or 0)  # a heap
        self._by_path: dict[str, Export] = {}
        self._lock = threading.RLock()
        self._files = _FileCache(_CACHE_BYTES)
        self._signed_urls = 0

    def now(self) -> float:
        """The time in Unix seconds."""
        return time.time() if self.clock is None else self.clock()

    def add(self, contacts: Iterable[Contact]) -> None:
        """Add contacts, or replace those with the same id; completed exports do not change.

        Raises:
            TypeError: A `created_at` has no time zone.
        """
        with self._lock:
            for export in self.exports.values():
                self._complete_if_due(export)
            self.population = self.population.plus(contacts)

    def authorize(self, authorization: str | None) -> None:
        """Check the Authorization header.

        Raises:
            Refused: The key is missing or wrong.
        """
        if authorization is None or not hmac.compare_digest(
            authorization.encode(errors="replace"), f"Bearer {self.api_key}".encode()
        ):
            raise Refused(401, "Unauthenticated.")

    def admit(self, endpoint: ApiEndpoint) -> Quota:
        """Count a request against its endpoint's rate limit."""
        with self._lock:
            return self._rate_limits[endpoint].take(self.now())

    def limit(self, endpoint: ApiEndpoint) -> int | None:
        """Requests per minute that an endpoint allows; None: unlimited."""
        return self.creates_per_minute if endpoint == "create" else self.polls_per_minute

    def parse_export_request(self, body: object) -> ExportRequest:
        """Validate the JSON of a create request, as strictly as Cometly documents.

        Args:
            body: The decoded JSON; treated as an empty object if it is not an object.

        Raises:
            Refused: A field is invalid; 422 with messages by field.
        """
        fields: dict[str, object] = body if isinstance(body, dict) else {}
        errors: dict[str, list[str]] = {}
        start = self._read_time(fields, "start_date", errors)
        end = self._read_time(fields, "end_date", errors)
        if start and end and end <= start:
            errors["end_date"] = ["The end_date field must be a date after start_date."]
        days = self.max_range_days
        # Both have the same zone object, so Python subtracts their wall-clock times.
        if start and end and days is not None and end - start > timedelta(days=days):
            errors["end_date"] = [f"The date range must not be longer than {days:g} days."]
        comet_tokens = _read_flag(fields, "include_comet_tokens", errors)
        all_emails = _read_flag(fields, "include_all_emails", errors)
        if errors or start is None or end is None:
            raise _unprocessable(errors)
        return ExportRequest(start, end, comet_tokens, all_emails)

    def create(self, request: ExportRequest) -> Export:
        """Create an export.

        Raises:
            Refused: Too many exports are in flight.
        """
        with self._lock:
            now = self.now()
            in_flight = sum(now < export.completed_at for export in self.exports.values())
            if self.max_exports_in_flight is not None and in_flight >= self.max_exports_in_flight:
                raise Refused(self.in_flight_refusal, "Too many exports are in progress.")
            started_at = now + self.queued_seconds
            if self.workers is not None:
                started_at = max(started_at, heapq.heappop(self._workers_free_at))
            completed_at = started_at + self._processing_time(request, now)
            if self.workers is not None:
                heapq.heappush(self._workers_free_at, completed_at)
            export = Export(len(self.exports) + 1, request, now, started_at, completed_at)
            self.exports[export.id] = export
            self._by_path[export.path] = export
            return export

    def find_file(self, path: str) -> Export | None:
        """The completed export whose file has this path."""
        with self._lock:
            export = self._by_path.get(path)
            return export if export is not None and self._complete_if_due(export) else None

    def poll(self, export: Export, storage_url: str) -> dict[str, object]:
        """The JSON of a poll response; each poll of a completed export signs a new URL.

        Args:
            export: The export.
            storage_url: Origin of the storage, without a trailing slash.
        """
        with self._lock:
            export.polls += 1
            response: dict[str, object] = {
                "export_id": export.id,
                "status": "completed",
                "created_at": _timestamp(export.created_at),
            }
            if self._complete_if_due(export):
                export.completed_polls += 1
                expires_at = math.floor(self.now()) + self.url_lifetime_seconds
                return response | {
                    "completed_at": _timestamp(export.completed_at),
                    "download_url": storage_url + self.presign(export),
                    "expires_at": _timestamp(expires_at),
                }
            status = self.status(export)
            return response | {"status": status, "message": _PENDING_MESSAGES[status]}

    def status(self, export: Export) -> str:
        """`queued`, `processing` or `completed`."""
        now = self.now()
        if now >= export.completed_at:
            return "completed"
        return "queued" if now < export.started_at else "processing"

    def presign(self, export: Export, *, odd: bool = False) -> str:
        """A signed path and query for an export's file.

        Args:
            export: The export.
            odd: Use valid percent-encodings that HTTP libraries often normalize.
        """
        self._signed_urls += 1
        token = base64.b64encode(hashlib.sha512(b"%d" % self._signed_urls).digest()).decode()
        path = export.path
        query = urlencode(
            {
                "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
                "X-Amz-Date": datetime.fromtimestamp(self.now(), UTC).strftime("%Y%m%dT%H%M%SZ"),
                "X-Amz-Expires": str(self.url_lifetime_seconds),
                # Makes URLs signed within the same second differ.
                "X-Amz-Security-Token": f"session-{self._signed_urls}/{token}",
                "X-Amz-SignedHeaders": "host",
            }
        )
        if odd:
            path = path.replace("-", "%2D").replace(".ndjson", "%2endjson")
            query = query.replace("%2F", "%2f") + "&x-id=%7EGet%20Object+"
        return f"{path}?{query}&X-Amz-Signature={self._sign(f'{path}?{query}')}"

    def check_url(self, target: str) -> str | None:
        """S3's error message if a presigned URL is invalid; None if it is valid.

        Args:
            target: Path and query exactly as requested.
        """
        signed, _, signature = target.rpartition("&X-Amz-Signature=")
        if not hmac.compare_digest(signature.encode(), self._sign(signed).encode()):
            return "The request signature we calculated does not match the signature you provided."
        query = parse_qs(signed.partition("?")[2])
        signed_at = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%S%z").timestamp()
        if self.now() >= signed_at + int(query["X-Amz-Expires"][0]):
            return "Request has expired"
        return None

    def file(self, export: Export, layout: FileLayout | None = None) -> StoredFile:
        """The file of a completed export; deterministic.

        Raises:
            ValueError: The export is not completed.
        """
        layout = layout or FileLayout()
        with self._lock:
            if not self._complete_if_due(export) or export.population is None:
                message = f"export {export.id} is not completed"
                raise ValueError(message)
        population = export.population
        until = datetime.fromtimestamp(export.completed_at, UTC)
        newest = population.last_created_at
        if newest is None or newest <= until:
            until = datetime.max.replace(tzinfo=UTC)
        # Not by export: exporting the same window again gives the same file.
        key = (population, export.request, until, layout)

        def make() -> StoredFile:
            contacts = self._contacts(population, export.request, until)
            data, count = make_file(
                contacts,
                comet_tokens=export.request.comet_tokens,
                all_emails=export.request.all_emails,
                layout=layout,
            )
            return StoredFile(data, etag_of(data), count)

        stored = self._files.get(key, make)
        export.contacts = stored.contacts
        return stored

    def _processing_time(self, request: ExportRequest, now: float) -> float:
        if not self.seconds_per_contact:
            return self.processing_seconds
        start, end = request.utc_window
        end = min(end, datetime.fromtimestamp(now, UTC))
        return self.processing_seconds + self.seconds_per_contact * self.population.count(
            start, end
        )

    def _contacts(
        self, population: Population, request: ExportRequest, until: datetime
    ) -> Iterator[Contact]:
        """The contacts created in an export's window, but not after `until`."""
        start, end = request.utc_window
        if not self.wall_clock_comparison:
            if until < end:
                return population.between(start, until, end_inclusive=True)
            return population.between(start, end, end_inclusive=self.end_inclusive)
        day = timedelta(days=1)
        candidates = population.between(
            _shifted(start, -day),
            min(_shifted(end, day), until),
            end_inclusive=True,
        )
        return (
            contact
            for contact in candidates
            if self._is_within(request, contact.created_at.astimezone(self._zone))
        )

    def _is_within(self, request: ExportRequest, local: datetime) -> bool:
        # All three have the same zone object, so Python compares their wall-clock times.
        if local < request.start:
            return False
        return local <= request.end if self.end_inclusive else local < request.end

    def _complete_if_due(self, export: Export) -> bool:
        if self.status(export) != "completed":
            return False
        if export.population is None:
            export.population = self.population
        return True

    def _read_time(
        self, fields: Mapping[str, object], name: str, errors: dict[str, list[str]]
    ) -> datetime | None:
        value = fields.get(name)
        if value is None or value == "":
            errors[name] = [f"The {name} field is required."]
            return None
        match = _WALL_CLOCK.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            errors[name] = [f"The {name} field must match the format Y-m-d H:i:s."]
            return None
        year, month, day, hour, minute, second = map(int, match.groups())
        try:
            wall_clock = datetime(year, month, day, hour, minute, second, tzinfo=self._zone)
        except ValueError:
            errors[name] = [f"The {name} field must be a valid date."]
            return None
        exists = to_utc(wall_clock).astimezone(self._zone) == wall_clock
        # PHP interprets a skipped time with the offset before the clock change.
        return wall_clock.replace(fold=self.fold if exists else 0)

    def _sign(self, target: str) -> str:
        text = f"GET\n{target}".encode(errors="replace")
        return hmac.new(self.api_key.encode(), text, hashlib.sha256).hexdigest()


class _RateLimit:
    """Counts requests per minute; a minute starts with its first request."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._started_at = -math.inf
        self._count = 0

    def take(self, now: float) -> Quota:
        if now >= self._started_at + _MINUTE:
            self._started_at, self._count = now, 0
        if self._limit is None:
            return Quota(None, 0, None)
        if self._count >= self._limit:
            return Quota(self._limit, 0, max(1, math.ceil(self._started_at + _MINUTE - now)))
        self._count += 1
        return Quota(self._limit, self._limit - self._count, None)


class _FileCache:
    """The most recently used files, up to a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._files: OrderedDict[object, StoredFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], StoredFile]) -> StoredFile:
        with self._lock:
            stored = self._files.pop(key, None) or make()
            self._files[key] = stored
            while len(self._files) > 1 and self._bytes() > self._max_bytes:
                self._files.popitem(last=False)
            return stored

    def _bytes(self) -> int:
        return sum(len(stored.data) for stored in self._files.values())


def to_utc(moment: datetime) -> datetime:
    """An aware time in UTC, clamped to the range of `datetime`."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return moment.replace(tzinfo=UTC)


def etag_of(data: bytes) -> str:
    """The ETag of an object: its MD5, in quotes."""
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _shifted(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return moment


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_flag(fields: Mapping[str, object], name: str, errors: dict[str, list[str]]) -> bool:
    value = fields.get(name, 0)
    # 1.0 equals 1, but is neither an integer nor a boolean.
    if type(value) not in (int, bool) or value not in (0, 1):
        errors[name] = [f"The {name} field must be true or false."]
    return bool(value)


def _unprocessable(errors: Mapping[str, list[str]]) -> Refused:
    """Laravel's 422: the first message and the number of others."""
    messages = [message for of_field in errors.values() for message in of_field]
    more = len(messages) - 1
    rest = f" (and {more} more error{'s' if more > 1 else ''})" if more else ""
    return Refused(422, messages[0] + rest, errors)
