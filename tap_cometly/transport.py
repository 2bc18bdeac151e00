"""HTTP code for both the API and the storage: sessions, safe URLs, retries, failures."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import logging
import math
import os
import re
import socket
import ssl
import string
import threading
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import backoff
import requests
import requests.adapters
import requests.utils
import urllib3
from typing_extensions import override

from tap_cometly.times import HOUR_SECONDS, format_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tap_cometly.times import Clock

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60
"""A silence of this length in a response counts as a broken connection."""
READ_BYTES = 64 * 1024
"""The most to read from a connection at a time."""
MAX_RETRY_SECONDS = 15 * 60
"""How long a request that fails is retried."""
MAX_RETRY_AFTER_SECONDS = HOUR_SECONDS
"""A server that asks to wait longer ends the run."""
INTERRUPTED = "the connection was interrupted"
TOO_SLOW = "the response took too long"
_MAX_DELAY_SECONDS = 60

_HOST_AND_PORT = re.compile(r"(\[[^][@]*\]|[^][@:]*)(:\d*)?")
_MAX_HOST_LENGTH = 253
_ORIGIN = re.compile(r"[^/?#]*//[^/?#]*")
_PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


class RequestFailed(Exception):  # noqa: N818 - another attempt may succeed
    """A request got no usable response; the message says why, without any URL.

    Attributes:
        retry_after: For how many seconds the server asks to wait, if it does.
        is_permanent: Whether waiting cannot help; the message then says what can.
    """

    def __init__(
        self, reason: str, retry_after: float | None = None, *, is_permanent: bool = False
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.is_permanent = is_permanent


class Backoff:
    """Delays between the attempts at a request: random, up to 1, 2, 4 … 60 seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        self._failures = 0
        self._exponential = backoff.expo(max_value=_MAX_DELAY_SECONDS)
        next(self._exponential)

    def next_delay(self, failure: RequestFailed, max_seconds: float) -> float | None:
        """Seconds until the next attempt; None if there should be none.

        Args:
            failure: Why the last attempt failed. If the server asks to wait, the next attempt
                comes after that wait, even if it ends after `max_seconds`.
            max_seconds: How long to keep retrying.
        """
        self._failures += 1
        left = self.seconds_left(max_seconds)
        if failure.is_permanent or left <= 0:
            return None
        delay = min(backoff.full_jitter(next(self._exponential)), left)
        return max(delay, failure.retry_after or 0)

    def seconds_left(self, max_seconds: float) -> float:
        """What is left of the time to keep retrying."""
        return self._started + max_seconds - self._clock.monotonic()

    def explain(self, failure: RequestFailed, check: str) -> str:
        """Why there is no other attempt, and what to do."""
        if failure.is_permanent:
            return str(failure)
        elapsed = self._clock.monotonic() - self._started
        attempts = "1 attempt" if self._failures == 1 else f"{self._failures} attempts"
        return (
            f"{failure}; gave up after {attempts} in {elapsed:,.0f} s; check {check}, then rerun "
            "the tap"
        )


