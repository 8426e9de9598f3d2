"""Compression and other extensions on connections: the keywords, send(), recv()."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.peers import wire
from tests.peers.in_memory import REQUEST, RawPeer
from tests.peers.wire import BINARY, TEXT
from tests.protocol.extensions.compressed import bomb, noise
from tests.protocol.extensions.samples import (
    ClientCount,
    ClientXor,
    Count,
    ServerCount,
    ServerXor,
)
from trio_ws import (
    ClientOptions,
    ConnectionClosedError,
    NegotiationError,
    Options,
    PayloadTooBig,
    ServerConnection,
    ServerOptions,
    accept,
    connect,
    open_server,
)
from trio_ws._protocol.extensions.deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from trio_ws._protocol.handshake.common import accept_key
from trio_ws.testing import open_pair

HEADER = "Sec-WebSocket-Extensions"
AGREED = "permessage-deflate; client_max_window_bits=12"


# -- Keywords ------------------------------------------------------------------


async def test_compression_is_on_by_default() -> None:
    assert Options().compression == "deflate"
    async with open_pair() as (client, server):
        assert client.request.headers[HEADER] == (
            "permessage-deflate; client_max_window_bits"
        )
        assert client.response is not None
        assert client.response.headers[HEADER] == AGREED
        await client.send("a" * 1000)
        await server.send(await server.recv())
        assert await client.recv() == "a" * 1000


@pytest.mark.parametrize("side", ["client", "server"])
async def test_either_side_turns_it_off(side: str) -> None:
    off: Any = {"compression": None}
    async with open_pair(
        off if side == "client" else None, off if side == "server" else None
    ) as (client, server):
        assert (HEADER in client.request.headers) == (side == "server")
        assert client.response is not None
        assert HEADER not in client.response.headers
        await client.send("a" * 1000)
        assert await server.recv() == "a" * 1000


def test_the_value_is_checked() -> None:
    for options in (ClientOptions, ServerOptions):
        for value in ("gzip", "", True):
            with pytest.raises(ValueError, match="compression: expected"):
                options(compression=value)  # type: ignore[arg-type]


async def test_a_factory_of_the_users_replaces_the_default() -> None:
    async with open_pair(
        {"extensions": [ClientPerMessageDeflateFactory(server_max_window_bits=9)]},
        {"extensions": [ServerPerMessageDeflateFactory(client_max_window_bits=10)]},
    ) as (client, server):
        assert client.response is not None
        assert client.response.headers[HEADER] == (
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10"
        )
        for message in (noise(700), noise(700)):
            await server.send(message)
            assert await client.recv() == message
            await client.send(message)
            assert await server.recv() == message


async def test_a_wrong_answer_is_raised_by_connect() -> None:
    peer = RawPeer(client=False)

    async def answer() -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await peer.stream.receive_some()
        key = data.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0].decode()
        await peer.stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
            + accept_key(key).encode()
            + b"\r\nSec-WebSocket-Extensions: permessage-deflate; mux\r\n\r\n"
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        with pytest.raises(NegotiationError, match="unknown parameter: 'mux'"):
            async with connect("ws://localhost/", stream=peer.theirs):
                raise AssertionError("entered")


# -- On the wire ---------------------------------------------------------------

OFFER = REQUEST.replace(
    b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


async def frames_of(peer: RawPeer, count: int) -> list[tuple[int, int]]:
    """Read frames; return their first bytes and sizes."""
    found = []
    for _ in range(count):
        frame = await peer.read()
        assert frame is not None
        found.append((frame[0], len(frame[1])))
    return found


async def test_what_send_makes_of_messages() -> None:
    peer = RawPeer(client=True)
    async with trio.open_nursery() as nursery:

        async def talk() -> None:
            async with accept(peer.theirs) as ws:
                await ws.send("a" * 127)
                await ws.send("a" * 1000)
                await ws.send(b"a" * 1000, compress=False)
                ws.send_nowait(b"a" * 1000, compress=False)
                ws.send_nowait(b"a" * 1000)
                await ws.send(["a" * 1000, "b" * 1000])
                await ws.send(["a" * 1000, "b" * 1000], compress=False)

        nursery.start_soon(talk)
        await peer.stream.send_all(OFFER)
        await peer.skip_response()
        frames = await frames_of(peer, 11)
        await peer.close()
    sizes = [size for _, size in frames]
    assert [first for first, _ in frames] == [
        0x81,
        0xC1,
        0x82,
        0x82,
        0xC2,
        *(0x41, 0x00, 0x80),
        *(0x01, 0x00, 0x80),
    ]
    assert sizes[0] == 127
    assert sizes[1] < 30
    assert sizes[2:4] == [1000, 1000]
    assert sizes[4] < 30
    assert max(sizes[5:8]) < 30
    assert sizes[8:] == [1000, 1000, 0]


async def test_streaming_of_a_compressed_message() -> None:
    async with open_pair() as (client, server):
        seen = []
        async with trio.open_nursery() as nursery:
            gate = trio.Event()

            async def fragments() -> AsyncIterator[str]:
                yield "\u20ac" * 200
                await gate.wait()
                yield "b" * 200

            nursery.start_soon(client.send, fragments())
            async for piece in server.recv_streaming():
                seen.append(piece)
                gate.set()
        assert seen[0] == "\u20ac" * 200
        assert "".join(map(str, seen)) == "\u20ac" * 200 + "b" * 200
        # Left early, the rest is discarded, and is still part of the context.
        for message in (noise(5000), noise(5000)):
            await client.send([message[:2000], message[2000:]])
            async for _ in server.recv_streaming():
                break
        await client.send(noise(5000))
        assert await server.recv() == noise(5000)


async def test_a_bomb_is_refused() -> None:
    peer = RawPeer(client=True)
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            async with accept(peer.theirs) as ws:
                assert await ws.recv() == "first"
                with pytest.raises(ConnectionClosedError) as caught:
                    await ws.recv()
            assert "sent 1009 (message too big)" in str(caught.value)
            assert isinstance(caught.value.__cause__, PayloadTooBig)

        nursery.start_soon(receive)
        await peer.stream.send_all(OFFER)
        await peer.skip_response()
        await peer.send(TEXT, b"first")
        await peer.stream.send_all(wire.frame(BINARY, bomb(256), rsv=4, key=bytes(4)))
        frame = await peer.read()
        assert frame is not None
        assert frame[0] == 0x88
        assert frame[1][:2] == (1009).to_bytes(2, "big")
        await peer.stream.aclose()


# -- Extensions of users -------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_extensions_of_a_users_own(compression: str | None) -> None:
    """Both sides, through connect() and open_server(), over TCP."""
    offer = "x-xor; key=85, x-count"
    seen: list[Any] = []

    async def echo(ws: ServerConnection) -> None:
        seen.append(ws)
        async for message in ws:
            await ws.send(message)

    server_options: Any = {"extensions": [ServerCount(), ServerXor()]}
    async with open_server(
        echo, 0, host="127.0.0.1", compression=compression, **server_options
    ) as server:
        async with connect(
            f"ws://127.0.0.1:{server.port}/",
            extensions=[ClientXor(), ClientCount()],
            compression=compression,
        ) as ws:
            assert ws.response is not None
            answer = offer if compression is None else f"{offer}, {AGREED}"
            assert ws.response.headers[HEADER] == answer
            for message in ("h\u20ac", "a" * 1000, b"b" * 1000, b"", noise(70_000)):
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send(["c" * 200, "d" * 200])
            assert await ws.recv() == "c" * 200 + "d" * 200
            assert await ws.ping("e") > 0
    assert (ws.close_code, seen[0].close_code) == (1000, 1000)
    for connection, received, sent in ((ws, 8, 10), (seen[0], 10, 8)):
        count = connection._engine.extensions[1]
        assert isinstance(count, Count)
        assert (len(count.received), len(count.sent)) == (received, sent)


async def test_one_side_alone_has_the_extension() -> None:
    async with open_pair({"extensions": [ClientXor()]}) as (client, server):
        await client.send("a" * 1000)
        assert await server.recv() == "a" * 1000
        assert client.response is not None
        assert client.response.headers[HEADER] == AGREED


def test_extensions_that_cannot_be_offered() -> None:
    class Wrong(ClientXor):
        name = "x xor"

    with pytest.raises(ValueError, match="expected a token"):
        connect("ws://localhost/", extensions=[Wrong()])


# -- What other stacks send and expect -------------------------------------------


async def test_a_client_that_names_no_window_is_named_none() -> None:
    peer = RawPeer(client=True)
    async with trio.open_nursery() as nursery:

        async def talk() -> None:
            async with accept(peer.theirs) as ws:
                await ws.send(noise(700))
                await ws.send(noise(700))
                # An empty message in a frame without a byte is one.
                assert [await ws.recv() for _ in "123"] == ["", "Hello", b""]
                assert await ws.recv() == "Hello"

        nursery.start_soon(talk)
        await peer.stream.send_all(OFFER)
        head = await peer.skip_response()
        assert b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n" in head + b"\r\n"
        context = zlib.decompressobj(wbits=-12)
        for _ in range(2):
            frame = await peer.read()
            assert frame is not None
            assert frame[0] == 0xC2
            assert context.decompress(frame[1] + b"\x00\x00\xff\xff") == noise(700)
        hello = bytes.fromhex("f2 48 cd c9 c9 07 00")
        again = bytes.fromhex("f2 00 11 00 00")  # refers to it
        for opcode, payload in (
            (TEXT, b""),
            (TEXT, hello),
            (BINARY, b""),
            (TEXT, again),
        ):
            data = wire.frame(opcode, payload, rsv=4, key=bytes(4))
            await peer.stream.send_all(data)
        await peer.close()


async def test_a_server_that_leaves_out_the_window_it_was_asked_for() -> None:
    peer = RawPeer(client=False)

    async def answer() -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await peer.stream.receive_some()
        assert b"server_max_window_bits=10" in data
        key = data.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0].decode()
        context = zlib.compressobj(wbits=-15)
        await peer.stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
            + accept_key(key).encode()
            + b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        )
        for _ in range(2):
            payload = context.compress(noise(20_000))
            payload += context.flush(zlib.Z_SYNC_FLUSH)
            await peer.stream.send_all(wire.frame(BINARY, payload[:-4], rsv=4))
        await peer.close()

    factory = ClientPerMessageDeflateFactory(server_max_window_bits=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        uri = "ws://localhost/"
        async with connect(uri, stream=peer.theirs, extensions=[factory]) as ws:
            assert [await ws.recv() for _ in "12"] == [noise(20_000)] * 2
