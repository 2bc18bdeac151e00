"""The rules of a Cometly Space, without HTTP: exports, limits, links and who is in a file."""

from __future__ import annotations

import hashlib
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
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from simulator.files import FileForm, make_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from simulator.population import Contact, Population

Endpoint = Literal["create", "poll"]

_MINUTE: Final = 60.0
_WALL_CLOCK: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)", re.ASCII)
_FILES_KEPT: Final = 256 * 2**20  # bytes
_WAITING: Final = {
    "queued": "Export is queued. Please check back in a few minutes.",
    "processing": "Export is being processed. Please check back in a few minutes.",
}


class Refused(Exception):  # noqa: N818 - an answer, not a defect
    """The Space says no.

    Attributes:
        status: The HTTP status.
        message: Cometly's words.
        errors: With 422 the messages by field, as Laravel lists them.
    """

    def __init__(
        self, status: int, message: str, errors: Mapping[str, list[str]] | None = None
    ) -> None:
        """Say no with a status and a message."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors


class Order(NamedTuple):
    """What a valid create asks for.

    Attributes:
        start: First moment, aware, in the Space's zone.
        end: Last moment, likewise.
        comet_tokens: Whether the file has `comet_tokens`.
        all_emails: Whether the file has `emails`.
    """

    start: datetime
    end: datetime
    comet_tokens: bool
    all_emails: bool

    @property
    def instants(self) -> tuple[datetime, datetime]:
        """Start and end, in UTC."""
        return as_instant(self.start), as_instant(self.end)


@dataclass(eq=False)
class Export:
    """An export job.

    Attributes:
        id: Its number; the first of a Space is 1.
        order: What it was asked for.
        created_at: Unix seconds.
        completed_at: Unix seconds, from the start on: it is known how long it will take.
        polls: How often it was polled.
        completed_polls: How often it was polled since it is completed.
        population: The people as they are when it completes; None before.
        contacts: How many contacts its file has; None until the file is made.
    """

    id: int
    order: Order
    created_at: float
    completed_at: float
    polls: int = 0
    completed_polls: int = 0
    population: Population | None = None
    contacts: int | None = None

    @property
    def path(self) -> str:
        """The path of its file in the storage."""
        return f"/exports/{uuid.uuid5(uuid.NAMESPACE_URL, f'export {self.id}')}.ndjson.gz"


class Quota(NamedTuple):
    """Where a request stands in its endpoint's minute.

    Attributes:
        limit: Requests a minute; None: as many as one likes.
        remaining: Requests left in this minute, after this one.
        retry_after: If this one is too many: whole seconds until the minute is over.
    """

    limit: int | None
    remaining: int
    retry_after: int | None

    @property
    def headers(self) -> dict[str, str]:
        """The headers Cometly tells it with."""
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
    """An object in the storage.

    Attributes:
        data: Its bytes.
        etag: Their MD5, in quotes.
        contacts: How many contacts it holds.
    """

    data: bytes
    etag: str
    contacts: int


@dataclass(eq=False)
class Space:
    """A Cometly Space: its people, its exports and its rules. Safe to use from several threads.

    Attributes:
        population: The people; those created after the clock's now do not exist yet.
        api_key: The one key that is let in.
        timezone: IANA name of the zone that export dates are read in.
        end_inclusive: Whether a contact created at the very `end_date` is in the export.
        wall_clock_comparison: Compare local wall-clock times, as a database that stores local times
            does, instead of instants. They differ where a clock change repeats an hour.
        fold: Which one a repeated wall-clock time of a request is: 0 the first, 1 the second.
        queued_seconds: How long an export is queued.
        processing_seconds: How long it is processed then.
        creates_per_minute: Limit of the create endpoint; None: no limit.
        polls_per_minute: Limit of the get endpoint; None: no limit.
        url_lifetime_seconds: How long a download URL lives, counted from the poll that gave it.
        clock: Gives the time in Unix seconds; None: the real one.
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
    creates_per_minute: int | None = 5
    polls_per_minute: int | None = 30
    url_lifetime_seconds: int = 900
    clock: Callable[[], float] | None = None
    exports: dict[int, Export] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Open the books."""
        self._zone = ZoneInfo(self.timezone)
        endpoints: tuple[Endpoint, ...] = ("create", "poll")
        self._minutes = {name: _Minute(self.limit(name)) for name in endpoints}
        self._by_path: dict[str, Export] = {}
        self._lock = threading.RLock()
        self._files = _Files(_FILES_KEPT)
        self._urls_signed = 0

    def now(self) -> float:
        """Give the time, in Unix seconds."""
        return time.time() if self.clock is None else self.clock()

    def add(self, contacts: Iterable[Contact]) -> None:
        """Add people, or change some: a known id is replaced.

        Exports that are complete by now keep what they have.

        Args:
            contacts: The new ones, with any creation time: an early one is a late arrival.

        Raises:
            TypeError: A `created_at` has no time zone.
        """
        with self._lock:
            for export in self.exports.values():
                self._complete_if_due(export)
            self.population = self.population.plus(contacts)

    def authorize(self, authorization: str | None) -> None:
        """Let the right key in.

        Args:
            authorization: The header of that name.

        Raises:
            Refused: 401; the key is missing or another.
        """
        if authorization is None or not hmac.compare_digest(
            authorization.encode(errors="replace"), f"Bearer {self.api_key}".encode()
        ):
            raise Refused(401, "Unauthenticated.")

    def admit(self, endpoint: Endpoint) -> Quota:
        """Count a request against its endpoint's limit.

        Args:
            endpoint: Which one.

        Returns:
            Where it stands; with `retry_after` the request is one too many.
        """
        with self._lock:
            return self._minutes[endpoint].take(self.now())

    def limit(self, endpoint: Endpoint) -> int | None:
        """Give the requests a minute that an endpoint takes; None: as many as one likes."""
        return self.creates_per_minute if endpoint == "create" else self.polls_per_minute

    def read_order(self, body: object) -> Order:
        """Read the body of a create, as strictly as the vendor's page words it.

        Args:
            body: The decoded JSON; anything but an object counts as one without fields.

        Returns:
            What is asked for.

        Raises:
            Refused: 422, with the messages by field.
        """
        fields: dict[str, object] = body if isinstance(body, dict) else {}
        errors: dict[str, list[str]] = {}
        start = self._read_time(fields, "start_date", errors)
        end = self._read_time(fields, "end_date", errors)
        if start and end and end <= start:
            errors["end_date"] = ["The end_date field must be a date after start_date."]
        comet_tokens = _read_flag(fields, "include_comet_tokens", errors)
        all_emails = _read_flag(fields, "include_all_emails", errors)
        if errors or start is None or end is None:
            raise _unprocessable(errors)
        return Order(start, end, comet_tokens, all_emails)

    def create(self, order: Order) -> Export:
        """Start an export.

        Args:
            order: What is asked for.

        Returns:
            The export, queued.
        """
        with self._lock:
            now = self.now()
            duration = self.queued_seconds + self.processing_seconds
            export = Export(len(self.exports) + 1, order, now, now + duration)
            self.exports[export.id] = export
            self._by_path[export.path] = export
            return export

    def find_file(self, path: str) -> Export | None:
        """Give the completed export whose file has this path; None if there is none."""
        with self._lock:
            export = self._by_path.get(path)
            if export is None or not self._complete_if_due(export):
                return None
            return export

    def poll(self, export: Export, storage_url: str) -> dict[str, object]:
        """Tell how an export is doing; each poll of a completed one signs a fresh URL of its file.

        Args:
            export: Which one.
            storage_url: Origin of the storage, without a slash at the end.

        Returns:
            The answer's fields.
        """
        with self._lock:
            export.polls += 1
            answer: dict[str, object] = {
                "export_id": export.id,
                "status": "completed",
                "created_at": _timestamp(export.created_at),
            }
            if self._complete_if_due(export):
                export.completed_polls += 1
                expires_at = math.floor(self.now()) + self.url_lifetime_seconds
                return answer | {
                    "completed_at": _timestamp(export.completed_at),
                    "download_url": storage_url + self._presign(export),
                    "expires_at": _timestamp(expires_at),
                }
            status = self.status(export)
            return answer | {"status": status, "message": _WAITING[status]}

    def status(self, export: Export) -> str:
        """Give `queued`, `processing` or `completed`, by the clock."""
        now = self.now()
        if now >= export.completed_at:
            return "completed"
        return "queued" if now < export.created_at + self.queued_seconds else "processing"

    def check_url(self, path: str, query: Mapping[str, str]) -> str | None:
        """Check a presigned URL.

        Args:
            path: Its path.
            query: Its query, decoded.

        Returns:
            None if it is good, else why not, in the words of S3.
        """
        given = {key: value for key, value in query.items() if key != "X-Amz-Signature"}
        signature = query.get("X-Amz-Signature", "")
        if not hmac.compare_digest(signature.encode(), self._sign(path, given).encode()):
            return "The request signature we calculated does not match the signature you provided."
        signed_at = datetime.strptime(given["X-Amz-Date"], "%Y%m%dT%H%M%S%z").timestamp()
        if self.now() >= signed_at + int(given["X-Amz-Expires"]):
            return "Request has expired"
        return None

    def file(self, export: Export, form: FileForm | None = None) -> StoredFile:
        """Give the file of a completed export: always the same bytes, kept while there is room.

        Args:
            export: A completed one.
            form: The layout; by default one gzip member.

        Returns:
            The object as stored.

        Raises:
            ValueError: The export is not completed.
        """
        form = form or FileForm()
        with self._lock:
            if not self._complete_if_due(export) or export.population is None:
                message = f"export {export.id} is not completed"
                raise ValueError(message)
        population = export.population
        until = datetime.fromtimestamp(export.completed_at, UTC)
        newest = population.last_created_at
        if newest is None or newest <= until:
            until = datetime.max.replace(tzinfo=UTC)
        # Not by export: the same window, exported again, is the same file.
        key = (population, export.order, until, form)

        def make() -> StoredFile:
            contacts = self._contacts(population, export.order, until)
            data, count = make_file(
                contacts,
                comet_tokens=export.order.comet_tokens,
                all_emails=export.order.all_emails,
                form=form,
            )
            return StoredFile(data, etag_of(data), count)

        stored = self._files.get(key, make)
        export.contacts = stored.contacts
        return stored

    def _contacts(self, population: Population, order: Order, until: datetime) -> Iterator[Contact]:
        """Give who is in an export: created in its window, and not after `until`."""
        start, end = order.instants
        if not self.wall_clock_comparison:
            if until < end:
                return population.between(start, until, end_inclusive=True)
            return population.between(start, end, end_inclusive=self.end_inclusive)
        day = timedelta(days=1)
        around = population.between(
            _shifted(start, -day),
            min(_shifted(end, day), until),
            end_inclusive=True,
        )
        return (
            contact
            for contact in around
            if self._is_within(order, contact.created_at.astimezone(self._zone))
        )

    def _is_within(self, order: Order, local: datetime) -> bool:
        # All three have the same zone object: Python compares their wall-clock times, not instants.
        if local < order.start:
            return False
        return local <= order.end if self.end_inclusive else local < order.end

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
        exists = as_instant(wall_clock).astimezone(self._zone) == wall_clock
        # A skipped time is read as PHP reads it: with the offset that held before.
        return wall_clock.replace(fold=self.fold if exists else 0)

    def _presign(self, export: Export) -> str:
        self._urls_signed += 1
        query = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Date": datetime.fromtimestamp(self.now(), UTC).strftime("%Y%m%dT%H%M%SZ"),
            "X-Amz-Expires": str(self.url_lifetime_seconds),
            # Makes two URLs of one second differ.
            "X-Amz-Security-Token": f"session-{self._urls_signed}",
            "X-Amz-SignedHeaders": "host",
        }
        query["X-Amz-Signature"] = self._sign(export.path, query)
        return f"{export.path}?{urlencode(query)}"

    def _sign(self, path: str, query: Mapping[str, str]) -> str:
        text = f"GET\n{path}\n{urlencode(sorted(query.items()))}"
        return hmac.new(self.api_key.encode(), text.encode(), hashlib.sha256).hexdigest()


class _Minute:
    """A fixed window of a minute that begins at its first request."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._began = -math.inf
        self._count = 0

    def take(self, now: float) -> Quota:
        if now >= self._began + _MINUTE:
            self._began, self._count = now, 0
        if self._limit is None:
            return Quota(None, 0, None)
        if self._count >= self._limit:
            return Quota(self._limit, 0, max(1, math.ceil(self._began + _MINUTE - now)))
        self._count += 1
        return Quota(self._limit, self._limit - self._count, None)


