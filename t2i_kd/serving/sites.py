"""Keeps pages of other sites away from the REST API: a browser on this host would carry their requests to it."""

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from t2i_kd.serving.asgi import HEALTH, error_response
from t2i_kd.serving.errors import PERMISSION_DENIED, RequestError

AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/?#@\s]+)(?::[0-9]*)?")
ANY = "*"
# What follows a link from another site, and shows that site nothing.
SAFE = ("GET", "HEAD")


def refusing_other_sites(app, settings):
    """An application that answers with 403 what a page of another site asks for.

    Such a page asks under its own name, of which its DNS server then says that it is this host (DNS rebinding): that
    `Host` is not allowed. Or it asks under a name of ours, and the browser says with `Origin` where the page is from.

    Args:
        app: the application.
        settings: `settings.Settings`.
    """
    allowed = _asked_as(settings)

    async def answer(scope, receive, send):
        try:
            _check(Headers(scope=scope), scope, allowed, settings.allowed_hosts)
        except RequestError as error:
            await error_response(error)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


def _asked_as(settings):
    """From a name in lower case to whether a `Host` may have it."""
    names = settings.allowed_hosts
    if ANY in names or not (names or _is_loopback(settings.host)):
        return lambda name: True
    if names:
        return names.__contains__
    return lambda name: name in ("localhost", settings.host.lower()) or _is_loopback_address(name)


def _check(headers, scope, allowed, other_names):
    host, site = headers.get("host", "").lower(), headers.get("sec-fetch-site")
    # A probe's Host is an address that nobody knows beforehand, and its answer tells nothing.
    if scope["path"] != HEALTH and not allowed(_name(host)):
        raise RequestError(PERMISSION_DENIED, f"Host {host[:100]!r} is not allowed (--allowed_hosts)")
    if "origin" in headers:
        # A proxy may ask under another name than the browser did; then the browser's word or the flag counts.
        origin = urlsplit(headers["origin"].lower()).netloc
        if origin != host and site != "same-origin" and _name(origin) not in other_names:
            raise RequestError(
                PERMISSION_DENIED, f"Origin {headers['origin'][:100]!r} is another site (--allowed_hosts)"
            )
    elif scope["method"] not in SAFE and site in ("cross-site", "same-site"):
        raise RequestError(PERMISSION_DENIED, "a page of another site asks for this")


def _name(authority):
    """`localhost` of `localhost:8501`; empty where that is no host and port."""
    match = AUTHORITY.fullmatch(authority)
    return match[1].strip("[]").removesuffix(".") if match else ""


def _is_loopback(host):
    try:
        return all(_is_loopback_address(info[4][0]) for info in socket.getaddrinfo(host, None))
    except OSError:
        return False


def _is_loopback_address(name):
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
