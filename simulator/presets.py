"""Named faults with parameters, and lists of faults for random tests.

Presets work on the command line: `--fault 'create maintenance times=2'`.
"""

from __future__ import annotations

from itertools import product
from typing import Final, NamedTuple

from simulator.faults import (
    CompletedWithoutUrl,
    Corrupt,
    Cut,
    Endpoint,
    Expired,
    ExportFails,
    ExportNotYetFound,
    ExportStuck,
    ExportVanishes,
    Fault,
    Layout,
    MalformedHeader,
    NoETag,
    NoRanges,
    OddUrl,
    Redirect,
    Refuse,
    Reset,
    Respond,
    ServerError,
    StatusCase,
    StorageFailure,
    Throttled,
    TooManyRequests,
    TrailingBytes,
    Truncated,
    UnknownStatus,
    WithoutLength,
    WrongChecksum,
    WrongRange,
)
from simulator.files import FileLayout


class Preset(NamedTuple):
    """A named fault.

    Attributes:
        endpoints: Where it can be injected.
        fault: The fault.
        description: What happens.
        fatal: Whether a run may fail because of it.
    """

    endpoints: tuple[Endpoint, ...]
    fault: Fault
    description: str
    fatal: bool = False


_API: Final[tuple[Endpoint, ...]] = ("create", "poll")
_CREATE: Final[tuple[Endpoint, ...]] = ("create",)
_POLL: Final[tuple[Endpoint, ...]] = ("poll",)
_FILE: Final[tuple[Endpoint, ...]] = ("download",)
_HTML: Final = {"Content-Type": "text/html"}
_MAINTENANCE: Final = {"message": "Service Unavailable"}
_DATES_ERROR: Final = {"end_date": ["The end date must be within 7 days of the start date."]}


def _lines(*substitutions: tuple[bytes, bytes]) -> Layout:
    return Layout(FileLayout(substitutions=substitutions))


PRESETS: Final[dict[str, Preset]] = {
    # API
    "request-timeout": Preset(
        _API, Respond(408, {"message": "Request Timeout"}), "A 408 with Cometly's JSON."
    ),
    "too-early": Preset(_API, Respond(425, {"message": "Too Early"}), "A 425 with Cometly's JSON."),
    "maintenance": Preset(
        _API,
        Respond(503, _MAINTENANCE, {"Retry-After": "60"}),
        "Laravel's maintenance mode: 503 with Retry-After.",
    ),
    "laravel-error": Preset(
        _API, Respond(500, {"message": "Server Error"}), "Laravel's 500 with JSON."
    ),
    "long-rate-limit": Preset(
        _API, TooManyRequests(7200), "A 429 with a Retry-After of two hours.", fatal=True
    ),
    "long-maintenance": Preset(
        _API,
        Respond(503, _MAINTENANCE, {"Retry-After": "7200"}),
        "A 503 with a Retry-After of two hours.",
        fatal=True,
    ),
    "unreadable-create": Preset(
        _CREATE,
        Respond(202, "<html>Accepted</html>", _HTML, accepted=True),
        "The export is created, but the response is HTML.",
    ),
    "create-without-id": Preset(
        _CREATE,
        Respond(202, {"status": "queued"}, accepted=True),
        "The export is created, but the response has no export_id.",
    ),
    "unreadable-poll": Preset(_POLL, Respond(200, '{"export_id":'), "A 200 with truncated JSON."),
    "oversized-response": Preset(
        _API, Respond(200, "{" + " " * 2**20 + "}"), "A response of more than 1 MiB."
    ),
    "unprocessable": Preset(
        _CREATE,
        Refuse(422, _DATES_ERROR["end_date"][0], errors=_DATES_ERROR),
        "Laravel's 422 with `errors`.",
        fatal=True,
    ),
    "unprocessable-old": Preset(
        _CREATE,
        Refuse(422, "The given data was invalid.", errors=_DATES_ERROR),
        "The 422 of older Laravel versions: the reason is only in `errors`.",
        fatal=True,
    ),
    "conflict": Preset(
        _CREATE, Refuse(409, "An export is already in progress."), "A 409.", fatal=True
    ),
    "locked": Preset(_CREATE, Refuse(423, "The Space is locked."), "A 423.", fatal=True),
    "unauthenticated": Preset(_API, Refuse(401, "Unauthenticated."), "A 401.", fatal=True),
    "firewall": Preset(
        _API,
        Respond(403, "<html><h1>403 Forbidden</h1><p>Request blocked.</p></html>", _HTML),
        "A firewall's 403 with HTML.",
        fatal=True,
    ),
    # Storage
    "expired-token": Preset(
        _FILE,
        StorageFailure(400, "ExpiredToken", "The provided token has expired."),
        "The token in the URL has expired: 400.",
    ),
    "storage-unauthorized": Preset(
        _FILE, StorageFailure(401, "Unauthorized", "Unauthorized"), "A 401 from the storage."
    ),
    "no-such-key": Preset(
        _FILE,
        StorageFailure(404, "NoSuchKey", "The specified key does not exist."),
        "The file does not exist yet: 404.",
    ),
    "gone": Preset(_FILE, StorageFailure(410, "Gone", "Gone"), "A 410 from the storage."),
    "storage-timeout": Preset(
        _FILE,
        StorageFailure(408, "RequestTimeout", "Your socket connection was not read from in time."),
        "A 408 from the storage.",
    ),
    "storage-too-early": Preset(
        _FILE, StorageFailure(425, "TooEarly", "Too early"), "A 425 from the storage."
    ),
    "storage-rate-limit": Preset(
        _FILE,
        StorageFailure(429, "TooManyRequests", "Please slow down.", {"Retry-After": "30"}),
        "A 429 from the storage with Retry-After.",
    ),
    "signature-in-error": Preset(
        _FILE,
        StorageFailure(403, "AccessDenied", "The signature {X-Amz-Signature} has expired"),
        "An error that contains the signature of the URL.",
    ),
    "token-in-error": Preset(
        _FILE,
        StorageFailure(400, "InvalidToken", "The token {X-Amz-Security-Token} is invalid"),
        "An error that contains the token of the URL.",
    ),
    # Files
    "lone-surrogate": Preset(
        _CREATE,
        _lines((b'"name":"', rb'"name":"\ud83d'), (b'"name":null', rb'"name":"A\ud83d"')),
        "Each name contains a lone surrogate.",
    ),
    "unknown-field": Preset(
        _CREATE,
        _lines((b"}\n", b',"profile_field_1":"blue"}\n')),
        "Contacts have an unknown field.",
    ),
    "number-for-text": Preset(
        _CREATE,
        _lines((b'"phone":null', b'"phone":1.50')),
        "Phone numbers are JSON numbers instead of strings.",
    ),
    "huge-id": Preset(
        _CREATE,
        _lines((b'{"id":', b'{"id":9223372036854775807')),
        "Ids do not fit in 64 bits.",
        fatal=True,
    ),
    "broken-line": Preset(
        _CREATE, Layout(FileLayout(lines=(b"{",))), "The last line is not JSON.", fatal=True
    ),
}

