"""HTTP as the API and the file storage both need it: what is sent, and how failures are told.

Knows neither the one nor the other.
"""

from __future__ import annotations

from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import backoff
import requests
import urllib3

from tap_cometly.limits import LONGEST_PAUSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests.auth import AuthBase


class DirectSession(requests.Session):
    """Carries its own auth alone, no cookies, and looks at no redirect, not even where it leads."""

    def __init__(self, auth: AuthBase) -> None:
        """Connect to nothing yet.

        Args:
            auth: Authorizes requests, and in doing so keeps `~/.netrc` out.
        """
        super().__init__()
        self.auth = auth
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request; plain http goes to this machine alone, so through no proxy.

        A proxy of the environment could read the API key on the way.

        Args:
            request: The request.
            **kwargs: As for any session.

        Returns:
            The answer.
        """
        if str(request.url).lower().startswith("http:"):
            kwargs["proxies"] = {}
        return super().send(request, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None, as if no answer were a redirect.

        Args:
            resp: Any answer.
        """


def pauses() -> Iterator[float]:
    """Pauses between tries, without end: up to 1, 2, 4 … seconds, drawn at random.

    Yields:
        Seconds.
    """
    growing = backoff.expo(max_value=LONGEST_PAUSE_SECONDS)
    next(growing)
    for longest in growing:
        yield backoff.full_jitter(longest)


def cause(fault: Exception) -> str:
    """Why a request failed, without the URL that libraries put into their exceptions.

    Args:
        fault: What `requests` or `urllib3` raised.

    Returns:
        A few words.
    """
    if isinstance(fault, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "it did not answer in time"
    if isinstance(fault, requests.exceptions.SSLError):
        return "a secure connection (TLS) could not be made"
    if isinstance(fault, requests.exceptions.ProxyError):
        return "the proxy refused"
    return "the connection could not be made or broke"
