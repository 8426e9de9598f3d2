"""Pings: those that wait for their pong, and the keepalive that sends them (R9)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import enable_ki_protection

from ._protocol._state import OPEN
from .exceptions import ConcurrencyError

if TYPE_CHECKING:
    from ._options import Options
    from ._protocol._engine import Engine
    from ._reading import Reader
    from ._writing import Writer

# Pings of the keepalive whose pong, however late, is still measured.
_REMEMBERED = 16


class PingWaiter:
    """A ping under way, and what its sender waits for."""

    __slots__ = ("done", "latency", "sent_at")

    def __init__(self) -> None:
        self.sent_at = trio.current_time()
        self.done = trio.Event()
        self.latency: float | None = None  # seconds, once the pong has come


class Pings:
    """The pings of a connection that have no pong yet, oldest first."""

    __slots__ = ("_pending", "latency", "on_latency")

    def __init__(self, on_latency: Callable[[float], None] | None) -> None:
        self._pending: dict[bytes, PingWaiter] = {}
        self.latency = 0.0
        self.on_latency = on_latency

    def add(self, payload: bytes | None) -> tuple[bytes, PingWaiter]:
        """Register a ping; make up a payload where there is none."""
        if payload is None:
            payload = random.randbytes(4)
            while payload in self._pending:
                payload = random.randbytes(4)
        elif payload in self._pending:
            raise ConcurrencyError(
                f"already waiting for a pong with the same data, {payload!r}"
            )
        waiter = self._pending[payload] = PingWaiter()
        return payload, waiter

    @property
    def waiting(self) -> bool:
        """Whether a pong is expected."""
        return bool(self._pending)

    def forget(self, payload: bytes, waiter: PingWaiter) -> None:
        """Wait for this pong no longer."""
        # Once it was answered, another may wait under the same payload.
        if self._pending.get(payload) is waiter:
            del self._pending[payload]

    @enable_ki_protection
    def acknowledge(self, payload: bytes) -> None:
        """Take note of a pong: it answers its ping and all before it.

        RFC 6455, section 5.5.3: a peer may answer only the most recent ping.
        A pong that answers none, also allowed, is ignored.
        """
        if payload not in self._pending:
            return
        now = trio.current_time()
        # Not a copy of all that wait: where many do, most often the first is meant.
        answered = []
        for known in self._pending:  # pragma: no branch - payload is in it
            answered.append(known)
            if known == payload:
                break
        for known in answered:
            waiter = self._pending.pop(known)
            waiter.latency = self.latency = now - waiter.sent_at
            waiter.done.set()
        if self.on_latency is not None:
            self.on_latency(self.latency)

    @enable_ki_protection
    def end(self) -> None:
        """Wake those who wait: no pong will come."""
        for waiter in self._pending.values():
            waiter.done.set()
        self._pending.clear()


class Keepalive:
    """Sends a ping every ping_interval; fails a connection without life.

    Whoever runs it calls ``step()`` when it is ``due``, by trio's clock.

    Life is any byte received since the ping, or, while the ping still waits in
    our own buffer, any byte the socket takes. While the application has paused
    reading nothing can be said, so nothing is.
    """

    __slots__ = (
        "_engine",
        "_fail",
        "_held",
        "_next_ping",
        "_options",
        "_pings",
        "_reader",
        "_reads",
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
        fail: Callable[[int, str, BaseException | None], None],
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._writer = writer
        self._fail = fail
        self._pings = pings
        self._options = options
        assert options.ping_interval is not None
        self._next_ping = trio.current_time() + options.ping_interval
        self._silent_since = inf  # when the oldest ping without life since was sent
        self._reads = self._taken = 0  # at that time
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
    def step(self) -> None:
        """Look for life; ping, or fail the connection, if it is time to."""
        engine, reader, writer = self._engine, self._reader, self._writer
        options = self._options
        now = trio.current_time()
        if reader.reads != self._reads or reader.paused:
            self._silent_since = inf
        elif self._held and writer.progress != self._taken:
            # Life all the same, of a peer that reads but slowly.
            self._silent_since = max(self._silent_since, writer.last_progress)
            self._taken = writer.progress
            self._held = writer.watched is not None
        if now >= self._given_up:
            # The answer may be here, and the clock only have been first.
            reader.read_now()
            if reader.reads == self._reads and engine.phase is OPEN:
                self._fail(1011, "keepalive ping timeout", _timeout(options))
                return
            self._silent_since = inf
        if now >= self._next_ping and engine.phase is OPEN:
            assert options.ping_interval is not None
            self._next_ping = now + options.ping_interval
            payload, waiter = self._pings.add(None)
            if len(self._recent) == _REMEMBERED:
                self._pings.forget(*self._recent[0])
            self._recent = (*self._recent, (payload, waiter))[-_REMEMBERED:]
            ping = engine.send_ping(payload)
            writer.flush()
            reader.keep_reading()
            if self._silent_since == inf:
                self._silent_since, self._reads = now, reader.reads
                self._taken = writer.progress
                self._held = writer.watch(ping)


def _timeout(options: Options) -> TimeoutError:
    return TimeoutError(
        f"nothing came within {options.ping_timeout} s of a ping (ping_timeout)"
    )
