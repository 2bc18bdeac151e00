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
from typing import Any
from urllib.parse import quote, urlsplit

HIDDEN = "[hidden]"

_PRESIGNED_QUERY = re.compile(
    r"""\?[^\s"'<>]*?(?:X-Amz-|AWSAccessKeyId|Signature|Expires)[^\s"'<>]*""", re.IGNORECASE
)
_SIGNED_PARAMETER = re.compile(r"""X-Amz-[\w-]+(?:=|%3D)[^\s"'<>&]+""", re.IGNORECASE)
_URLS_REMEMBERED = 64
"""More URLs than are in use at one time: at most five exports are in flight."""


class Redactor:
    """Knows the secrets of a run, and how to hide them in a text."""

    def __init__(self) -> None:
        """Know no secret but the look of a presigned query."""
        self._api_keys: set[str] = set()
        self._queries: deque[str] = deque(maxlen=_URLS_REMEMBERED)

    def hide_key(self, api_key: str) -> None:
        """Hide an API key from now on.

        Args:
            api_key: The key.
        """
        json_escaped = api_key.replace("/", r"\/")
        self._api_keys |= {api_key, quote(api_key, safe=""), json_escaped}

    def hide_url(self, url: str) -> None:
        """Hide a URL's query from now on.

        Args:
            url: A presigned URL.
        """
        if query := urlsplit(url).query:
            self._queries.append(query)

    def clean(self, text: str) -> str:
        """Hide what must not be seen.

        Args:
            text: Any text.

        Returns:
            The text with `[hidden]` for every secret in it.
        """
        for secret in (*self._api_keys, *self._queries):
            text = text.replace(secret, HIDDEN)
        return _SIGNED_PARAMETER.sub(HIDDEN, _PRESIGNED_QUERY.sub(f"?{HIDDEN}", text))

    def clean_record(self, record: logging.LogRecord) -> None:
        """Hide what must not be seen in a log record, its arguments and its traceback.

        Args:
            record: The record; changed only where it holds a secret.
        """
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit: logging itself reports it
            return
        if (cleaned := self.clean(message)) != message:
            record.msg, record.args = cleaned, None
        if record.exc_info and record.exc_info[0] is not None:
            told = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            if (cleaned := self.clean(told)) != told:
                record.exc_info, record.exc_text = None, cleaned


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
