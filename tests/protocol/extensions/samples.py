"""Two extensions as users may write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from trio_ws._protocol.errors import NegotiationError, ProtocolError
from trio_ws._protocol.extensions.base import (
    ClientExtensionFactory,
    Extension,
    Frame,
    ServerExtensionFactory,
)
from trio_ws._protocol.extensions.deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from trio_ws._protocol.handshake.client import ClientHandshake
from trio_ws._protocol.handshake.server import ServerHandshake
from trio_ws._protocol.uri import parse_uri

Params = Sequence[tuple[str, str | None]]
Factories = list[Any]

URI = parse_uri("ws://example.com/chat")


class Xor(Extension):
    """XORs the payload of each data frame with a byte, and says so by RSV2."""

    name = "x-xor"

    def __init__(self, key: int) -> None:
        self.key = key

    def _applied(self, frame: Frame, rsv2: bool) -> Frame:
        data = bytes(byte ^ self.key for byte in frame.data)
        return Frame(
            frame.opcode, data, frame.fin, rsv1=frame.rsv1, rsv2=rsv2, rsv3=frame.rsv3
        )

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if frame.opcode & 0x08:
            return frame
        if not frame.rsv2:
            raise ProtocolError("reserved bit 2 is not set")
        return self._applied(frame, False)

    def encode(self, frame: Frame) -> Frame:
        return frame if frame.opcode & 0x08 else self._applied(frame, True)


class ClientXor(ClientExtensionFactory):
    name = "x-xor"

    def __init__(self, key: int = 0x55) -> None:
        self.key = key

    def get_request_params(self) -> Params:
        return [("key", str(self.key))]

    def process_response_params(
        self, params: Params, accepted_extensions: Sequence[Extension]
    ) -> Extension:
        if list(params) != [("key", str(self.key))]:
            raise NegotiationError("expected the key that was offered")
        return Xor(self.key)


class ServerXor(ServerExtensionFactory):
    name = "x-xor"

    def process_request_params(
        self, params: Params, accepted_extensions: Sequence[Extension]
    ) -> tuple[Params, Extension]:
        match list(params):
            case [("key", str(key))] if key.isdecimal() and int(key) < 256:
                return params, Xor(int(key))
        raise NegotiationError("expected a key")


class Count(Extension):
    """Counts the frames, and leaves them as they are."""

    name = "x-count"

    def __init__(self) -> None:
        self.received: list[int] = []  # opcodes
        self.sent: list[int] = []

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        self.received.append(frame.opcode)
        return frame

    def encode(self, frame: Frame) -> Frame:
        self.sent.append(frame.opcode)
        return frame


class ClientCount(ClientExtensionFactory):
    name = "x-count"

    def get_request_params(self) -> Params:
        return []

    def process_response_params(
        self, params: Params, accepted_extensions: Sequence[Extension]
    ) -> Extension:
        return Count()


class ServerCount(ServerExtensionFactory):
    name = "x-count"

    def process_request_params(
        self, params: Params, accepted_extensions: Sequence[Extension]
    ) -> tuple[Params, Extension]:
        return [], Count()


FACTORIES: dict[str, Callable[[], tuple[Factories, Factories]]] = {
    "xor": lambda: ([ClientXor()], [ServerXor()]),
    "count": lambda: ([ClientCount()], [ServerCount()]),
    "xor, deflate": lambda: (
        [ClientXor(), ClientPerMessageDeflateFactory()],
        [ServerPerMessageDeflateFactory(), ServerXor()],
    ),
    "deflate, xor": lambda: (
        [ClientPerMessageDeflateFactory(), ClientXor()],
        [ServerXor(), ServerPerMessageDeflateFactory()],
    ),
    "count, deflate, xor": lambda: (
        [ClientCount(), ClientPerMessageDeflateFactory(), ClientXor()],
        [ServerXor(), ServerPerMessageDeflateFactory(), ServerCount()],
    ),
}

TOGETHER = pytest.mark.parametrize("names", FACTORIES)


def negotiated(
    client: Factories, server: Factories
) -> tuple[ClientHandshake, ServerHandshake, str | None]:
    """Do the opening handshake; return both sides and the answer's header."""
    ours = ClientHandshake(URI, extensions=client)
    theirs = ServerHandshake(extensions=server)
    request = theirs.receive(ours.request_bytes)
    assert request is not None
    response = theirs.accept(request)
    assert ours.receive(response.serialize()) is not None
    return ours, theirs, response.headers.get("Sec-WebSocket-Extensions")
