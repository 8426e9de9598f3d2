"""The headers that say who it is."""

from __future__ import annotations

import re
from typing import Any

import pytest

import trio_ws
from tests.handlers import echo
from tests.peers import raw_http
from tests.server.serving import serving
from trio_ws import ServerConnection


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, re.compile(r"Python/3\.[0-9]+ trio_ws/\S+")),
        ({"server_header": "Mine/1.0"}, re.compile("Mine/1.0")),
        ({"server_header": None}, None),
        ({"additional_headers": {"Server": "Other"}}, re.compile("Other")),
    ],
)
async def test_server_header(
    options: dict[str, Any], expected: re.Pattern[str] | None
) -> None:
    async with serving(**options) as listener:
        stream = listener.connect()
        await stream.send_all(raw_http.request())
        value = (await raw_http.read_switch(stream)).header("Server")
        await stream.aclose()
    if expected is None:
        assert value is None
    else:
        assert value is not None
        assert expected.fullmatch(value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, re.compile(r"Python/3\.[0-9]+ trio_ws/\S+")),
        ({"user_agent_header": "Mine/1.0"}, re.compile("Mine/1.0")),
        ({"user_agent_header": None}, None),
        ({"additional_headers": {"User-Agent": "Other"}}, re.compile("Other")),
    ],
)
async def test_user_agent_header(
    options: dict[str, Any], expected: re.Pattern[str] | None
) -> None:
    values = []

    async def handler(ws: ServerConnection) -> None:
        values.append(ws.request.headers.get_all("User-Agent"))

    async with serving(handler) as listener:
        async with trio_ws.connect(
            "ws://h/", stream=listener.connect(), **options
        ) as ws:
            await ws.wait_closed()
    if expected is None:
        assert values == [[]]
    else:
        ((value,),) = values
        assert expected.fullmatch(value)


HANDSHAKES_OWN = [
    "Connection",
    "UPGRADE",
    "Content-Length",
    "Transfer-Encoding",
    "Sec-WebSocket-Key",
    "sec-websocket-accept",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
]


@pytest.mark.parametrize("name", [*HANDSHAKES_OWN, "Host"])
def test_additional_headers_of_a_client_leave_the_handshake_alone(name: str) -> None:
    with pytest.raises(ValueError, match=f"(?i)additional_headers: .*{name}"):
        trio_ws.connect("ws://h/", additional_headers={name: "x"})


@pytest.mark.parametrize("name", HANDSHAKES_OWN)
def test_additional_headers_of_a_server_leave_the_handshake_alone(name: str) -> None:
    with pytest.raises(ValueError, match=f"(?i)additional_headers: .*{name}"):
        trio_ws.open_server(echo, 0, additional_headers={name: "x"})
