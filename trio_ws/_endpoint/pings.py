"""Pings that wait for their pong."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

import trio
from trio.lowlevel import enable_ki_protection

from .errors import ConcurrencyError

# Of these, since there are peers that take the payload for text.
_LETTERS = string.ascii_letters + string.digits


def _make_payload() -> bytes:
    return "".join(random.choices(_LETTERS, k=4)).encode()


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
            payload = _make_payload()
            while payload in self._pending:
                payload = _make_payload()
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
        """Match a pong: it answers its ping and all before it.

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
