"""trio_ws.extensions: all that an extension of a user's own needs is public."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from trio.testing import MockClock

from trio_ws import ProtocolError, broadcast, extensions
from trio_ws.extensions import (
    ClientExtensionFactory,
    Extension,
    ExtensionParameter,
    Frame,
    PerMessageDeflate,
    ServerExtensionFactory,
)
from trio_ws.testing import open_pair

NAME = "x-backwards"


class Backwards(Extension):
    """Sends binary messages backwards."""

    name = NAME

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if max_size is not None and len(frame.data) > max_size:
            raise ProtocolError(f"more than {max_size} bytes")
        if not frame.rsv2:
            return frame
        if frame.opcode != 2:
            raise ProtocolError("only binary messages go backwards")
        return Frame(frame.opcode, frame.data[::-1], frame.fin)

    def encode(self, frame: Frame) -> Frame:
        if frame.opcode != 2:
            return frame
        return Frame(frame.opcode, frame.data[::-1], frame.fin, rsv2=True)


class ClientFactory(ClientExtensionFactory):
    name = NAME

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        return [("quick", None)]

    def process_response_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> Extension:
        assert list(params) == [("quick", "7")]
        return Backwards()


class ServerFactory(ServerExtensionFactory):
    name = NAME

    def process_request_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> tuple[Sequence[ExtensionParameter], Extension]:
        assert list(params) == [("quick", None)]
        return [("quick", "7")], Backwards()


async def test_an_extension_made_of_public_names(autojump_clock: MockClock) -> None:
    async with open_pair(
        {"extensions": [ClientFactory()], "compression": None},
        {"extensions": [ServerFactory()]},
    ) as (client, server):
        assert client.response is not None
        agreed = client.response.headers["Sec-WebSocket-Extensions"]
        assert agreed == f"{NAME}; quick=7"
        for message in b"abc", "abc":
            await client.send(message)
            assert await server.recv() == message
            await server.send(message)
            assert await client.recv() == message


async def test_control_frames_are_no_part_of_a_message(
    autojump_clock: MockClock,
) -> None:
    async with open_pair(
        {"extensions": [ClientFactory()], "compression": None},
        {"extensions": [ServerFactory()], "max_size": 3},
    ) as (client, server):

        async def fragments() -> AsyncIterator[bytes]:
            yield b"ab"
            await client.ping(b"in between")
            yield b"c"

        await client.send(b"abc")
        await client.ping(b"behind it")
        await client.send(fragments())
        assert [await server.recv() for _ in "12"] == [b"abc"] * 2


@pytest.mark.parametrize("bits", [9, 12, 15])
def test_compression_by_itself(bits: int) -> None:
    client_factory = extensions.ClientPerMessageDeflateFactory(
        client_max_window_bits=bits
    )
    server_factory = extensions.ServerPerMessageDeflateFactory(
        server_max_window_bits=bits, client_max_window_bits=15
    )
    params, server = server_factory.process_request_params(
        client_factory.get_request_params(), []
    )
    client = client_factory.process_response_params(params, [])
    assert isinstance(client, PerMessageDeflate)
    assert isinstance(server, PerMessageDeflate)
    text = b"text " * 1000
    for sender, receiver in (client, server), (server, client):
        sent = sender.encode(Frame(1, text))
        assert sent.rsv1
        assert len(sent.data) < 200
        assert receiver.decode(sent) == Frame(1, text)


class Counting(PerMessageDeflate):
    """A subclass that does something of its own."""

    __slots__ = ("called",)

    def __init__(self) -> None:
        super().__init__(
            remote_no_context_takeover=False,
            local_no_context_takeover=False,
            remote_max_window_bits=15,
            local_max_window_bits=15,
        )
        self.called: list[str] = []

    def encode(self, frame: Frame) -> Frame:
        self.called.append("encode")
        return super().encode(frame)

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        self.called.append("decode")
        return super().decode(frame, max_size=max_size)


async def test_a_subclass_of_compression_is_asked(autojump_clock: MockClock) -> None:
    made: list[Counting] = []

    class Factory(extensions.ServerPerMessageDeflateFactory):
        def process_request_params(
            self,
            params: Sequence[ExtensionParameter],
            accepted_extensions: Sequence[Extension],
        ) -> tuple[Sequence[ExtensionParameter], Extension]:
            answer, _ = super().process_request_params(params, accepted_extensions)
            made.append(Counting())
            return answer, made[0]

    async with open_pair({}, {"extensions": [Factory(server_max_window_bits=15)]}) as (
        client,
        server,
    ):
        message = "compressed " * 100
        await client.send(message)
        assert await server.recv() == message
        await server.send(message)
        assert await client.recv() == message
        assert made[0].called == ["decode", "encode"]
        assert not broadcast([server], message)
        assert await client.recv() == message
        assert made[0].called == ["decode", "encode", "encode"]


def test_all_of_them_are_there() -> None:
    for name in extensions.__all__:
        assert hasattr(extensions, name)