class HttpSession(requests.Session):
    """A session that sends only its own auth, keeps no cookies and follows no redirects."""

    def __init__(
        self,
        url_name: str,
        headers: Mapping[str, str],
        auth: Callable[[requests.PreparedRequest], requests.PreparedRequest],
        exact_url: str | None = None,
    ) -> None:
        """Prepare a session.

        Args:
            url_name: How messages refer to the URL.
            headers: Sent with each request.
            auth: Authorizes requests.
            exact_url: The only URL of the session, if it is to be requested byte for byte.
        """
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(exact_url))
        self._url_name = url_name
        self.headers.update(headers)
        self.auth = auth
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        logging.getLogger("urllib3.connection").addFilter(_is_worth_logging)

    def open(
        self, method: str, url: str, read_timeout_seconds: float, **options: Any
    ) -> requests.Response:
        """Send a request once; the body of the response is still to be read.

        Raises:
            RequestFailed: There is no response.
        """
        try:
            return self.request(
                method,
                url,
                timeout=(CONNECT_TIMEOUT_SECONDS, read_timeout_seconds),
                stream=True,
                allow_redirects=False,
                **options,
            )
        # requests does not wrap all of urllib3's exceptions; a bad proxy URL raises a TypeError.
        except (OSError, TypeError, ValueError, http.client.HTTPException, _Urllib3Error) as error:
            permanent = self._permanent_reason(error, url)
            reason = permanent or describe_failure(error)
            raise RequestFailed(reason, is_permanent=permanent is not None) from None

    @override
    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        # Plain HTTP is only for localhost; a proxy could read the API key.
        if str(request.url).lower().startswith("http:"):
            kwargs["proxies"] = {}
        return super().send(request, **kwargs)

    @override
    def get_redirect_target(self, resp: requests.Response) -> None:
        pass  # even without following redirects, requests would parse a malformed Location

    def _permanent_reason(self, error: Exception, url: str) -> str | None:
        """The wrong setting that made a request fail, if any, and what to do."""
        if isinstance(error, OSError):
            variable = _set_variable(_CA_VARIABLES)
            if variable and url.lower().startswith("https:") and not _is_ca_bundle(variable):
                return f"{variable} does not name a file or folder of CA certificates; correct it"
        is_invalid = isinstance(error, (TypeError, ValueError)) and not isinstance(
            error, _FROM_SERVER
        )
        if is_invalid or _has_invalid_url(error):
            host = urlsplit(url).hostname or ""
            variable = _set_variable(_PROXY_VARIABLES)
            if not variable or not is_possible_host(host):
                return f"{self._url_name} has an invalid host name: {host!r}"
            return (
                f"{variable} is not a usable proxy URL (for SOCKS, the package PySocks has to be "
                "installed); correct it"
            )
        return None


def _has_invalid_url(error: Exception) -> bool:
    """Whether a connection failed on a host name with a space; urllib3 2.8 raises a ValueError."""
    nested = getattr(error.args[0], "args", ()) if error.args else ()
    return any(isinstance(part, http.client.InvalidURL) for part in nested)


class _Adapter(requests.adapters.HTTPAdapter):
    """Makes connections that request an exact target and limit the wait for headers."""

    def __init__(self, exact_url: str | None) -> None:
        super().__init__()
        self._target = None if exact_url is None else _target(exact_url)

    @override
    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if not issubclass(pool.ConnectionCls, _Connection):
            bases = (_Connection, pool.ConnectionCls)
            pool.ConnectionCls = type("Connection", bases, {"target": self._target})
        return pool


class _Connection(http.client.HTTPConnection):
    target: str | None = None

    @override
    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        # urllib3 would rewrite `%7e` and the like, which a signature may cover.
        super().putrequest(method, self.target or url, *args, **kwargs)

    @override
    def getresponse(self) -> http.client.HTTPResponse:
        # The read timeout starts again at every byte, so headers could trickle in forever.
        aborted = threading.Event()
        timer = threading.Timer(2 * (self.timeout or READ_TIMEOUT_SECONDS), self._abort, [aborted])
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()
        finally:
            timer.cancel()
            # `http.client` takes a closed connection for the end of the headers.
            if aborted.is_set():
                raise TimeoutError

    def _abort(self, aborted: threading.Event) -> None:
        aborted.set()
        with contextlib.suppress(OSError, AttributeError):  # closed meanwhile
            self.sock.shutdown(socket.SHUT_RDWR)


def _target(url: str) -> str:
    """A URL's path and query as they are written."""
    target = _ORIGIN.sub("", url, count=1).partition("#")[0]
    return quote("/" + target.removeprefix("/"), safe=string.punctuation)


def no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add no authorization; with `auth=None`, requests would use `~/.netrc`."""
    return request


def bearer_auth(
    api_key: str,
) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """An auth for a session that sends the API key as `Authorization: Bearer …`."""

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {api_key}"
        return request

    return authorize


def is_safe_url(url: str) -> bool:
    """Whether a URL is https, or plain http to a loopback address, without credentials in it."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return False
    # `urlsplit` finds the host ::1 in "[::1].example.com" too.
    if not host or not _HOST_AND_PORT.fullmatch(parts.netloc):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def is_possible_host(host: str) -> bool:
    """Whether a host of this name can exist: no label is empty or longer than 63 characters."""
    try:
        encoded = host.encode("idna")
    except UnicodeError:
        return False
    return 0 < len(encoded) <= _MAX_HOST_LENGTH and not host.startswith(("*", "."))


