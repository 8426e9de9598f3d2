from __future__ import annotations

import re

import pytest

from trio_ws import Headers, Request, Response, ServerConnection
from trio_ws._command.demo.site import Site

HOST = "127.0.0.1:8765"


def ask(
    *headers: tuple[str, str], path: str = "/", method: str = "GET", site: str = HOST
) -> Response | None:
    request = Request(path, Headers(headers), method)
    ws = ServerConnection.__new__(ServerConnection)  # of which it knows nothing
    response = Site(site.partition(":")[0]).process_request(ws, request)
    if response is not None:
        response.serialize()
    return response


def test_the_page() -> None:
    response = ask(("Host", HOST), path="/?x")
    assert response is not None
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert f"connect-src 'self' ws://{HOST};" in policy
    text = response.body.decode()
    assert text.startswith("<!DOCTYPE html>\n")
    # Nothing comes from elsewhere, but for the name of a vocabulary.
    assert set(re.findall(r"https?://[^\s'\"]+", text)) == {
        "http://www.w3.org/2000/svg"
    }


def test_head() -> None:
    whole, head = ask(("Host", HOST)), ask(("Host", HOST), method="HEAD")
    assert whole is not None
    assert head is not None
    assert head.body == b""
    assert head.headers["Content-Length"] == str(len(whole.body))


def test_other_methods() -> None:
    response = ask(("Host", HOST), method="POST")
    assert response is not None
    assert response.status_code == 405


def test_there_is_nothing_else() -> None:
    response = ask(("Host", HOST), path="/favicon.ico")
    assert response is not None
    assert response.status_code == 404


@pytest.mark.parametrize("origin", [[], [("Origin", f"http://{HOST}")]])
def test_its_own_websocket(origin: list[tuple[str, str]]) -> None:
    for upgrade in "WebSocket", "h2c, websocket":
        assert ask(("Host", HOST), ("Upgrade", upgrade), *origin) is None


@pytest.mark.parametrize(
    "origin",
    [
        "http://a.example",
        "null",
        "http://127.0.0.1",
        "http://127.0.0.1:8766",
        f"https://{HOST}",
        f"http://{HOST}/",
    ],
)
def test_the_websocket_of_another_page(origin: str) -> None:
    response = ask(("Host", HOST), ("Origin", origin), ("Upgrade", "websocket"))
    assert response is not None
    assert response.status_code == 403


@pytest.mark.parametrize(
    "host", [HOST, "LOCALHOST:8765", "[::1]:8765", "192.0.2.1", "demo.example:8765"]
)
def test_hosts(host: str) -> None:
    response = ask(("Host", host), site="demo.example")
    assert response is not None
    assert response.status_code == 200


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["a.example:8765"],
        [HOST, HOST],
        ["user@127.0.0.1"],
        ["localhost.a.example"],
        ["[::1%;]"],
    ],
)
def test_a_name_that_anybody_can_have(hosts: list[str]) -> None:
    """Of a page that lets its own name stand for this machine (DNS rebinding)."""
    headers = [("Host", host) for host in hosts]
    response = ask(*headers, ("Upgrade", "websocket"))
    assert response is not None
    assert response.status_code == 403
