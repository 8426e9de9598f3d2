"""Origins: which are served."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import pytest

import trio_ws
from tests.peers import raw_http
from tests.server.serving import EXAMPLE, ask, records, serving
from trio_ws import ServerConnection

PATTERN = re.compile(r"https://[a-z]+\.example\.com")


@pytest.mark.parametrize(
    ("origins", "origin", "accepted"),
    [
        (None, None, True),
        (None, "https://anywhere", True),
        ([EXAMPLE], EXAMPLE, True),
        ([EXAMPLE], None, False),
        ([EXAMPLE], "https://example.com:8443", False),
        ([EXAMPLE], "http://example.com", False),
        ([EXAMPLE], "https://example.com.evil.org", False),
        ([EXAMPLE], "https://EXAMPLE.com", False),
        ([EXAMPLE], "null", False),
        ([EXAMPLE, None], None, True),
        ([None], None, True),
        ([None], EXAMPLE, False),
        ([None], "", False),
        ([PATTERN], "https://www.example.com", True),
        ([PATTERN], "https://www.example.com.evil.org", False),
        ([PATTERN], "https://evil.org/https://www.example.com", False),
        ([PATTERN], "https://www-example.com", False),
        ([PATTERN], None, False),
        ([re.compile(".*")], "https://anywhere", True),
        ([re.compile(".*")], None, False),
        ([PATTERN, "null"], "null", True),
        ([], None, False),
        ([], EXAMPLE, False),
    ],
)
async def test_origins(
    origins: Sequence[str | re.Pattern[str] | None] | None,
    origin: str | None,
    accepted: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    extra = [] if origin is None else [f"Origin: {origin}".encode()]
    async with serving(origins=origins) as listener:
        if accepted:
            stream = listener.connect()
            await stream.send_all(raw_http.request(*extra))
            await raw_http.read_switch(stream)
            await stream.aclose()
        else:
            assert (await ask(listener, *extra)).status == 403
    refusals = [
        record for record in caplog.records if "InvalidOrigin" in record.getMessage()
    ]
    assert len(refusals) == (not accepted)


async def test_two_origins_are_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(origins=[EXAMPLE]) as listener:
        line = f"Origin: {EXAMPLE}".encode()
        assert (await ask(listener, line, line)).status == 400
    assert len(records(caplog, logging.INFO)) == 1


async def test_an_origin_is_escaped_where_it_is_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(origins=[EXAMPLE]) as listener:
        answer = await ask(listener, b"Origin: https://\xe9\x9b<b>\t.example")
    assert answer.status == 403
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"
    assert answer.rest.isascii()
    (record,) = records(caplog, logging.INFO)
    for text in (record.getMessage(), answer.rest.decode()):
        assert r"\x9b<b>\t.example" in text
        assert text.replace("\n", "").isprintable()


async def test_a_client_sends_its_origin_and_the_handler_can_read_it() -> None:
    got = []

    async def handler(ws: ServerConnection) -> None:
        got.append(ws.request.headers["Origin"])

    async with serving(handler, origins=[EXAMPLE]) as listener:
        async with trio_ws.connect(
            "ws://h/", stream=listener.connect(), origin=EXAMPLE
        ) as ws:
            await ws.wait_closed()
        with pytest.raises(trio_ws.InvalidStatus, match="HTTP 403"):
            async with trio_ws.connect(
                "ws://h/", stream=listener.connect(), origin="https://evil.org"
            ):
                pytest.fail("a foreign origin was let in")
        with pytest.raises(trio_ws.InvalidStatus, match="HTTP 403"):
            async with trio_ws.connect("ws://h/", stream=listener.connect()):
                pytest.fail("no origin was let in")
    assert got == [EXAMPLE]
