"""A browser's page as the client; what drives the browser as the server."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Generator

import pytest
import trio

import trio_ws
from tests.interop import chromium_peer, firefox_peer
from tests.interop.pairs import Handler, agreed_extensions, pair
from tests.interop.peer import HOST, LIMIT, Library
from tests.interop.proxy import required
from tests.interop.relay import Relay

MIB = 2**20

LOST = r"^no close frame received or sent$"


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    folder = tmp_path_factory.mktemp("firefox")
    with firefox_peer.firefox(required("firefox-esr"), folder) as uri:
        yield uri


@pytest.fixture(params=["chromium", "firefox"])
def page(request: pytest.FixtureRequest) -> Library:
    uri = request.getfixturevalue(request.param)
    peer = {"chromium": chromium_peer, "firefox": firefox_peer}[request.param]
    return chromium_peer.PageLibrary(functools.partial(peer.page, uri))


async def test_echo(page: Library) -> None:
    async with pair(page, "server") as (ours, theirs, _):
        # The Origin of a page without an address.
        assert ours.request.headers["Origin"] == "null"
        for message in "", "Grüße 👋", b"", bytes(range(256)), "x" * 126, b"y" * 2**16:
            await ours.send(message)
            assert await theirs.recv() == message
            await theirs.send(message)
            assert await ours.recv() == message


async def test_a_large_message_each_way(page: Library) -> None:
    message = bytes(range(256)) * (MIB // 256)
    async with pair(page, "server") as (ours, theirs, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send, message)
            nursery.start_soon(theirs.send, message)
            assert await ours.recv() == message
            assert await theirs.recv() == message


async def test_a_message_too_large(page: Library) -> None:
    async with pair(page, "server", max_size=100) as (ours, theirs, _):
        await theirs.send("x" * 101)
        with pytest.raises(trio_ws.ConnectionClosedError):
            await ours.recv()
        assert (await theirs.closed()).code == 1009


async def test_fragments_and_pings(page: Library) -> None:
    async with pair(page, "server") as (ours, theirs, _):

        async def text() -> AsyncIterator[str]:
            for fragment in "frag", "", "men", "ts":
                yield fragment
                assert await ours.ping() > 0

        await ours.send(text())
        assert await theirs.recv() == "fragments"
        await ours.pong(b"unsolicited")
        await ours.send("on")
        assert await theirs.recv() == "on"


async def test_subprotocols(page: Library) -> None:
    async with pair(
        page,
        "server",
        subprotocols=["v2.chat", "v1.chat"],
        their_subprotocols=["superchat", "v1.chat"],
    ) as (ours, theirs, _):
        assert ours.subprotocol == theirs.subprotocol == "v1.chat"


async def test_compression(page: Library) -> None:
    async with pair(page, "server", compression="deflate") as (ours, theirs, _):
        assert agreed_extensions(ours).startswith("permessage-deflate")
        for message in "Grüße" * 100, "Grüße" * 100, "", bytes(MIB):
            await ours.send(message)
            assert await theirs.recv() == message
            await theirs.send(message)
            assert await ours.recv() == message


async def test_a_refusal(page: Library) -> None:
    async with trio_ws.open_server(
        Handler(), 0, host=HOST, subprotocols=["chat"]
    ) as server:
        with pytest.raises(AssertionError, match="not opened"):
            async with page.connect(server.port):
                pass


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1000, ""),
        (1001, "going away"),
        (1011, "internal error"),
        (3000, "Grüße 👋"),
        (4999, "x" * 123),
    ],
)
async def test_ours_closes(page: Library, code: int, reason: str) -> None:
    async with pair(page, "server") as (ours, theirs, _):
        await ours.send("the last one")
        await ours.aclose(code, reason)
        assert ours.close_code == code
        assert await theirs.recv() == "the last one"
        assert await theirs.closed() == (code, reason)


# 1000 and 3000 to 4999 are all that a page may send.
@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (3000, "Grüße 👋"), (4999, "x" * 123)]
)
async def test_theirs_closes(page: Library, code: int, reason: str) -> None:
    async with pair(page, "server") as (ours, theirs, _):
        await theirs.send("the last one")
        await theirs.close(code, reason)
        assert await ours.recv() == "the last one"
        with pytest.raises(trio_ws.ConnectionClosed) as info:
            await ours.recv()
        assert isinstance(info.value, trio_ws.ConnectionClosedOK) is (code == 1000)
        assert (ours.close_code, ours.close_reason) == (code, reason)
        assert await theirs.closed() == (code, reason)


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "end"])
async def test_abrupt_loss(page: Library, reset: bool) -> None:
    async with trio.open_nursery() as nursery:
        relay = Relay(nursery)
        async with pair(page, "server", between=relay.between) as (ours, theirs, _):
            await relay.cut(reset=reset)
            with pytest.raises(trio_ws.ConnectionClosedError, match=LOST):
                await ours.recv()
            assert ours.close_code == 1006
            assert await theirs.closed() == (1006, "")


# -- DevTools -----------------------------------------------------------------


async def test_devtools_server(chromium: str) -> None:
    text = "x" * MIB
    with trio.fail_after(LIMIT):
        async with chromium_peer.page(chromium) as tools:
            assert await tools.evaluate("'Grüße'") == "Grüße"
            # Each way; an expression is a message of ours.
            assert await tools.evaluate(f"'{text}'.length") == MIB
            assert await tools.evaluate(f"'x'.repeat({MIB})") == text
            assert await tools.ws.ping() > 0
            await tools.ws.aclose()
            assert tools.ws.close_code == 1000


async def receive_all(ws: trio_ws.Connection, messages: list[str | bytes]) -> None:
    async for message in ws:
        messages.append(message)


async def test_devtools_server_drops_the_connection(chromium: str) -> None:
    """Chromium's server has no closing handshake: its last message is delivered."""
    messages: list[str | bytes] = []
    with trio.fail_after(LIMIT):
        async with chromium_peer.devtools(chromium) as tools:
            target = await tools.command("Target.createTarget", url="about:blank")
            uri = chromium_peer.uri_of(chromium, target["targetId"])
            async with trio_ws.connect(uri) as ws:
                await tools.command("Target.closeTarget", **target)
                with pytest.raises(trio_ws.ConnectionClosedError, match=LOST) as info:
                    await receive_all(ws, messages)
            assert isinstance(info.value.__cause__, EOFError)
            assert ws.close_code == 1006
    assert "Inspector.detached" in str(messages[-1])


# -- WebDriver BiDi -----------------------------------------------------------


async def test_bidi_server(firefox: str) -> None:
    text = "x" * MIB
    with trio.fail_after(LIMIT):
        async with firefox_peer.page(firefox) as tools:
            assert await tools.evaluate("'Grüße'") == "Grüße"
            assert await tools.evaluate(f"'{text}'.length") == MIB
            assert await tools.evaluate(f"'x'.repeat({MIB})") == text
            assert await tools.ws.ping() > 0
        # Which ends it is the server.
        with pytest.raises(trio_ws.ConnectionClosedOK) as info:
            await tools.ws.recv()
        assert info.value.rcvd_then_sent is True
