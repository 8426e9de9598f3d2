"""What the tests of clients share."""

from __future__ import annotations

import pytest
import trio

from tests.client.network import Network


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network()

    async def open_stream(*_: object) -> trio.abc.Stream:
        return await network.open()

    monkeypatch.setattr("trio_ws._client.dialer.open_tcp", open_stream)
    return network