_Injection = tuple[Endpoint, Fault]


def _presets(*, fatal: bool) -> list[_Injection]:
    found = (preset for preset in PRESETS.values() if preset.fatal == fatal)
    return [(endpoint, preset.fault) for preset in found for endpoint in preset.endpoints]


RECOVERABLE: Final[tuple[_Injection, ...]] = (
    *_presets(fatal=False),
    *product(
        _API,
        (
            TooManyRequests(7),
            TooManyRequests("http-date"),
            TooManyRequests(None),
            ServerError(),
            MalformedHeader(),
            Reset(),
            Reset(accepted=True),
        ),
    ),
    *product(
        _CREATE,
        (
            ExportFails(),
            ExportNotYetFound(polls=2),
            ExportNotYetFound(seconds=20),
            ExportStuck(),
            ExportVanishes(),
            UnknownStatus(),
            StatusCase(),
            CompletedWithoutUrl(),
            CompletedWithoutUrl(polls=None),
            OddUrl(),
            NoRanges(),
            NoETag(),
            Layout(FileLayout(members=3)),
            Layout(FileLayout(plain=True, shuffle=1)),
            Layout(FileLayout(content_encoding="gzip", last_newline=False)),
            Layout(FileLayout(newline=b"\r\n", escaped=True)),
        ),
    ),
    *product(
        _FILE,
        (
            *(Cut(at, reset=at % 2 == 0) for at in (0, 1, 2, 9, 20, 45)),
            WithoutLength(30),
            WithoutLength(11, chunked=True),
            Expired(),
            Throttled(),
            MalformedHeader(),
            Reset(),
        ),
    ),
)
"""Faults that a tap must survive if they are rare; none of them waits in real time."""

FATAL: Final[tuple[_Injection, ...]] = (
    *_presets(fatal=True),
    *product(_API, (Redirect("https://example.com"),)),
    *product(
        _CREATE,
        (Truncated(-1), Truncated(12), Corrupt(-20), WrongChecksum(), TrailingBytes()),
    ),
    *product(_FILE, (WrongRange(),)),
)
"""Faults that may fail a run, but must not lose a contact."""
