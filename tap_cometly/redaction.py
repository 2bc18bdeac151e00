"""Keeps the API key and the queries of presigned URLs out of logs and errors.

Libraries log URLs (urllib3 at DEBUG) and put them in exceptions, and Cometly may quote them. So
every log record is cleaned when it is created, and every error before it is shown.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections import deque
from typing import Any
from urllib.parse import unquote_to_bytes

HIDDEN = "[hidden]"

_MAX_URLS = 64  # more than are in use at a time
_MIN_QUERY_LENGTH = 8
_MIN_VALUE_LENGTH = 16  # 64 bits in hex; shorter ones are words and numbers rather than secrets


class Redactor:
    """Knows the secrets of a run and hides them in text."""

    def __init__(self) -> None:
        self._keys: dict[str, re.Pattern[str]] = {}
        self._urls: deque[re.Pattern[str]] = deque(maxlen=_MAX_URLS)

    def hide_key(self, api_key: str) -> None:
        """Hide an API key from now on."""
        self._keys[api_key] = _secret_pattern(_encodings(api_key.encode()))

    def hide_url(self, url: str) -> None:
        """Hide a URL's query and each long value in it from now on."""
        query = url.partition("?")[2].partition("#")[0]
        values = [unquote_to_bytes(part.partition("=")[2]) for part in query.split("&")]
        if len(query) >= _MIN_QUERY_LENGTH:
            long_values = [value for value in values if len(value) >= _MIN_VALUE_LENGTH]
            secrets = [unquote_to_bytes(query), *long_values]
            self._urls.append(_secret_pattern(*map(_encodings, secrets)))

    def clean(self, text: str) -> str:
        """The text with every secret replaced by `[hidden]`."""
        # Keys last: a query may hold one.
        for secret in (*self._urls, _PRESIGNED, *self._keys.values()):
            text = secret.sub(HIDDEN, text)
        return text

    def clean_record(self, record: logging.LogRecord) -> None:
        """Hide the secrets in a log record's message, arguments and traceback."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - logging itself would show both as they are
            message = record.msg = f"{record.msg} {record.args!r}"
            record.args = None
        if (cleaned := self.clean(message)) != message:
            record.msg, record.args = cleaned, None
        if record.exc_info and record.exc_info[1] is not None:
            trace = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            shown = [trace, *map(str, _chain(record.exc_info[1]))]
            if any(self.clean(text) != text for text in shown):
                record.msg, record.args = f"{cleaned}\n{self.clean(trace)}", None
                record.exc_info = None


def _secret_pattern(*secrets: str) -> re.Pattern[str]:
    """A pattern for any of these patterns, and for `[hidden]`, so that this stays as it is."""
    return re.compile("|".join((re.escape(HIDDEN), *secrets)), re.IGNORECASE)


def _encodings(secret: bytes) -> str:
    """A pattern for a secret as it is, percent-encoded (once or more), or escaped as in JSON."""
    return "".join(
        chr(byte)
        if chr(byte).isascii() and chr(byte).isalnum()
        else rf"(?:\\*\x{byte:02x}|%(?:25)*{byte:02x}|\\+u00{byte:02x})"
        for byte in secret
    )


_PRESIGNED = _secret_pattern(
    r"""(?<=\?)[^\s"'<>]*?(?:X-Amz-|AWSAccessKeyId|Signature|Expires)[^\s"'<>]*""",
    r"""X-Amz-[\w-]+(?:=|%(?:25)*3D|\\+u003d)[^\s"'<>&]+""",
)


def _chain(error: BaseException) -> list[BaseException]:
    """An error and all that led to it: structured logs show more of it than a traceback."""
    chain = [error]
    for one in chain:  # the list grows during the loop
        causes = (one.__cause__, one.__context__)
        chain += [cause for cause in causes if cause is not None and cause not in chain]
    return chain


REDACTOR = Redactor()  # one per process, as logging is global


def clean_all_logs() -> None:
    """Clean every log record of this process when it is created."""
    make_record = logging.getLogRecordFactory()
    if getattr(make_record, "cleans", False):
        return

    def make_clean_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        REDACTOR.clean_record(record)
        return record

    make_clean_record.cleans = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_clean_record)
