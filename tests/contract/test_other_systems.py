"""What other systems lack or do otherwise, taken away from this one.

macOS, the BSDs and Windows differ from Linux in what their sockets can do and in how
they tell of a peer that is gone. Whatever of that can be imitated is, one thing at a
time; a connection has to do the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.handlers import echo
from tests.peers.certificates import contexts
from tests.peers.sockets import answer_in_thread, reset, tcp_pair, trio_stream
from tests.peers.stream_peer import URI
from tests.peers.wire import BINARY, frame
from tests.platforms import needs_resets
from trio_ws import (
    ConnectionClosedError,
    connect,
    open_server,
    unix_connect,
    unix_serve,
)
from trio_ws._transports.sockets import SocketTransport


class WithoutSendmsg(socket.socket):
    """As on Windows."""

    __slots__ = ()
    sendmsg: Any = property()


class FewBuffers(socket.socket):
    """As many in one call as POSIX guarantees (_POSIX_IOV_MAX)."""

    __slots__ = ()

    def sendmsg(self, buffers: Iterable[Any], *args: Any) -> int:
        buffers = list(buffers)
        if len(buffers) > 16:
            raise OSError(errno.EMSGSIZE, "Message too long")
        return super().sendmsg(buffers, *args)


class WithoutOptions(socket.socket):
    """As macOS answers once the peer is gone."""

    __slots__ = ()

    def setsockopt(self, *args: Any) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")


class WithoutNames(socket.socket):
    """As macOS and the BSDs answer once the peer is gone."""

    __slots__ = ()

    def getsockname(self) -> Any:
        raise OSError(errno.EINVAL, "Invalid argument")

    def getpeername(self) -> Any:
        raise OSError(errno.ENOTCONN, "Socket is not connected")


class BrokenPipe(socket.socket):
    """As the BSDs tell of a reset: EPIPE to who writes, ECONNRESET to who reads."""

    __slots__ = ("_reset",)

    def _write(self, write: Any, data: Any) -> int:
        try:
            return int(write(data))
        except ConnectionResetError as exc:
            self._reset = exc.with_traceback(None)
            raise BrokenPipeError(errno.EPIPE, "Broken pipe") from None

    def send(self, data: Any, *args: Any) -> int:
        return self._write(super().send, data)

    def sendmsg(self, buffers: Any, *args: Any) -> int:
        return self._write(super().sendmsg, buffers)

    def recv(self, *args: Any) -> bytes:
        data = super().recv(*args)
        if not data and (exc := getattr(self, "_reset", None)):
            raise exc
        return data


class Aborted(socket.socket):
    """As Windows tells of what it calls a software caused abort."""

    __slots__ = ()

    def send(self, data: Any, *args: Any) -> int:
        return int(self._told(super().send, data))

    def sendmsg(self, buffers: Any, *args: Any) -> int:
        return int(self._told(super().sendmsg, buffers))

    def recv(self, *args: Any) -> bytes:
        return bytes(self._told(super().recv, *args))

    def _told(self, call: Any, *args: Any) -> Any:
        try:
            return call(*args)
        except ConnectionResetError:
            raise ConnectionAbortedError(errno.ECONNABORTED, "aborted") from None


KINDS: list[type[socket.socket]] = [
    WithoutSendmsg,
    FewBuffers,
    WithoutOptions,
    WithoutNames,
    BrokenPipe,
    Aborted,
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> type[socket.socket]:
    """Make all sockets of connections of that kind."""
    kind: type[socket.socket] = request.param
    original = SocketTransport.__init__

    def init(transport: SocketTransport, sock: socket.socket) -> None:
        original(transport, kind(fileno=sock.detach()))

    monkeypatch.setattr(SocketTransport, "__init__", init)
    monkeypatch.delattr(socket, "TCP_NOTSENT_LOWAT", raising=False)
    return kind


class Selecting:
    """trio's way to wait for sockets, by select(), which all systems have.

    What is registered isn't kept from one wait to the next, as it is by epoll.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting: set[tuple[int, bool]] = set()
        for name in ("wait_readable", "wait_writable", "notify_closing"):
            monkeypatch.setattr(trio.lowlevel, name, getattr(self, name))

    async def wait_readable(self, sock: socket.socket) -> None:
        await self._wait(sock.fileno(), False)

    async def wait_writable(self, sock: socket.socket) -> None:
        await self._wait(sock.fileno(), True)

    def notify_closing(self, sock: socket.socket) -> None:
        self.waiting -= {(sock.fileno(), False), (sock.fileno(), True)}

    async def _wait(self, number: int, to_write: bool) -> None:
        # One of each at a time is what kqueue and Windows allow, too.
        assert (number, to_write) not in self.waiting
        self.waiting.add((number, to_write))
        try:
            while True:
                await trio.lowlevel.checkpoint()
                if (number, to_write) not in self.waiting:
                    raise trio.ClosedResourceError
                sets = ([], [number]) if to_write else ([number], [])
                if any(select.select(*sets, [], 0)):
                    return
        finally:
            self.waiting.discard((number, to_write))


