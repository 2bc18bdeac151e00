"""Keeps the API key and presigned URLs out of all that the tap says.

A presigned URL opens a file of contacts to anyone who holds its query. Libraries log URLs (urllib3
at DEBUG) and put them in exceptions, and Cometly may quote a header back. So every log record is
cleaned when it is made, whatever logger and handler it goes through, and every error before it is
shown.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN = "[hidden]"

_URLS_REMEMBERED = 16
"""More than are in use at one time: a URL is asked for when its file is read, and again after."""
_SHORTEST_QUERY = 8
"""A shorter one opens nothing, and hiding it would garble every text."""


class Redactor:
    """Knows the secrets of a run, and how to hide them in a text."""

    def __init__(self) -> None:
        """Know no secret but the look of a presigned query."""
        self._api_keys: dict[str, re.Pattern[str]] = {}
        self._queries: deque[re.Pattern[str]] = deque(maxlen=_URLS_REMEMBERED)

    def hide_key(self, api_key: str) -> None:
        """Hide an API key from now on.

        Args:
            api_key: The key.
        """
        self._api_keys[api_key] = _hiding(_spelled(api_key.encode()))

    def hide_url(self, url: str) -> None:
        """Hide a URL's query from now on.

        Args:
            url: A presigned URL.
        """
        query = url.partition("?")[2].partition("#")[0]
        if len(query) >= _SHORTEST_QUERY:
            self._queries.append(_hiding(_spelled(unquote_to_bytes(query))))

    def clean(self, text: str) -> str:
        """Hide what must not be seen.

        Args:
            text: Any text.

        Returns:
            The text with `[hidden]` for every secret in it.
        """
        # Keys last: a query that is remembered may hold one.
        for secret in (*self._queries, *_PRESIGNED, *self._api_keys.values()):
            text = secret.sub(HIDDEN, text)
        return text

    def clean_record(self, record: logging.LogRecord) -> None:
        """Hide what must not be seen in a log record, its arguments and its traceback.

        Args:
            record: The record; changed only where it holds a secret.
        """
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - logging itself would show both as they are
            message = record.msg = f"{record.msg} {record.args!r}"
            record.args = None
        if (cleaned := self.clean(message)) != message:
            record.msg, record.args = cleaned, None
        if record.exc_info and record.exc_info[1] is not None:
            told = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            # Structured logs also show the contexts that `raise … from None` leaves out.
            shown = [told, *(str(error) for error in _chain(record.exc_info[1]))]
            if any(self.clean(text) != text for text in shown):
                record.msg, record.args = f"{cleaned}\n{self.clean(told)}", None
                record.exc_info = None


def _hiding(secret: str) -> re.Pattern[str]:
    """A pattern for a secret; what is hidden already is left in one piece."""
    return re.compile(f"{re.escape(HIDDEN)}|{secret}", re.IGNORECASE)


def _spelled(secret: bytes) -> str:
    """A pattern for a text as it is, percent-encoded (once or more), or escaped as in JSON."""
    return "".join(
        chr(byte)
        if chr(byte).isascii() and chr(byte).isalnum()
        else rf"(?:\\*\x{byte:02x}|%(?:25)*{byte:02x}|\\+u00{byte:02x})"
        for byte in secret
    )


_PRESIGNED = (
    _hiding(
        r"""(?<=\?)[^\s"'<>]*?(?:X-Amz-|AWSAccessKeyId|Signature|Expires)[^\s"'<>]*""",
    ),
    _hiding(r"""X-Amz-[\w-]+(?:=|%(?:25)*3D|\\+u003d)[^\s"'<>&]+"""),
)
"""What a presigned query looks like after a `?`, and a part of one alone."""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it, shown or not.

    Yields:
        Each of them once.
    """
    seen: set[int] = set()
    open_ends: list[BaseException | None] = [error]
    while open_ends:
        one = open_ends.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            open_ends += [one.__cause__, one.__context__]
            yield one


REDACTOR = Redactor()
"""The process's own: logging is global, so what it must hide is too."""


def clean_all_logs() -> None:
    """Have every log record of this process cleaned when it is made."""
    make_record = logging.getLogRecordFactory()
    if getattr(make_record, "cleans", False):
        return

    def make_clean_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        REDACTOR.clean_record(record)
        return record

    make_clean_record.cleans = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_clean_record)