class _Files:
    """The files last asked for, up to a number of bytes."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._files: OrderedDict[object, StoredFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], StoredFile]) -> StoredFile:
        with self._lock:
            stored = self._files.pop(key, None) or make()
            self._files[key] = stored
            while len(self._files) > 1 and self._bytes() > self._room:
                self._files.popitem(last=False)
            return stored

    def _bytes(self) -> int:
        return sum(len(stored.data) for stored in self._files.values())


def as_instant(moment: datetime) -> datetime:
    """Give an aware moment in UTC; at the ends of the calendar the last that UTC has."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return moment.replace(tzinfo=UTC)


def etag_of(data: bytes) -> str:
    """Give the ETag of an object: its MD5, in quotes."""
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
    # 1.0 equals 1, but is neither of the four.
    if type(value) not in (int, bool) or value not in (0, 1):
        errors[name] = [f"The {name} field must be true or false."]
    return bool(value)


def _unprocessable(errors: Mapping[str, list[str]]) -> Refused:
    """Word a 422 as Laravel does: the first message, and how many more there are."""
    messages = [message for of_field in errors.values() for message in of_field]
    more = len(messages) - 1
    rest = f" (and {more} more error{'s' if more > 1 else ''})" if more else ""
    return Refused(422, messages[0] + rest, errors)
