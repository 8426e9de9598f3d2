"""What a connection has carried, and what waits in it."""

from __future__ import annotations

import dataclasses
from math import inf
from typing import TYPE_CHECKING

import trio

from .writer import BROKEN

if TYPE_CHECKING:
    from .endpoint import Endpoint


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """What a connection has carried since it opened, and what waits in it.

    Bytes are those of frames, compressed as they are, without TLS and without the
    opening handshake. Messages are counted once they are complete: those that came,
    taken or not, and those that were accepted to be sent.

    * ``messages_received``, ``messages_sent``, ``bytes_received``
    * ``bytes_sent``: that the socket took, or TLS, or your stream, on their way to it.
    * ``messages_waiting``: that nobody has received yet; ``bytes_waiting``: their size
      in memory (``max_queue`` and ``max_size`` bound these).
    * ``bytes_unsent``: that wait for the socket, also what TLS or your stream took and
      holds, as it holds it (``write_limit`` bounds these); none once the connection is
      broken or closed. ``tasks_waiting_send``: that wait for their turn or for room.
    * ``broadcasts_skipped``: of broadcast(), for want of room, or in the middle of a
      fragmented message.
    * ``latency``: of the last ping that was answered, in seconds; 0 before.
    * ``age``: seconds since it opened; once it is closed, how long it was open.
    """

    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int
    messages_waiting: int
    bytes_waiting: int
    bytes_unsent: int
    tasks_waiting_send: int
    broadcasts_skipped: int
    latency: float
    age: float


def statistics_of(endpoint: Endpoint) -> ConnectionStatistics:
    """Say how a connection is now, or was when it ended."""
    engine, outbox = endpoint.engine, endpoint.engine.outbox
    writer, sender = endpoint.writer, endpoint.sender
    unsent = 0 if writer.state is BROKEN else endpoint.transport.unsent
    # Once it is closed, it can be asked outside of trio, too.
    until = trio.current_time() if endpoint.closed_at == inf else endpoint.closed_at
    return ConnectionStatistics(
        messages_received=engine.messages_received,
        messages_sent=engine.messages_sent,
        bytes_received=endpoint.reader.bytes_received,
        bytes_sent=outbox.bytes_written,
        messages_waiting=len(engine.messages),
        bytes_waiting=engine.queued,
        bytes_unsent=outbox.size + unsent,
        tasks_waiting_send=sender.waiting + writer.sender_waits,
        broadcasts_skipped=writer.skipped,
        latency=endpoint.pings.latency,
        age=max(until - endpoint.opened_at, 0),
    )
