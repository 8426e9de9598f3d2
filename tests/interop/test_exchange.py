"""The same exchanges with each library, trio_ws being the client and the server."""

from __future__ import annotations

import importlib
import random
from collections.abc import AsyncIterator, Mapping

import pytest
import trio

import trio_ws
from tests.interop.pairs import Role, agreed_extensions, pair
from tests.interop.peer import HOST, TLS, Library
from tests.interop.process_peer import Program
from tests.interop.programs import DEFLATING, MORE, PROGRAMS
from tests.interop.relay import Relay
from trio_ws.extensions import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)

MIB = 2**20
QUARTER = 2**18

LOST = r"^no close frame received or sent$"

foreign = [pytest.param(name, marks=pytest.mark.interop) for name in MORE]

LIBRARIES = ["aiohttp", "trio_websocket", "websockets", "wsproto", *PROGRAMS, *foreign]
ALL = {**PROGRAMS, **MORE}
COMPRESSING = [name for name in LIBRARIES if name != "trio_websocket"]


def load(name: str, programs: Mapping[str, Program] = ALL) -> Library:
    program = programs.get(name)
    if program is not None:
        if lacking := program.lacks():
            pytest.skip(f"{name}: {lacking}")
        return program
    pytest.importorskip(name, reason=f"{name} is not installed")
    library = importlib.import_module(f"tests.interop.{name}_peer").LIBRARY
    assert isinstance(library, Library)
    return library


def deflating(name: str) -> Library:
    return load(name, {**ALL, **DEFLATING})


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Library:
    return load(request.param)


@pytest.fixture(params=["client", "server"])
def role(request: pytest.FixtureRequest) -> Role:
    which: Role = request.param
    return which


async def test_echo(library: Library, role: Role) -> None:
    async with pair(library, role) as (ours, theirs, _):
        for message in "", "Grüße 👋", b"", bytes(range(256)), "x" * 126, b"y" * 2**16:
            await ours.send(message)
            assert await theirs.recv() == message
            await theirs.send(message)
            assert await ours.recv() == message


async def test_order_and_pipelining(library: Library, role: Role) -> None:
    async with pair(library, role) as (ours, theirs, _):
        for number in range(40):
            await ours.send(str(number))
        for number in range(40):
            assert await theirs.recv() == str(number)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def push() -> None:
                for number in range(40):
                    await theirs.send(str(number))

            for number in range(40):
                assert await ours.recv() == str(number)


async def test_a_large_message_each_way_at_once(library: Library, role: Role) -> None:
    message = bytes(range(256)) * (MIB // 256)
    async with pair(library, role) as (ours, theirs, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send, message)
            nursery.start_soon(theirs.send, message)
            assert await ours.recv() == message
            assert await theirs.recv() == message


async def test_a_message_one_byte_too_large(library: Library, role: Role) -> None:
    async with pair(library, role, max_size=MIB - 1) as (ours, theirs, _):
        await theirs.send(bytes(MIB))
        with pytest.raises(trio_ws.ConnectionClosedError) as info:
            await ours.recv()
        assert info.value.sent is not None
        assert info.value.sent.code == 1009
        assert (await theirs.closed()).code == 1009


async def test_fragments_of_ours(library: Library, role: Role) -> None:
    async with pair(library, role) as (ours, theirs, _):

        async def text() -> AsyncIterator[str]:
            for fragment in "frag", "", "men", "ts":
                yield fragment
                await ours.ping()  # between the fragments, and answered there

        await ours.send(text())
        assert await theirs.recv() == "fragments"
        await ours.send([b"\x00" * QUARTER, b"\xff" * QUARTER])
        assert await theirs.recv() == b"\x00" * QUARTER + b"\xff" * QUARTER


async def test_fragments_of_theirs(library: Library, role: Role) -> None:
    async with pair(library, role) as (ours, theirs, _):
        if not theirs.can_fragment:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.send_fragments, ["frag", "", "men", "ts"])
            assert await ours.recv() == "fragments"
            nursery.start_soon(theirs.send_fragments, [b"\x00" * QUARTER, b"\xff"])
            assert await ours.recv() == b"\x00" * QUARTER + b"\xff"


