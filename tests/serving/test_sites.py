"""Which requests a page of another site could make a browser send, and which are answered all the same."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from t2i_kd.errors import UserError
from t2i_kd.serving.settings import Settings, parse_hosts
from t2i_kd.serving.sites import refusing_other_sites

LOOPBACK = {}
OPEN = {"host": "0.0.0.0"}
NAMED = {"host": "0.0.0.0", "allowed_hosts": ("pictures.example", "::1")}
CROSS, SAME = {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-origin"}


async def quick(request):
    return PlainTextResponse("quick")


APP = Starlette(routes=[Route(path, quick, methods=["GET", "POST"]) for path in ("/", "/healthz")])


def ask(host, settings, path="/", method="POST", **headers):
    """(status, the error's words or "")."""
    app = refusing_other_sites(APP, Settings("m", "folder", **settings))

    async def run():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            sent = {"host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, headers=sent)

    answer = asyncio.run(run())
    return answer.status_code, answer.json()["error"] if answer.status_code != 200 else ""


@pytest.mark.parametrize(
    ("host", "settings"),
    [
        ("localhost", LOOPBACK),
        ("LocalHost:8501", LOOPBACK),
        ("localhost.:8501", LOOPBACK),
        ("127.0.0.1:8501", LOOPBACK),
        ("127.9.9.9", LOOPBACK),
        ("[::1]:8501", LOOPBACK),
        ("[::1]:8501", {"host": "::1"}),
        ("localhost", {"host": "localhost"}),
        ("evil.example", OPEN),
        ("10.0.0.7:8501", OPEN),
        ("pictures.example:80", NAMED),
        ("[::1]", NAMED),
        ("evil.example", {"allowed_hosts": ("*",)}),
    ],
)
def test_hosts_that_are_asked(host, settings):
    assert ask(host, settings) == (200, "")


@pytest.mark.parametrize(
    ("host", "settings"),
    [
        ("evil.example", LOOPBACK),
        ("evil.example:8501", LOOPBACK),
        ("localhost.evil.example", LOOPBACK),
        ("127.0.0.1.evil.example", LOOPBACK),
        ("evil.example@localhost", LOOPBACK),
        ("localhost:8501/x", LOOPBACK),
        ("10.0.0.7", LOOPBACK),
        ("[::1", LOOPBACK),
        ("", LOOPBACK),
        ("localhost", NAMED),
        ("www.pictures.example", NAMED),
    ],
)
def test_hosts_that_are_not(host, settings):
    assert ask(host, settings) == (403, f"Host {host!r} is not allowed (--allowed_hosts)")
    assert ask(host, settings, method="GET")[0] == 403
    # A probe asks by an address that nobody knows beforehand.
    assert ask(host, settings, "/healthz", "GET")[0] == 200


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        (LOOPBACK, {}),
        (LOOPBACK, {"origin": "http://localhost:8501"}),
        (LOOPBACK, {"origin": "https://LOCALHOST:8501"}),
        # The page behind a proxy that asks by another name.
        (LOOPBACK, {"origin": "https://pictures.example", "sec_fetch_site": "same-origin"}),
        (NAMED | {"allowed_hosts": ("localhost", "pictures.example")}, {"origin": "https://pictures.example"}),
    ],
)
def test_the_own_page_and_programs_are_answered(settings, headers):
    assert ask("localhost:8501", settings, **headers) == (200, "")


@pytest.mark.parametrize("settings", [LOOPBACK, OPEN, {"allowed_hosts": ("*",)}])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost:3000"},
        {"origin": "http://localhost"},
        {"origin": "http://localhost:8501@evil.example"},
        {"origin": "https://evil.example", "sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_pages_of_other_sites_are_refused(settings, headers):
    status, message = ask("localhost:8501", settings, **headers)
    assert status == 403 and ("another site" in message)


def test_a_link_from_another_site_leads_to_the_page():
    assert ask("localhost:8501", LOOPBACK, method="GET", sec_fetch_site="cross-site")[0] == 200
    assert ask("localhost:8501", LOOPBACK, method="GET", origin="https://evil.example")[0] == 403


def test_hosts_of_the_flag():
    assert parse_hosts("") == ()
    assert parse_hosts("A.example, [::1],127.0.0.1") == ("a.example", "::1", "127.0.0.1")
    assert parse_hosts("*") == ("*",)
    for wrong in ("http://a", "a:80", "*.a", "a,,b", "a b", "a/"):
        with pytest.raises(UserError, match=r"^--allowed_hosts: '"):
            parse_hosts(wrong)
