"""The headers that say who it is."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

import trio_ws
from tests.handlers import echo
from tests.peers import raw_http
from tests.server.serving import serving
from trio_ws import Request, Response, ServerConnection


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


def says_json(ws: ServerConnection, request: Request) -> Response:
    response = ws.respond(200, "{}")
    response.headers["Content-Type"] = "application/json"
    return response


def fails(ws: ServerConnection, request: Request) -> None:
    raise ValueError("mine")


@pytest.mark.parametrize(
    ("sent", "hook", "status"),
    [
        (raw_http.request(), None, 101),
        (raw_http.request(), says_json, 200),
        (raw_http.request(), fails, 500),
        (raw_http.request(without=b"Upgrade"), None, 426),
        (b"\x16", None, 400),
    ],
)
async def test_headers_of_every_answer(sent: bytes, hook: Any, status: int) -> None:
    options: dict[str, Any] = {
        "additional_headers": {"X-Mine": "1"},
        "server_header": "Mine",
    }
    async with serving(process_request=hook, **options) as listener:
        stream = listener.connect()
        await stream.send_all(sent)
        read = raw_http.read_switch if status == 101 else raw_http.read_answer
        answer = await read(stream)
        await stream.aclose()
    assert answer.status == status
    assert answer.header("Server") == "Mine"
    assert answer.header("X-Mine") == "1"
    date = answer.header("Date")
    assert date is not None
    assert date.endswith(" GMT")
    assert parsedate_to_datetime(date).utcoffset() is not None
    if hook is says_json:
        assert answer.header("Content-Type") == "application/json"


async def test_a_response_that_is_given_again_stays_as_it_is() -> None:
    health = Response(200, "OK", trio_ws.Headers({"X": "1"}), b"OK")
    async with serving(process_request=lambda ws, request: health) as listener:
        for _ in range(2):
            stream = listener.connect()
            await stream.send_all(raw_http.request())
            answer = await raw_http.read_answer(stream)
            assert answer.header("Date") is not None
    assert health.headers == trio_ws.Headers({"X": "1"})


async def test_what_process_response_removes_stays_away() -> None:
    def remove(ws: ServerConnection, request: Request, response: Response) -> None:
        del response.headers["Server"]

    async with serving(process_response=remove) as listener:
        stream = listener.connect()
        await stream.send_all(raw_http.request(without=b"Upgrade"))
        assert (await raw_http.read_answer(stream)).header("Server") is None


async def test_no_body_to_head() -> None:
    async with serving() as listener:
        stream = listener.connect()
        await stream.send_all(raw_http.request(line=b"HEAD / HTTP/1.1"))
        answer = await raw_http.read_answer(stream, head=True)
    assert (answer.status, answer.header("Allow")) == (405, "GET")
    assert int(answer.header("Content-Length") or 0) > 0


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
