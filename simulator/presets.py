"""Named faults with parameters, and the lists of faults to draw from in tests.

On the command line a name stands for its fault: `--fault 'create maintenance times=2'`.
"""

from __future__ import annotations

from itertools import product
from typing import Final, NamedTuple

from simulator.faults import (
    Answer,
    CompletedWithoutUrl,
    Corrupt,
    Cut,
    CutUnnoticed,
    Drip,
    Expired,
    ExportFails,
    ExportNotFoundYet,
    ExportStuck,
    ExportVanishes,
    Fault,
    Form,
    Hang,
    MalformedHeader,
    NoETag,
    NoRanges,
    OddUrl,
    Redirect,
    Refuse,
    Reset,
    ServerError,
    Stall,
    StatusCase,
    StorageFailure,
    Throttled,
    TooManyRequests,
    TrailingBytes,
    Truncated,
    UnknownStatus,
    Where,
    WrongChecksum,
    WrongRange,
)
from simulator.files import FileForm


class Preset(NamedTuple):
    """A named fault.

    Attributes:
        places: The requests that it can be added to.
        fault: The fault.
        description: What happens.
        fatal: Whether it may end a run.
    """

    places: tuple[Where, ...]
    fault: Fault
    description: str
    fatal: bool = False


_API: Final[tuple[Where, ...]] = ("create", "poll")
_CREATE: Final[tuple[Where, ...]] = ("create",)
_POLL: Final[tuple[Where, ...]] = ("poll",)
_FILE: Final[tuple[Where, ...]] = ("download",)
_HTML: Final = {"Content-Type": "text/html"}
_MAINTENANCE: Final = {"message": "Service Unavailable"}
_DATES_ERROR: Final = {"end_date": ["The end date must be within 7 days of the start date."]}


def _lines(*substitutions: tuple[bytes, bytes]) -> Form:
    return Form(FileForm(substitutions=substitutions))


PRESETS: Final[dict[str, Preset]] = {
    # API
    "request-timeout": Preset(
        _API, Answer(408, {"message": "Request Timeout"}), "A 408 with Cometly's JSON."
    ),
    "too-early": Preset(_API, Answer(425, {"message": "Too Early"}), "A 425 with Cometly's JSON."),
    "maintenance": Preset(
        _API,
        Answer(503, _MAINTENANCE, {"Retry-After": "60"}),
        "Laravel's maintenance mode: 503 with Retry-After.",
    ),
    "laravel-error": Preset(
        _API, Answer(500, {"message": "Server Error"}), "Laravel's 500 with JSON."
    ),
    "long-rate-limit": Preset(
        _API, TooManyRequests(7200), "A 429 with a Retry-After of two hours.", fatal=True
    ),
    "long-maintenance": Preset(
        _API,
        Answer(503, _MAINTENANCE, {"Retry-After": "7200"}),
        "A 503 with a Retry-After of two hours.",
        fatal=True,
    ),
    "unreadable-create": Preset(
        _CREATE,
        Answer(202, "<html>Accepted</html>", _HTML, accepted=True),
        "The export is created, but the answer is HTML.",
    ),
    "create-without-id": Preset(
        _CREATE,
        Answer(202, {"status": "queued"}, accepted=True),
        "The export is created, but the answer has no export_id.",
    ),
    "unreadable-poll": Preset(_POLL, Answer(200, '{"export_id":'), "A 200 with truncated JSON."),
    "oversized-answer": Preset(
        _API, Answer(200, "{" + " " * 2**20 + "}"), "An answer of more than 1 MiB."
    ),
    "unprocessable": Preset(
        _CREATE,
        Refuse(422, _DATES_ERROR["end_date"][0], errors=_DATES_ERROR),
        "A 422 with `errors`, as Laravel writes it.",
        fatal=True,
    ),
    "unprocessable-old": Preset(
        _CREATE,
        Refuse(422, "The given data was invalid.", errors=_DATES_ERROR),
        "A 422 as older versions of Laravel write it: the text is in `errors` only.",
        fatal=True,
    ),
    "conflict": Preset(
        _CREATE, Refuse(409, "An export is already in progress."), "A 409.", fatal=True
    ),
    "locked": Preset(_CREATE, Refuse(423, "The Space is locked."), "A 423.", fatal=True),
    "unauthenticated": Preset(_API, Refuse(401, "Unauthenticated."), "A 401.", fatal=True),
    "firewall": Preset(
        _API,
        Answer(403, "<html><h1>403 Forbidden</h1><p>Request blocked.</p></html>", _HTML),
        "A firewall's 403 with HTML.",
        fatal=True,
    ),
    # Storage
    "expired-token": Preset(
        _FILE,
        StorageFailure(400, "ExpiredToken", "The provided token has expired."),
        "The token of the URL has expired: 400.",
    ),
    "storage-unauthorized": Preset(
        _FILE, StorageFailure(401, "Unauthorized", "Unauthorized"), "A 401 of the storage."
    ),
    "no-such-key": Preset(
        _FILE,
        StorageFailure(404, "NoSuchKey", "The specified key does not exist."),
        "The file does not exist yet: 404.",
    ),
    "gone": Preset(_FILE, StorageFailure(410, "Gone", "Gone"), "A 410 of the storage."),
    "storage-timeout": Preset(
        _FILE,
        StorageFailure(408, "RequestTimeout", "Your socket connection was not read from in time."),
        "A 408 of the storage.",
    ),
    "storage-too-early": Preset(
        _FILE, StorageFailure(425, "TooEarly", "Too early"), "A 425 of the storage."
    ),
    "storage-rate-limit": Preset(
        _FILE,
        StorageFailure(429, "TooManyRequests", "Please slow down.", {"Retry-After": "30"}),
        "A 429 of the storage with Retry-After.",
    ),
    "signature-quoted": Preset(
        _FILE,
        StorageFailure(403, "AccessDenied", "The signature {X-Amz-Signature} has expired"),
        "An error that quotes the signature of the URL.",
    ),
    "token-quoted": Preset(
        _FILE,
        StorageFailure(400, "InvalidToken", "The token {X-Amz-Security-Token} is invalid"),
        "An error that quotes a long value of the URL's query.",
    ),
    # Files; add them at "create" or "poll" too
    "half-surrogate": Preset(
        _CREATE,
        _lines((b'"name":"', rb'"name":"\ud83d'), (b'"name":null', rb'"name":"A\ud83d"')),
        "Each name has half a surrogate pair.",
    ),
    "unknown-field": Preset(
        _CREATE, _lines((b"}\n", b',"profile_field_1":"blue"}\n')), "Contacts have another field."
    ),
    "number-for-text": Preset(
        _CREATE,
        _lines((b'"phone":null', b'"phone":1.50')),
        "A JSON number where a string belongs.",
    ),
    "huge-id": Preset(
        _CREATE,
        _lines((b'{"id":', b'{"id":9223372036854775807')),
        "Ids do not fit into 64 bits.",
        fatal=True,
    ),
    "broken-line": Preset(
        _CREATE, Form(FileForm(lines=(b"{",))), "The last line is not JSON.", fatal=True
    ),
}