async def test_pings(library: Library, role: Role) -> None:
    async with pair(library, role) as (ours, theirs, _):
        assert await ours.ping() > 0
        assert await ours.ping(b"x" * 125) > 0
        await ours.pong(b"unsolicited")
        if theirs.can_ping:
            await theirs.ping()
        # The unsolicited one did no harm.
        await ours.send("on")
        assert await theirs.recv() == "on"


async def test_subprotocols(library: Library, role: Role) -> None:
    async with pair(
        library,
        role,
        subprotocols=["v2.chat", "v1.chat"],
        their_subprotocols=["superchat", "v1.chat"],
    ) as (ours, theirs, _):
        assert ours.subprotocol == theirs.subprotocol == "v1.chat"


async def test_no_subprotocol(library: Library, role: Role) -> None:
    async with pair(library, role) as (ours, theirs, _):
        assert ours.subprotocol is None
        assert not theirs.subprotocol


@pytest.mark.parametrize("name", COMPRESSING)
async def test_compression(name: str, role: Role) -> None:
    async with pair(deflating(name), role, compression="deflate") as (ours, theirs, _):
        assert agreed_extensions(ours).startswith("permessage-deflate")
        # The second of two that are alike refers to the first.
        for message in (
            "Grüße" * 100,
            "Grüße" * 100,
            "",
            random.Random(0).randbytes(QUARTER),
        ):
            await ours.send(message)
            assert await theirs.recv() == message
            await theirs.send(message)
            assert await ours.recv() == message
        await ours.send(["frag" * 100, "", "ments" * 100])
        assert await theirs.recv() == "frag" * 100 + "ments" * 100
        if theirs.can_fragment:
            async with trio.open_nursery() as nursery:
                fragments = ["frag" * 100, "", "ments" * 100]
                nursery.start_soon(theirs.send_fragments, fragments)
                assert await ours.recv() == "".join(fragments)
        await ours.aclose()
        assert await theirs.closed() == (1000, "")


@pytest.mark.parametrize("name", COMPRESSING)
async def test_a_message_that_is_not_compressed(name: str, role: Role) -> None:
    async with pair(deflating(name), role, compression="deflate") as (ours, theirs, _):
        assert agreed_extensions(ours).startswith("permessage-deflate")
        for message in "too short for it", "x" * 1000, "too short for it":
            await ours.send(message)
            assert await theirs.recv() == message
            await theirs.send(message)
            assert await ours.recv() == message


@pytest.mark.parametrize("name", COMPRESSING)
async def test_compression_of_each_message_alone(name: str, role: Role) -> None:
    deflate = (
        ClientPerMessageDeflateFactory
        if role == "client"
        else ServerPerMessageDeflateFactory
    )
    factory = deflate(server_no_context_takeover=True, client_no_context_takeover=True)
    async with pair(deflating(name), role, extensions=[factory]) as (ours, theirs, _):
        assert "server_no_context_takeover" in agreed_extensions(ours)
        for message in "Grüße" * 1000, "Grüße" * 1000, "", "Grüße" * 1000:
            await ours.send(message)
            assert await theirs.recv() == message
            await theirs.send(message)
            assert await ours.recv() == message
        await ours.ping()


@pytest.mark.parametrize("name", COMPRESSING)
async def test_compression_is_declined(name: str) -> None:
    async with pair(deflating(name), "server", compression=None) as (ours, theirs, _):
        assert "permessage-deflate" in ours.request.headers["Sec-WebSocket-Extensions"]
        assert agreed_extensions(ours) == ""
        for message in "x" * 1000, bytes(MIB):
            await ours.send(message)
            assert await theirs.recv() == message
            await theirs.send(message)
            assert await ours.recv() == message


@pytest.mark.parametrize("name", COMPRESSING)
async def test_a_message_too_large_once_inflated(name: str, role: Role) -> None:
    async with pair(deflating(name), role, compression="deflate", max_size=MIB) as (
        ours,
        theirs,
        _,
    ):
        await theirs.send(bytes(MIB + 1))
        with pytest.raises(trio_ws.ConnectionClosedError) as info:
            await ours.recv()
        assert info.value.sent is not None
        assert info.value.sent.code == 1009
        assert (await theirs.closed()).code == 1009


async def test_a_refusal_of_theirs() -> None:
    async with load("aiohttp").serve() as service:
        with pytest.raises(trio_ws.InvalidStatus) as info:
            async with trio_ws.connect(f"ws://{HOST}:{service.port}/nowhere"):
                pass
        assert info.value.response.status_code == 404
        assert b"Not Found" in info.value.response.body


