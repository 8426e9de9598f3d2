"""Links and sockets for the tests of this folder, and what they count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.endpoint.link import Link, MakeLink, MakeSockets, Sockets
from tests.platforms import require_prompt_sockets
from trio_ws._endpoint import writer as _writing
from trio_ws._transports.sockets import SocketTransport


@pytest.fixture(autouse=True)
def soon(receivers_read_soon: None) -> None:
    """Let receivers read early in all of these tests."""


@pytest.fixture
async def make_link(
    mock_clock: MockClock, nursery: trio.Nursery
) -> AsyncIterator[MakeLink]:
    require_prompt_sockets()
    with ExitStack() as stack:

        def make(*, tls: bool = False, tcp: bool = False) -> Link:
            link = Link(nursery, tls=tls, tcp=tcp)
            stack.callback(link.free)
            return link

        yield make


@pytest.fixture
def link(make_link: MakeLink) -> Link:
    return make_link()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def either_link(make_link: MakeLink, request: pytest.FixtureRequest) -> Link:
    return make_link(tls=request.param)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What receivers do until there is something to read: look again, or wait."""
    ways: list[str] = []
    wait_readable = SocketTransport.wait_readable

    async def looking() -> None:
        ways.append("look")
        await trio.lowlevel.checkpoint()

    async def waiting(transport: SocketTransport) -> None:
        ways.append("wait")
        await wait_readable(transport)

    monkeypatch.setattr("trio_ws._endpoint.receiver.checkpoint", looking)
    monkeypatch.setattr(SocketTransport, "wait_readable", waiting)
    return ways


@pytest.fixture(params=["keeper", "standby", "caller", "last_caller"])
def state(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def sockets() -> AsyncIterator[MakeSockets]:
    with ExitStack() as stack:

        def make(**keywords: bool) -> Sockets:
            if keywords.get("unix"):
                require_prompt_sockets()
            both = Sockets(**keywords)
            for stream in (both.peer.theirs, both.peer.stream):
                assert isinstance(stream, trio.SocketStream)
                stack.callback(stream.socket.close)
            return both

        yield make


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(_writing, "perf_counter", lambda: now[0])
    return now
