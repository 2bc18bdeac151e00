"""HTTP as the API and the storage both need it: sessions, safe URLs, retry delays, failures."""

from __future__ import annotations

import ipaddress
import re
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import backoff
import requests
import urllib3
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60
"""A silence of this length in a response counts as a broken connection."""
_MAX_DELAY_SECONDS = 60

_HOST_AND_PORT = re.compile(r"(\[[^][@]*\]|[^][@:]*)(:\d*)?")


class DirectSession(requests.Session):
    """A session that sends only its own auth, keeps no cookies and follows no redirects."""

    def __init__(
        self, auth: Callable[[requests.PreparedRequest], requests.PreparedRequest]
    ) -> None:
        """Prepare a session.

        Args:
            auth: Authorizes requests. Having one keeps the credentials of `~/.netrc` out.
        """
        super().__init__()
        self.auth = auth
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

    @override
    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        # Plain http goes to this machine only; a proxy could read the API key.
        if str(request.url).lower().startswith("http:"):
            kwargs["proxies"] = {}
        return super().send(request, **kwargs)

    @override
    def get_redirect_target(self, resp: requests.Response) -> None:
        pass


def no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave a request without authorization."""
    return request


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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address in ipaddress.ip_network("127.0.0.0/8") or address == ipaddress.ip_address("::1")


def backoff_delays() -> Iterator[float]:
    """Delays between attempts, without end: random, up to 1, 2, 4 … 60 seconds.

    Yields:
        Seconds.
    """
    exponential = backoff.expo(max_value=_MAX_DELAY_SECONDS)
    next(exponential)
    for longest in exponential:
        yield backoff.full_jitter(longest)


def describe_failure(error: Exception) -> str:
    """Why a request failed, in a few words without the URL that exceptions of libraries hold.

    Args:
        error: What `requests` or `urllib3` raised.
    """
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "it did not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "a secure connection (TLS) could not be made"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refused"
    return "the connection could not be made or broke"