_AnyFault = tuple[Where, Fault]


def _presets(*, fatal: bool) -> list[_AnyFault]:
    found = (preset for preset in PRESETS.values() if preset.fatal == fatal)
    return [(where, preset.fault) for preset in found for where in preset.places]


RECOVERABLE: Final[tuple[_AnyFault, ...]] = (
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
            ExportNotFoundYet(polls=2),
            ExportNotFoundYet(seconds=20),
            ExportStuck(),
            ExportVanishes(),
            UnknownStatus(),
            StatusCase(),
            CompletedWithoutUrl(),
            CompletedWithoutUrl(polls=None),
            OddUrl(),
            NoRanges(),
            NoETag(),
            Form(FileForm(members=3)),
            Form(FileForm(plain=True, shuffle=1)),
            Form(FileForm(content_encoding="gzip", last_newline=False)),
            Form(FileForm(newline=b"\r\n", escaped=True)),
        ),
    ),
    *product(
        _FILE,
        (
            *(Cut(at, reset=at % 2 == 0) for at in (0, 1, 2, 9, 20, 45)),
            CutUnnoticed(30),
            CutUnnoticed(11, chunked=True),
            Expired(),
            Throttled(),
            MalformedHeader(),
            Reset(),
        ),
    ),
)
"""What a tap must survive, if it does not happen too often. Nothing here waits in real time."""

FATAL: Final[tuple[_AnyFault, ...]] = (
    *_presets(fatal=True),
    *product(_API, (Redirect("https://example.com"),)),
    *product(
        _CREATE,
        (Truncated(-1), Truncated(12), Corrupt(-20), WrongChecksum(), TrailingBytes()),
    ),
    *product(_FILE, (WrongRange(),)),
)
"""What may end a run, but must not lose a contact."""

SLOW: Final[tuple[_AnyFault, ...]] = (
    *product(_API, (Hang(), Drip())),
    *product(_FILE, (Hang(), Stall(), Drip(count=10))),
)
"""What a tap must survive, but only after a time-out or some seconds of real time."""