SIZES = [0, 1, 125, 126, 16_383, 16_384, 65_535, 65_536, 300_000, 5, 3_000_000, 7]


async def exchange(*, tls: bool) -> None:
    """Exchange messages of all sizes, both ways at once, and close in good order."""
    client, server = contexts()
    limits: Any = {"max_size": None, "max_queue": None, "compression": None}
    async with open_server(
        echo, 0, host="127.0.0.1", ssl=server if tls else None, **limits
    ) as serving:
        async with connect(
            f"{'wss' if tls else 'ws'}://localhost:{serving.port}/",
            host="127.0.0.1",
            ssl=client if tls else None,
            **limits,
        ) as ws:

            async def send() -> None:
                for i, size in enumerate(SIZES * 3):
                    await ws.send(bytes([i]) * size)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                for i, size in enumerate(SIZES * 3):
                    assert await ws.recv() == bytes([i]) * size
    assert ws.close_code == 1000


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_messages_of_all_sizes(tls: bool) -> None:
    await exchange(tls=tls)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_messages_of_all_sizes_without_epoll(
    tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    selecting = Selecting(monkeypatch)
    await exchange(tls=tls)
    assert not selecting.waiting


@needs_resets
@pytest.mark.parametrize("writes", [False, True], ids=["reads", "writes"])
async def test_a_reset_is_told_with_its_cause(
    kind: type[socket.socket], writes: bool
) -> None:
    ours, theirs = tcp_pair()
    answer_in_thread(theirs)
    cause = ConnectionAbortedError if kind is Aborted else ConnectionResetError
    messages = [bytes([i]) * 100 for i in range(10)]
    with pytest.raises(ConnectionClosedError) as caught:  # noqa: PT012 - of the block
        async with connect(URI, stream=trio_stream(ours)) as ws:
            theirs.sendall(b"".join(frame(BINARY, m) for m in messages))
            reset(theirs)
            if writes:
                for _ in range(2):
                    with contextlib.suppress(ConnectionClosedError):
                        ws.send_nowait("anybody there?")
            received = [await ws.recv() for _ in messages]
            await ws.recv()
    assert received == messages
    assert type(caught.value.__cause__) is cause


async def test_unix_sockets_that_are_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Before anything is opened: unix_connect() isn't even entered.
    with monkeypatch.context() as patched:
        patched.delattr(socket, "AF_UNIX", raising=False)
        with pytest.raises(RuntimeError, match="path: Python has no Unix sockets on"):
            unix_connect(tmp_path / "socket")
        with pytest.raises(RuntimeError, match="path: Python has no Unix sockets on"):
            await unix_serve(echo, tmp_path / "socket")
    assert os.listdir(tmp_path) == []
