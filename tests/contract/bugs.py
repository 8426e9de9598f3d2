"""Both ends of a connection, of which one has user code that raises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
import trio
import trio.testing

from trio_ws import Connection, accept, connect
from trio_ws.exceptions import ConnectionClosed
from trio_ws.extensions import (
    ClientExtensionFactory,
    Extension,
    ExtensionParameter,
    Frame,
    ServerExtensionFactory,
)

Role = Literal["client", "server"]
by_role = pytest.mark.parametrize("role", ["client", "server"])

CLOSE = 8
PING = 9


class Bug(Exception):
    """What user code raises that is wrong."""


class Buggy(Extension):
    """Raises for some frames, once it is told to."""

    name = "x-buggy"

    def __init__(
        self,
        *,
        encode: Callable[[Frame], bool] = lambda frame: False,
        decode: Callable[[Frame], bool] = lambda frame: False,
        error: Exception | None = None,
    ) -> None:
        self._encode = encode
        self._decode = decode
        self.error = error or Bug()
        self.raised = 0

    def _raise_if(self, wrong: bool) -> None:
        if wrong:
            self.raised += 1
            raise self.error

    def encode(self, frame: Frame) -> Frame:
        self._raise_if(self._encode(frame))
        return frame

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        self._raise_if(self._decode(frame))
        return frame


class ClientFactory(ClientExtensionFactory):
    name = "x-buggy"

    def __init__(self, extension: Buggy) -> None:
        self._extension = extension

    def get_request_params(self) -> list[ExtensionParameter]:
        return []

    def process_response_params(self, params: object, accepted: object) -> Buggy:
        return self._extension


class ServerFactory(ServerExtensionFactory):
    name = "x-buggy"

    def __init__(self, extension: Buggy) -> None:
        self._extension = extension

    def process_request_params(
        self, params: object, accepted: object
    ) -> tuple[list[ExtensionParameter], Extension]:
        return [], self._extension


def side(
    role: Role, stream: trio.abc.Stream, extension: Buggy | None = None, **options: Any
) -> connect | accept:
    options.setdefault("compression", None)
    extension = extension or Buggy()
    if role == "client":
        return connect(
            "ws://testing/",
            stream=stream,
            extensions=[ClientFactory(extension)],
            **options,
        )
    return accept(stream, extensions=[ServerFactory(extension)], **options)


class Other:
    """The end without a bug, which echoes."""

    def __init__(self, role: Role, stream: trio.abc.Stream) -> None:
        self._role: Role = role
        self._stream = stream
        self.error: ConnectionClosed | None = None
        self.close_code: int | None = None
        self.done = trio.Event()

    async def run(self) -> None:
        try:
            async with side(self._role, self._stream) as ws:
                try:
                    while True:
                        await ws.send(await ws.recv())
                except ConnectionClosed as exc:
                    self.error = exc
                await ws.wait_closed()
                self.close_code = ws.close_code
        finally:
            self.done.set()


Body = Callable[[Connection], Awaitable[object]]


async def outcome(
    role: Role,
    body: Body,
    extension: Buggy | None = None,
    streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    **options: Any,
) -> tuple[BaseException | None, Other]:
    """Run a body; return what leaves its block, and the other end."""
    ours, theirs = streams or trio.testing.memory_stream_pair()
    other = Other("server" if role == "client" else "client", theirs)
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.run)
        try:
            async with side(role, ours, extension, **options) as ws:
                await body(ws)
        except Exception as exc:  # noqa: BLE001 - it is looked at by the test
            error = exc
        with trio.fail_after(1000):
            await other.done.wait()
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")
    return error, other