def is_temporary(status: int) -> bool:
    """Whether an HTTP status means that the same request may succeed later."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }


def failure_of(response: requests.Response, server: str, clock: Clock) -> RequestFailed:
    """The failure for a response with a temporary status.

    Args:
        response: The response.
        server: Who sent it.
        clock: What an HTTP date in `Retry-After` is compared with.
    """
    reason = f"{server} responded {response.status_code}"
    seconds = _parse_retry_after(response.headers.get("Retry-After", ""), clock.now())
    if seconds is None or seconds <= MAX_RETRY_AFTER_SECONDS:
        return RequestFailed(reason, seconds)
    moment = datetime.fromtimestamp(min(clock.now() + seconds, _END_OF_TIME), UTC)
    reason += f" and asked to retry after {format_utc(moment)}; rerun the tap then"
    return RequestFailed(reason, is_permanent=True)


def read_some(
    response: requests.Response, max_bytes: int = READ_BYTES, *, decode: bool = False
) -> bytes:
    """The part of a response's body that has arrived; none at its end.

    `read` would wait for all requested bytes, and discard some if the connection breaks.

    Raises:
        RequestFailed: The connection broke.
    """
    try:
        return response.raw.read1(max_bytes, decode_content=decode) or b""
    except (OSError, http.client.HTTPException, _Urllib3Error) as error:
        raise RequestFailed(describe_failure(error)) from None


def read_body(response: requests.Response, max_bytes: int, clock: Clock) -> bytes:
    """A response's body; empty if it is longer than `max_bytes`.

    Raises:
        RequestFailed: The connection broke, or the body arrives too slowly.
    """
    deadline = clock.monotonic() + READ_TIMEOUT_SECONDS
    body = b""
    while part := read_some(response, decode=True):
        body += part
        if len(body) > max_bytes:
            return b""
        if clock.monotonic() > deadline:
            raise RequestFailed(TOO_SLOW)
    return body


def describe_failure(error: Exception) -> str:
    """Why a request failed, without the URL that exceptions of libraries hold."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return next(
        (
            reason
            for kinds, reason in _REASONS
            if isinstance(error, kinds) or isinstance(cause, kinds)
        ),
        INTERRUPTED,
    )


_Urllib3Error = urllib3.exceptions.HTTPError
_FROM_SERVER = (requests.exceptions.InvalidHeader, urllib3.exceptions.InvalidHeader)
"""A malformed response header: also a `ValueError`, but not a wrong setting."""
_REASONS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((urllib3.exceptions.NameResolutionError,), "the host name could not be resolved"),
    ((urllib3.exceptions.NewConnectionError,), "the connection could not be made"),
    ((requests.Timeout, urllib3.exceptions.TimeoutError), "the request timed out"),
    ((requests.exceptions.ProxyError,), "the proxy could not be reached or refused to connect"),
    ((requests.exceptions.SSLError, urllib3.exceptions.SSLError), "the TLS connection failed"),
    ((*_FROM_SERVER, urllib3.exceptions.DecodeError), "the response was unreadable"),
)


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Drop urllib3's warning about malformed headers, which comes with a traceback."""
    return not str(record.msg).startswith("Failed to parse headers")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address in ipaddress.ip_network("127.0.0.0/8") or address == ipaddress.ip_address("::1")


def _set_variable(names: tuple[str, ...]) -> str | None:
    """The first of these environment variables that is set."""
    return next((name for name in names if os.environ.get(name)), None)


def _is_ca_bundle(variable: str) -> bool:
    path = Path(os.environ[variable])
    try:
        if not path.is_dir():
            ssl.create_default_context(cafile=path)
    except OSError:
        return False
    return True


def _parse_retry_after(text: str, now: float) -> float | None:
    """Seconds to wait, from seconds or an HTTP date; None if it is neither."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        # HTTP dates are UTC, also with a missing zone or `-0000`.
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    return max(seconds, 0) if math.isfinite(seconds) else None
