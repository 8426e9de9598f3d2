"""The keepalive: pings, and what becomes of a connection without life (R9)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import trio
from trio.lowlevel import enable_ki_protection

from .._protocol.closing import OPEN
from .._protocol.engine import Engine
from .host import Host
from .options import Options
from .pings import Pings, PingWaiter
from .reader import PAUSED, Reader
from .writer import Writer

# Pings of the keepalive whose pong, however late, is still measured.
_REMEMBERED = 16


class Keepalive:
    """Sends a ping every ping_interval; fails a connection without life.

    Whoever runs it calls ``step()`` when it is ``due``, by trio's clock.

    Life is any byte received since the ping, or, while the ping still waits in
    our own buffer, any byte the socket takes. While the application has paused
    reading nothing can be said, so nothing is.
    """

    __slots__ = (
        "_engine",
        "_held",
        "_host",
        "_next_ping",
        "_options",
        "_pings",
        "_reader",
        "_received",
        "_recent",
        "_silent_since",
        "_taken",
        "_writer",
    )

    def __init__(
        self,
        engine: Engine,
        reader: Reader,
        writer: Writer,
        pings: Pings,
        options: Options,
        host: Host,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._writer = writer
        self._host = host
        self._pings = pings
        self._options = options
        assert options.ping_interval is not None
        self._next_ping = trio.current_time() + options.ping_interval
        self._silent_since = inf  # when the oldest ping without life since was sent
        self._received = self._taken = 0  # at that time
        self._held = False  # whether that ping waits in our own buffer
        self._recent: Sequence[tuple[bytes, PingWaiter]] = ()

    @property
    def due(self) -> float:
        """When the next step is."""
        return min(self._next_ping, self._given_up)

    @property
    def _given_up(self) -> float:
        timeout = self._options.ping_timeout
        return inf if timeout is None else self._silent_since + timeout

    @enable_ki_protection
    async def run(self, scope: trio.CancelScope) -> None:
        """Take the steps in a task of its own, beside a stream of the user's.

        Nobody knows whether its receive_some() can be interrupted without loss.
        """
        with scope:
            while self._engine.phase is OPEN:
                await trio.sleep_until(self.due)
                if self._engine.phase is OPEN:
                    try:
                        self.step()
                    except Exception as exc:  # noqa: BLE001 - raised by the reader
                        self._host.died(exc)

    @enable_ki_protection
    def step(self) -> None:
        """Look for life; ping, or fail the connection, if it is time to."""
        engine, reader, writer = self._engine, self._reader, self._writer
        options = self._options
        now = trio.current_time()
        if (
            reader.bytes_received != self._received
            or reader.by is PAUSED
            or engine.backlog
        ):
            self._silent_since = inf
        elif self._held and writer.progress != self._taken:
            # Life all the same, of a peer that reads but slowly.
            self._silent_since = max(self._silent_since, writer.last_progress)
            self._taken = writer.progress
            self._held = writer.watched is not None
        if now >= self._given_up:
            # The answer may be here, and the clock only have been first.
            reader.read_now()
            if reader.bytes_received == self._received and engine.phase is OPEN:
                self._host.fail(1011, "keepalive ping timeout", _timeout(options))
                return
            self._silent_since = inf
        if now >= self._next_ping and engine.phase is OPEN:
            assert options.ping_interval is not None
            self._next_ping = now + options.ping_interval
            payload, waiter = self._pings.add(None)
            late = tuple(ping for ping in self._recent if not ping[1].done.is_set())
            if len(late) == _REMEMBERED:
                self._pings.forget(*late[0])
            self._recent = (*late, (payload, waiter))[-_REMEMBERED:]
            ping = engine.send_ping(payload)
            writer.flush()
            reader.keep_reading()
            if self._silent_since == inf:
                self._silent_since, self._received = now, reader.bytes_received
                self._taken = writer.progress
                self._held = writer.watch(ping)


def _timeout(options: Options) -> TimeoutError:
    return TimeoutError(
        f"nothing came within {options.ping_timeout} s of a ping (ping_timeout)"
    )
