"""One side of a connection, and the tasks that move bytes for it.

Two tasks, at most, touch the transport. The *reader* lives as long as the transport:
it parses what it reads, never waits for writing, and closes the transport when its
loop ends. After the closing handshake it reads on, discarding, until the peer ends its
stream or time is over, so that no reset destroys a close frame under way. The *flusher*
lives while something waits to be written. Everything else can be called from any task.

Both tasks are shielded, since the scope decides what is said to the peer, and protected
from KeyboardInterrupt, which would leave the transport open.
"""

from __future__ import annotations

import logging
from math import inf

import trio
from trio.lowlevel import enable_ki_protection

from .._protocol.closing import (
    CLOSE_DONE,
    CONNECTING,
    FAILED,
    FINAL,
    FINISHING,
    OPEN,
    UNCLOSED,
    ends_tcp,
    listens_on,
)
from .._protocol.engine import Engine
from .._protocol.handshake.client import ClientHandshake
from .._protocol.handshake.server import ServerHandshake
from .._protocol.http.messages import Request, Response
from .._transports.base import Transport
from .ending import Ending
from .goodbye import discard, hear, hear_out, take_leave
from .host import CLOSED, CLOSING, HALF_CLOSED, NO_HOST, RUNNING, STOPPED
from .identity import Identity
from .keepalive import Keepalive
from .log import FrameLog
from .options import Options
from .pings import Pings
from .reader import RECEIVER, RECEIVER_LAST, Reader
from .receiver import Receiver
from .sender import Sender
from .writer import BROKEN, Writer

# How long one that failed goes on discarding input, so that its close frame arrives.
_LINGER = 1.0

# How long a client waits for the server to end TCP, once both close frames are out.
# RFC 6455, section 7.1.1: "in abnormal cases (such as not having received a TCP Close
# from the server after a reasonable time period) a client MAY initiate the TCP Close".
_PATIENCE = 2.0


