"""Moves bytes between an engine and a transport.

Theory of operation. Two tasks of ours, at most, touch the transport of a connection:

* the *reader* lives as long as the transport. It parses all that it reads,
  wakes whoever waits for it, and never waits for writing. Receivers that come
  quickly read in its place; see ``_reading``. When its loop ends, for whatever
  reason, it closes the transport. It reads on after the closing
  handshake, discarding, until the peer ends its stream or the deadline is over,
  so that no reset destroys a close frame under way. The keepalive takes its steps
  in this task, too: they interrupt its waiting for a socket, which loses nothing.
* the *flusher* lives only while something waits to be written; see ``_writing``.

Everything else is synchronous and can be called from any task: write, flush,
close, fail. Both tasks run shielded: that the user's side is cancelled doesn't
cut the connection, the scope decides what is said to the peer. And both are
protected from KeyboardInterrupt, which is for the main task: in the middle of
the reader's end it would leave the transport open and whoever waits for that.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import trio
from trio.lowlevel import enable_ki_protection

from ._keepalive import Keepalive, Pings
from ._options import Options
from ._protocol._engine import Engine
from ._protocol._state import CLOSE_DONE, FAILED, FINAL, OPEN
from ._reading import CALLER, LAST_CALLER, Reader
from ._transports import Transport

# How long a connection that failed goes on discarding what the peer sends, so
# that its close frame arrives.
_LINGER = 1.0

# A stream of the user's may need turns of the loop, though no time, to write.
_GOODBYE_TURNS = 16

# What is read of a peer to which nothing can be written any more: more than any
# receive buffer holds by default, yet not without end, since the peer of a Unix
# socket that has shut down its reading side can go on sending.
_LAST_READS = 256

# What is discarded, without waiting, before a socket is closed in a hurry.
_GOODBYE_DRAIN = 64  # reads


class Pump(Reader):
    """The tasks of a connection, and what they and its callers wait for."""

    __slots__ = (
        "_client",
        "_closed_event",
        "_deadline",
        "_on_end",
        "_pinger_scope",
        "_reader_scope",
        "_shut",
        "closed",
    )

    def __init__(
        self,
        engine: Engine,
        transport: Transport,
        options: Options,
        *,
        client: bool,
        pings: Pings,
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(engine, transport, options, pings)
        self._client = client
        self._on_end = on_end
        self._reader_scope: trio.CancelScope | None = None
        self._deadline = inf  # of closing: then the reader ends
        self._pinger_scope: trio.CancelScope | None = None
        self._shut = False  # our stream has been ended
        self.closed = False  # the transport is
        self._closed_event: trio.Event | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """Start the reader in the service nursery of the connection's scope."""
        self._nursery = nursery
        keepalive = None
        if self._options.ping_interval is not None:
            keepalive = Keepalive(self._engine, self, self._pings, self._options)
        if keepalive is not None and not self._transport.callers_read:
            nursery.start_soon(self._run_keepalive, keepalive)
            keepalive = None
        # With a name that is there: trio would make one for each task.
        nursery.start_soon(self._run_reader, keepalive, name="trio_ws reader")

    @enable_ki_protection
    async def _run_keepalive(self, keepalive: Keepalive) -> None:
        """Run the keepalive in a task of its own, beside a stream of the user's.

        Nobody knows whether its receive_some() can be interrupted without loss.
        """
        with trio.CancelScope(shield=True) as self._pinger_scope:
            while self._engine.phase is OPEN:
                await trio.sleep_until(keepalive.due)
                if self._engine.phase is OPEN:
                    keepalive.step()

    @enable_ki_protection
    async def _run_reader(self, keepalive: Keepalive | None) -> None:
        try:
            # A second task for the keepalive would be a fifth of the memory of an
            # idle connection. While closing, the deadline is that of closing.
            while not self._cut and trio.current_time() < self._deadline:
                due = inf if keepalive is None else keepalive.due
                with trio.CancelScope(shield=True) as self._reader_scope:
                    self._reader_scope.deadline = self._deadline if self._ended else due
                    await self._read()
                    if self._flushing and not self._broken and not self._cut:
                        # A peer that has ended its stream may still read.
                        self._flusher_done = trio.Event()
                        await self._flusher_done.wait()
                    break
                if keepalive is not None and self._engine.phase is OPEN:
                    keepalive.step()
        finally:
            self._settle()
            if self._pinger_scope is not None:
                self._pinger_scope.cancel()
            if self._flusher_scope is not None:
                self._flusher_scope.cancel()
            try:
                await self._transport.aclose()
            finally:  # whatever a stream of the user's raises
                self.closed = True
                if self._closed_event is not None:
                    self._closed_event.set()

    async def wait_closed(self) -> None:
        """Wait until the transport is closed.

        **Cancellation**: changes nothing.
        """
        if self.closed:
            await trio.lowlevel.checkpoint()
            return
        if self._closed_event is None:
            self._closed_event = trio.Event()
        await self._closed_event.wait()

    # -- The end -------------------------------------------------------------

    @enable_ki_protection
    def changed(self) -> None:
        """Act on what a step of the engine brought: wake, write, end."""
        engine = self._engine
        if self._receiver is not None and self._has_incoming:
            receiver, self._receiver = self._receiver, None
            trio.lowlevel.reschedule(receiver)
        if engine.phase is not OPEN and not self._ended:
            self._ended = True
            if self._reading in (CALLER, LAST_CALLER):
                self._transport.wake()
            self._wake_reader()  # also where it has paused
            self._wake_room()
            self._set_deadline(self._options.close_timeout)
            self._on_end()
        if engine.phase is FAILED and not isinstance(engine.cause, EOFError):
            self._set_deadline(_LINGER)
        if engine.outbox.size or self._ended:
            # Also where the outbox is empty: what the transport took may not be
            # on the wire yet, and our stream must not end before.
            self.flush()

    def _set_deadline(self, seconds: float | None) -> None:
        if seconds is not None:
            self._deadline = min(self._deadline, trio.current_time() + seconds)
        if self._reader_scope is not None:
            self._reader_scope.deadline = self._deadline

    def _end_reading(self) -> None:
        self._cut = True
        if self._reader_scope is not None:
            self._reader_scope.cancel()

    def _lost(self, exc: OSError) -> None:
        """Take note that the transport is broken."""
        self._broken = True
        if self._engine.phase is CLOSE_DONE:
            # Both close frames went their way: how TCP ends is of no interest.
            self._engine.receive_eof()
        else:
            self._engine.lose(exc)
        self.changed()
        self._end_reading()

    def _settle(self) -> None:
        """Settle the state when the reader ends, which closes the transport."""
        engine = self._engine
        self._broken = True
        if engine.phase is CLOSE_DONE:
            engine.receive_eof()
        elif engine.phase not in FINAL:
            engine.lose(self._unanswered())
        engine.abandon(flushed=not (self._transport.unsent and self._holds_data))
        self.changed()

    def _unanswered(self) -> OSError:
        if trio.current_time() < self._deadline:
            return ConnectionAbortedError("closed without waiting for the peer")
        seconds = self._options.close_timeout
        return TimeoutError(f"closing took longer than {seconds} s")

    @enable_ki_protection
    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake: a close frame behind the data."""
        self._engine.close(code, reason)
        self.changed()

    @enable_ki_protection
    def fail(self, code: int, reason: str, cause: BaseException | None) -> None:
        """Give the connection up: a close frame, then nothing more."""
        self._engine.fail(code, reason, cause)
        self.changed()

    async def goodbye(self, code: int, reason: str) -> None:
        """Say and close what can be said and closed without waiting (R11).

        **Cancellation**: none; takes turns of the loop but no time.
        """
        if self._engine.phase is OPEN:
            self.close(code, reason)
        self._write_some()
        for _ in range(_GOODBYE_TURNS):
            if self._flushed or self._broken:
                break
            await trio.lowlevel.cancel_shielded_checkpoint()
        if self._flushed:
            self._transport.shutdown()
        for _ in range(_GOODBYE_DRAIN):
            if self._broken or not self.read_now():
                break
        self._end_reading()
        with trio.CancelScope(shield=True):
            await self.wait_closed()

    async def abort(self) -> None:
        """Close the transport of a connection that never got its scope."""
        await self._transport.aclose()

    def discard(self) -> None:
        """Do so in a finaliser, perhaps after the end of the trio run."""
        self._transport.discard()

    # -- What writing leads to -----------------------------------------------

    def _write_failed(self, exc: OSError) -> None:
        # What the peer said before it went, its close frame perhaps, is read
        # first: it says more than the failure to write does.
        if not self._broken:
            self._broken = True
            if isinstance(exc, ConnectionResetError):
                self._reset = exc
            for _ in range(_LAST_READS):
                if self._engine.phase in FINAL or not self.read_now():
                    break
            self._lost(exc)

    def _after_flush(self) -> None:
        """End our stream when nothing more will be written on it."""
        phase = self._engine.phase
        # RFC 6455, section 7.1.1: the server is the one that closes first.
        if not self._shut and (
            phase is FAILED or (phase is CLOSE_DONE and not self._client)
        ):
            self._shut = True
            shut = not self._broken and self._transport.shutdown()
            # Section 5.5.1: "The server MUST close the underlying TCP connection
            # immediately". Only a peer that broke the protocol may still send,
            # and is listened to for a while; not one given up for its silence.
            if (
                not shut
                or phase is CLOSE_DONE
                or isinstance(self._engine.cause, TimeoutError)
            ):
                self._end_reading()
