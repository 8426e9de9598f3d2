"""basic_auth(): who is let in, and who is asked for what."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest
import trio

from tests.peers import raw_http
from tests.server.serving import ask, in_memory, records, serving
from trio_ws import (
    InvalidStatus,
    Request,
    ServerConnection,
    basic_auth,
    connect,
)

ALICE = ("alice", "sésame: 1")


async def tell(ws: ServerConnection) -> None:
    await ws.send(str(ws.username))


def header(credentials: str | bytes, scheme: str = "Basic") -> bytes:
    if isinstance(credentials, str):
        credentials = credentials.encode()
    encoded = base64.b64encode(credentials).decode()
    return f"Authorization: {scheme} {encoded}".encode()


async def check_async(username: str, password: str) -> bool:
    await trio.lowlevel.checkpoint()
    return (username, password) == ALICE


WAYS: list[dict[str, Any]] = [
    {"credentials": ALICE},
    {"credentials": [("bob", "x"), ALICE]},
    {"credentials": iter([ALICE])},
    {"check_credentials": lambda *given: given == ALICE},
    {"check_credentials": check_async},
]


@pytest.mark.parametrize("way", WAYS, ids=["pair", "list", "iterator", "sync", "async"])
async def test_who_is_let_in(way: dict[str, Any]) -> None:
    hook = basic_auth("home", **way)
    server, client = in_memory(tell, process_request=hook)
    async with server:
        for _ in range(2):
            name, _, value = header(":".join(ALICE), "basic").decode().partition(": ")
            async with client(additional_headers={name: value}) as ws:
                assert await ws.recv() == "alice"
        with pytest.raises(InvalidStatus) as caught:
            async with client():
                raise AssertionError("unreachable")
    response = caught.value.response
    assert response.status_code == 401
    expected = 'Basic realm="home", charset="UTF-8"'
    assert response.headers["WWW-Authenticate"] == expected
    assert response.body == b"Missing credentials\n"


async def test_by_the_uri() -> None:
    hook = basic_auth(credentials=("alice", "secret"))
    async with serving(tell, process_request=hook) as listener:
        uri = "ws://alice:secret@testing/"
        async with connect(uri, stream=listener.connect()) as ws:
            assert await ws.recv() == "alice"


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([header("alice:wrong")], b"Invalid"),
        ([header("alice:")], b"Invalid"),
        ([header("nobody:")], b"Invalid"),
        ([header("nobody:x")], b"Invalid"),
        ([header("alice")], b"Missing"),
        ([header(b"alice:\xff")], b"Missing"),
        ([header("alice\0:secret")], b"Missing"),
        ([header("\nalice:secret")], b"Missing"),
        ([header("alice:secret\x7f")], b"Missing"),
        ([b"Authorization: Basic !!!"], b"Missing"),
        ([b"Authorization: Basic"], b"Missing"),
        ([header("alice:secret", "Bearer")], b"Missing"),
        ([header("alice:secret"), header("alice:secret")], b"Missing"),
    ],
)
async def test_who_is_not(lines: list[bytes], text: bytes) -> None:
    hook = basic_auth('the "realm\\', credentials=("alice", "secret"))
    async with serving(tell, process_request=hook) as listener:
        answer = await ask(listener, *lines)
    assert answer.status == 401
    expected = 'Basic realm="the \\"realm\\\\", charset="UTF-8"'
    assert answer.header("WWW-Authenticate") == expected
    assert answer.rest.startswith(text)


@pytest.mark.parametrize("given", ["alice:wrong", "nobody:x", "nobody:", "alice:"])
async def test_what_is_compared_has_one_length(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that time tells neither whether a name is known, nor how long its word is."""
    compared: list[int] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.extend((len(a), len(b)))
        return a == b

    monkeypatch.setattr("hmac.compare_digest", compare)
    hook = basic_auth(credentials=("alice", "secret" * 1000))
    async with serving(tell, process_request=hook) as listener:
        assert (await ask(listener, header(given))).status == 401
    assert compared == [32, 32]


@pytest.mark.parametrize("result", [None, 1, "yes"])
async def test_what_the_check_returns(
    result: object, caplog: pytest.LogCaptureFixture
) -> None:
    hook = basic_auth(check_credentials=lambda *_: result)  # type: ignore[arg-type]
    async with serving(tell, process_request=hook) as listener:
        answer = await ask(listener, header("alice:secret"))
    assert answer.status == 500
    (record,) = records(caplog, logging.ERROR)
    assert record.exc_info is not None
    assert f"expected it to return a bool; got {result!r}" in str(record.exc_info[1])
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ValueError, "or check_credentials; got neither"),
        (
            {"credentials": ALICE, "check_credentials": check_async},
            ValueError,
            "got both",
        ),
        ({"credentials": "alice:secret"}, TypeError, "two str.*got str"),
        ({"credentials": {"alice": "secret"}}, TypeError, "got dict"),
        ({"credentials": ["alice", "secret"]}, TypeError, "got str"),
        ({"credentials": [("alice", "secret", 1)]}, TypeError, "got tuple"),
        ({"credentials": 1}, TypeError, "got int"),
        ({"credentials": ("a:b", "secret")}, ValueError, "no colon in a user name"),
        ({"credentials": ("a\n", "secret")}, ValueError, "no control characters in"),
        (
            {"credentials": [("a", "secret"), ALICE, ("a", "secret2")]},
            ValueError,
            "expected each user name once; got 'a' again",
        ),
        ({"check_credentials": True}, TypeError, "check_credentials: expected"),
        ({"realm": 1, "credentials": ALICE}, TypeError, "realm: expected a str"),
        ({"realm": "a\nb", "credentials": ALICE}, ValueError, "realm: expected ASCII"),
    ],
)
def test_wrong_arguments(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        basic_auth(**arguments)
    assert "secret" not in str(caught.value)


async def test_with_a_hook_of_ones_own() -> None:
    login = basic_auth(credentials=("alice", "secret"))

    async def hook(connection: ServerConnection, request: Request) -> Any:
        if request.path == "/health":
            return connection.respond(200, "OK\n")
        return await login(connection, request)

    async with serving(tell, process_request=hook) as listener:
        answer = await ask(listener, line=b"GET /health HTTP/1.1")
        assert answer.status == 200
        stream = listener.connect()
        await stream.send_all(raw_http.request())
        assert (await raw_http.read_answer(stream)).status == 401