class Endpoint:
    """One side of a connection: an engine, a transport, and what moves between them.

    Reader and Writer move bytes; Receiver and Sender move messages; the endpoint owns
    them, the tasks, the deadline of closing. What RFC 6455 says of the end is asked of
    the engine.
    """

    __slots__ = (
        "_close_as",
        "_close_by",
        "_closed_event",
        "_deadline",
        "_log",
        "_pinger_scope",
        "_reader_scope",
        "closed_at",
        "ending",
        "engine",
        "identity",
        "opened_at",
        "options",
        "pings",
        "reader",
        "receiver",
        "request",
        "response",
        "sender",
        "state",
        "subprotocol",
        "transport",
        "writer",
    )

    def __init__(
        self,
        transport: Transport,
        request: Request,
        options: Options,
        identity: Identity,
        *,
        client: bool,
    ) -> None:
        self.transport = transport
        self.request = request
        self.response: Response | None = None
        self.subprotocol: str | None = None
        self.options = options
        self.identity = identity
        debug = identity.logger.isEnabledFor(logging.DEBUG)
        self._log = log = FrameLog(identity.log) if debug else None
        self.pings = Pings(log.latency if log else None)
        self.engine = engine = Engine(
            client=client,
            max_size=options.max_size,
            max_waiting=options.max_waiting,
            trace_received=log.received if log else None,
            trace_sent=log.sent if log else None,
        )
        # Hooks have the connection before its response; no frame may come before that.
        engine.phase = CONNECTING
        engine.decoder.max_short_fragments = options.limits.short_fragments
        engine.on_pong = self.pings.acknowledge
        self.ending = ending = Ending(engine, options, identity)
        self.writer = writer = Writer(engine, transport, options)
        self.reader = reader = Reader(engine, transport, options, writer, self.pings)
        self.receiver = Receiver(engine, transport, reader, writer, ending)
        self.sender = Sender(engine, reader, writer, ending)
        self.state = RUNNING
        self._reader_scope: trio.CancelScope | None = None
        self._deadline = inf  # of closing: then the reader ends
        self._pinger_scope: trio.CancelScope | None = None
        # Of the first that closes amid a message: what it says, and the deadline.
        self._close_as: tuple[int, str] | None = None
        self._close_by = inf
        self._closed_event: trio.Event | None = None
        self.opened_at = self.closed_at = inf

    # -- The beginning -------------------------------------------------------

    def opened(
        self, response: Response, handshake: ClientHandshake | ServerHandshake
    ) -> None:
        """Take over what the opening handshake has agreed on."""
        self.response = response
        self.opened_at = trio.current_time()
        self.engine.phase = OPEN
        self.subprotocol = handshake.subprotocol
        self.engine.extend(tuple(handshake.extensions))
        if handshake.leftover:
            self.reader.bytes_received = len(handshake.leftover)
            try:
                self.engine.receive(handshake.leftover)
            except Exception as exc:  # noqa: BLE001 - the peer holds it for open
                self.died(exc)
        self.reader.full = self.engine.backlog or self.transport.holds
        plain = not handshake.extensions or self.engine.decoder.deflate is not None
        self.reader.calls_user = self._log is not None or not plain

    def start(self, nursery: trio.Nursery) -> None:
        """Start the reader in the service nursery of the connection's scope."""
        self.reader.host = self.writer.host = self.sender.host = self
        self.writer.start(nursery)
        keepalive = None
        if self.options.ping_interval is not None:
            keepalive = Keepalive(
                self.engine, self.reader, self.writer, self.pings, self.options, self
            )
        if keepalive is not None and not self.transport.callers_read:
            self._pinger_scope = trio.CancelScope(shield=True)
            nursery.start_soon(keepalive.run, self._pinger_scope)
            keepalive = None
        nursery.start_soon(self._run_reader, keepalive, name="trio_ws reader")

    # -- The tasks -----------------------------------------------------------

    @enable_ki_protection
    async def _run_reader(self, keepalive: Keepalive | None) -> None:
        shield = not self.transport.callers_read
        try:
            # The keepalive has no task: that is a fifth of an idle connection's memory.
            while self.state < STOPPED and trio.current_time() < self._deadline:
                if self.ending.abandoned:
                    await self._say_goodbye(1001, "")
                    break
                due = self._deadline
                if self.engine.phase is OPEN:
                    due = inf if keepalive is None else keepalive.due
                scope = trio.CancelScope(deadline=due, shield=shield)
                self._reader_scope = scope
                try:
                    with scope:
                        await self.reader.run()
                        if self.state < STOPPED:
                            # A peer that has ended its stream may still read.
                            await self.writer.wait_flushed()
                        break
                except trio.Cancelled:
                    # If the block is cancelled, its scope says when this ends. But trio
                    # cancels, too, when the task is gone and nobody leaves the block.
                    shield = True
                if keepalive is not None and self.engine.phase is OPEN:
                    keepalive.step()
        except Exception as exc:  # noqa: BLE001 - raised below, unless memory is short
            self.died(exc)
            await take_leave(self.engine, self.reader, self.writer, self.transport)
        finally:
            await self.abort()
        bug, self.engine.bug = self.engine.bug, None
        if bug is not None and not isinstance(bug, MemoryError):
            try:
                raise bug
            finally:
                del bug  # no cycle with its traceback

    async def abort(self) -> None:
        """Close at once, whatever code of the user's raises. **Cancellation**: none."""
        try:
            self._settle()
        finally:
            if self._pinger_scope is not None:
                self._pinger_scope.cancel()
            self.writer.stop()
            try:
                await self.transport.aclose()
            finally:
                self.release()

    def release(self) -> None:
        """Be closed, once the transport is; that may not have been open."""
        if self.engine.phase is CONNECTING:
            self.engine.phase = FAILED
        self.state = CLOSED
        self.closed_at = trio.current_time()
        self.reader.host = self.writer.host = self.sender.host = NO_HOST
        if self._closed_event is not None:
            self._closed_event.set()

    async def wait_closed(self) -> None:
        """Wait until the transport is closed. **Cancellation**: changes nothing."""
        if self.state is not CLOSED:
            if self._closed_event is None:
                self._closed_event = trio.Event()
            await self._closed_event.wait()

    # -- What a step of the engine leads to ----------------------------------

    @enable_ki_protection
    def changed(self) -> None:
        """Act on what a step of the engine brought: wake, write, end."""
        engine = self.engine
        reader = self.reader
        if reader.parked is not None:
            reader.wake_parked()
        if engine.phase is not OPEN and self.state is RUNNING:
            self._turn_away()
            if engine.phase is not FINISHING:
                self._begin_end()
        if engine.phase is FAILED and not isinstance(engine.cause, EOFError):
            self._set_deadline(_LINGER)
        if engine.outbox.size or self.state is not RUNNING:
            # Also where the outbox is empty: what the transport took may not be
            # on the wire yet, and our stream must not end before.
            self.writer.flush()

    def _turn_away(self) -> None:
        """Wake all who wait for something of the peer's."""
        if self.reader.by in (RECEIVER, RECEIVER_LAST):
            self.transport.wake()
        self.reader.wake()  # also where it has paused
        self.pings.end()

    def _begin_end(self) -> None:
        """Wake all who wait to send, and start the clocks."""
        self.state = CLOSING
        self.writer.wake_room()
        self.sender.wake_message_end()
        if self.engine.phase is not FAILED:  # which has a while to be told
            self._deadline = self._close_by
        # With 0, aclose() cuts it short once what needs no waiting is out, not before.
        self._set_deadline(self.options.close_timeout or None)
        # Senders that queue are woken one by the other.
        self.ending.begin(self.sender.waiting)
        if self._log is not None:
            self._log.ended(self.engine)

    def _set_deadline(self, seconds: float | None) -> None:
        if seconds is not None:
            self._deadline = min(self._deadline, trio.current_time() + seconds)
        if self._reader_scope is not None:
            self._reader_scope.deadline = self._deadline

    def _stop_reading(self) -> None:
        self.state = max(self.state, STOPPED)
        if self._reader_scope is not None:
            self._reader_scope.cancel()

    def after_flush(self) -> None:
        """End our stream once all is written, if it is for this side to end TCP."""
        if self.state is not CLOSING:
            return
        engine = self.engine
        if ends_tcp(engine.phase, client=engine.client):
            self.state = HALF_CLOSED
            shut = self.writer.state is not BROKEN and self.transport.shutdown()
            if not shut or not listens_on(engine.phase, engine.cause):
                self._stop_reading()
        elif engine.phase is CLOSE_DONE:
            self._set_deadline(_PATIENCE)

    # -- Errors of the transport ---------------------------------------------

    def lost(self, exc: OSError) -> None:
        """Act on an error of the transport, which is of no use any more."""
        self.writer.state = BROKEN
        if self.engine.phase is CLOSE_DONE:
            # Both close frames went their way: how TCP ends is of no interest.
            self.engine.receive_eof()
        else:
            # The frames of a write that failed hold what it was to write.
            self.engine.lose(exc.with_traceback(None))
        self.changed()
        self._stop_reading()

    def write_failed(self, exc: OSError) -> None:
        """Act on an error that writing met with, once what the peer said is read."""
        if self.writer.state is not BROKEN:
            self.writer.state = BROKEN
            if isinstance(exc, ConnectionResetError | ConnectionAbortedError):
                self.reader.reset = exc
            if self.engine.phase is OPEN:
                hear_out(self.engine, self.reader)
            else:  # nobody wants its messages
                hear(self.engine, self.reader)
            self.reader.reset = None  # no cycle with its traceback
            self.lost(exc)

    def _settle(self) -> None:
        """Settle the state when the reader ends, which closes the transport."""
        engine = self.engine
        self.writer.state = BROKEN
        if engine.phase is CLOSE_DONE:
            engine.receive_eof()
        elif engine.phase not in FINAL:
            text = f"closing took longer than {self.options.close_timeout} s"
            cause: OSError = TimeoutError(text)
            if trio.current_time() < self._deadline:
                cause = ConnectionAbortedError("closed without waiting for the peer")
            engine.lose(cause)
        engine.abandon(flushed=not (self.transport.unsent and self.writer.holds_data))
        self.changed()

    # -- Steps of this side --------------------------------------------------

    @enable_ki_protection
    def close(self, code: int, reason: str) -> None:
        """Queue a close frame behind the data."""
        try:
            self.engine.close(*(self._close_as or (code, reason)))
        finally:  # what an extension can't say ends the connection
            self.changed()

    @enable_ki_protection
    def fail(self, code: int, reason: str, cause: BaseException | None) -> None:
        """Give the connection up: a close frame, then nothing more."""
        self.engine.fail(code, reason, cause)
        self.changed()

    def died(self, exc: Exception) -> None:
        """Give up for what raised here; a bug is raised again when the reader ends."""
        self.engine.bug = exc
        if self.writer.state is BROKEN:  # pragma: no cover - as in Writer
            self.engine.lose(exc)
            self.changed()
            self._stop_reading()
        else:
            self.fail(1011, "", exc)

    @enable_ki_protection
    def ping(self, payload: bytes) -> None:
        """Queue a ping, and see that its pong is read."""
        self.engine.send_ping(payload)
        self.writer.flush()
        self.reader.keep_reading()

    @enable_ki_protection
    def pong(self, payload: bytes) -> None:
        """Queue a pong."""
        self.engine.send_pong(payload)
        self.writer.flush()

    async def aclose(self, code: int, reason: str) -> None:
        """Do the closing handshake. **Cancellation**: closes in a hurry."""
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self.options.close_timeout == 0:
                return await self.goodbye(code, reason)
            if self.sender.in_message and self.engine.phase in UNCLOSED:
                await self._finish_message(code, reason)
            if self.engine.phase in UNCLOSED:
                self.close(code, reason)
            await self.wait_closed()
        except BaseException:
            await self.goodbye(code, reason)
            raise

    async def _finish_message(self, code: int, reason: str) -> None:
        """Give a fragmented message under way close_timeout to be completed (R6)."""
        if self.engine.phase is OPEN:
            self._close_as = code, reason
            self._close_by = trio.current_time() + self.options.close_seconds
            self.engine.phase = FINISHING
            self.engine.discard_messages()
            self.changed()
        cause = await self.sender.finish(self._close_by)
        if cause is not None and self.engine.phase in UNCLOSED:
            self.fail(1011, "message was not completed", cause)

    async def goodbye(self, code: int, reason: str) -> None:
        """Say and close what needs no waiting (R11). **Cancellation**: none."""
        try:
            if self.state < STOPPED:
                await self._say_goodbye(code, reason)
        finally:  # whatever an extension of the user's raises
            self._stop_reading()
            with trio.CancelScope(shield=True):
                await self.wait_closed()

    async def _say_goodbye(self, code: int, reason: str) -> None:
        if self.ending.abandoned:
            self.writer.start(None)
        try:
            if self.engine.phase in UNCLOSED and self.sender.in_message:
                self.fail(1011, "message was not completed", None)
            elif self.engine.phase in UNCLOSED:
                self.close(code, reason)
        finally:  # whatever an extension of the user's raises
            await take_leave(self.engine, self.reader, self.writer, self.transport)
            self._settle()
            await discard(self.reader)

    async def fail_to_enter(self) -> None:
        """Close one whose scope can't be entered. **Cancellation**: none."""
        try:
            self.engine.fail(1011, "", None)
            await take_leave(self.engine, self.reader, self.writer, self.transport)
        finally:
            await self.abort()

    def discard(self) -> None:
        """Do that in a finaliser."""
        self.transport.discard()
