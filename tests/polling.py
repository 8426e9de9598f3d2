"""A poller for every connection over a socket, clients included.

A server's connections have one in common. Here each other one has its own, whose task
runs beside its reader's, so that nothing of it is left when the connection is closed.
"""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.lowlevel import enable_ki_protection

from trio_ws._connection.groups import run_in_nursery
from trio_ws._endpoint.endpoint import Endpoint
from trio_ws._endpoint.keepalive import Keepalive
from trio_ws._endpoint.poller import Poller

_run_reader = Endpoint._run_reader


def poll_everything(patch: pytest.MonkeyPatch) -> None:
    """Let a poller read for all connections that are made from now on."""
    patch.setattr(Endpoint, "_run_reader", _run_polled_reader)


@enable_ki_protection
async def _run_polled_reader(endpoint: Endpoint, keepalive: Keepalive | None) -> None:
    if endpoint.reader.poller is None and endpoint.transport.fileno() >= 0:
        await run_in_nursery(partial(_run_both, endpoint, keepalive))
    else:
        await _run_reader(endpoint, keepalive)


@enable_ki_protection
async def _run_both(
    endpoint: Endpoint, keepalive: Keepalive | None, nursery: trio.Nursery
) -> None:
    poller = Poller()
    with trio.CancelScope(shield=True):
        await nursery.start(poller.run)
    endpoint.reader.poller = poller
    try:
        await _run_reader(endpoint, keepalive)
    finally:
        poller.stop()