# -- The end ------------------------------------------------------------------

CLOSES = [
    (1000, ""),
    (1000, "done"),
    (1001, "going away"),
    (1011, "internal error"),
    (3000, "Grüße 👋"),
    (4999, "x" * 123),
]


@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_ours_closes(
    library: Library, role: Role, code: int, reason: str
) -> None:
    async with pair(library, role) as (ours, theirs, _):
        await ours.send("the last one")
        await ours.aclose(code, reason)
        assert ours.close_code == (code if theirs.echoes_the_code else 1000)
        assert ours.state is trio_ws.State.CLOSED
        assert await theirs.recv() == "the last one"
        assert await theirs.closed() == (code, reason)
        with pytest.raises(trio_ws.ConnectionClosedOK) as info:
            await ours.recv()
        assert info.value.rcvd_then_sent is False


@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_theirs_closes(
    library: Library, role: Role, code: int, reason: str
) -> None:
    async with pair(library, role) as (ours, theirs, _):
        await theirs.send("the last one")
        await theirs.close(code, reason)
        assert await ours.recv() == "the last one"
        in_order = code in (1000, 1001)
        with pytest.raises(
            trio_ws.ConnectionClosedOK if in_order else trio_ws.ConnectionClosedError
        ) as info:
            await ours.recv()
        close = trio_ws.Close(code, reason)
        assert (info.value.rcvd, info.value.sent) == (close, close)
        assert info.value.rcvd_then_sent is True
        await ours.wait_closed()
        assert (ours.close_code, ours.close_reason) == (code, reason)
        assert (await theirs.closed()).code == (
            code if theirs.sees_the_answer else 1000
        )


async def test_both_close_at_once(library: Library, role: Role) -> None:
    async with pair(library, role) as (ours, theirs, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.aclose)
            nursery.start_soon(theirs.close, 1000, "")
        assert ours.close_code == 1000
        assert (await theirs.closed()).code == 1000


async def test_leaving_the_block_closes(library: Library, role: Role) -> None:
    async with pair(library, role) as (ours, theirs, leave):
        await ours.send("the last one")
        leave.set()
        await ours.wait_closed()
        assert ours.close_code == 1000
        assert await theirs.recv() == "the last one"
        assert await theirs.closed() == (1000, "")


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "end"])
async def test_abrupt_loss(library: Library, role: Role, reset: bool) -> None:
    async with trio.open_nursery() as nursery:
        relay = Relay(nursery)
        async with pair(library, role, between=relay.between) as (ours, theirs, _):
            await theirs.send("the last one")
            await ours.ping()  # it is there, and so is the ping's pong
            await relay.cut(reset=reset)
            assert await ours.recv() == "the last one"
            with pytest.raises(trio_ws.ConnectionClosedError, match=LOST) as info:
                await ours.recv()
            cause = ConnectionResetError if reset else EOFError
            assert isinstance(info.value.__cause__, cause)
            assert ours.close_code == 1006
            assert (await theirs.closed()).code == 1006


# -- TLS ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["aiohttp", "trio_websocket", "websockets"])
async def test_tls(name: str, role: Role, tls: TLS) -> None:
    message = bytes(range(256)) * (MIB // 256)
    async with pair(load(name), role, tls=tls) as (ours, theirs, _):
        await ours.send("Grüße")
        assert await theirs.recv() == "Grüße"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send, message)
            nursery.start_soon(theirs.send, message)
            assert await ours.recv() == message
            assert await theirs.recv() == message
        await theirs.ping()
        await ours.ping()
        await ours.aclose(4000, "done")
        assert await theirs.closed() == (4000, "done")


@pytest.mark.parametrize("name", ["aiohttp", "trio_websocket", "websockets"])
async def test_tls_theirs_closes(name: str, role: Role, tls: TLS) -> None:
    async with pair(load(name), role, tls=tls) as (ours, theirs, _):
        await theirs.close(1001, "done")
        with pytest.raises(trio_ws.ConnectionClosedOK):
            await ours.recv()
        assert (ours.close_code, ours.close_reason) == (1001, "done")
        assert (await theirs.closed()).code == (
            1001 if theirs.sees_the_answer else 1000
        )
