"""What a user does with a connection: receive, send, ping, close.

Each method may be called from any task, several at once, with one exception:
only one task at a time may receive.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import uuid
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Iterable,
)
from typing import TYPE_CHECKING, Any, Literal, overload

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from ._keepalive import Pings
from ._pace import current_pacer
from ._protocol._engine import Engine
from ._protocol._frames import (
    BINARY,
    CONT,
    OK_CODES,
    CloseCode,
    close_payload,
)
from ._protocol._handshake_server import plain_response
from ._protocol._state import CONNECTING, FINAL, OPEN, State
from ._pump import Pump
from ._reading import PAUSED
from ._sending import (
    Data,
    FragmentedMessage,
    Turn,
    control_payload,
    fragments_of,
    prepared,
)
from ._story import Story
from ._streaming import MessageStream, StreamToken, converted
from .exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
)

if TYPE_CHECKING:
    from ._options import Options
    from ._protocol._handshake_client import ClientHandshake
    from ._protocol._handshake_server import ServerHandshake
    from ._protocol._http import Request, Response
    from ._scope import ConnectionScope
    from ._transports import Transport


@dataclasses.dataclass(slots=True)
class Opened:
    """What a connection is made of, once there is a request."""

    transport: Transport
    request: Request
    options: Options
    logger: logging.Logger


class Connection(trio.abc.Channel[str | bytes]):
    """A WebSocket connection: a channel of messages, str for text, else bytes.

    Made by connect(), accept() or serve(), whose scope it lives in. The hooks of
    a server see it earlier, with a ``request`` and nothing more: calls raise
    RuntimeError there, and there is no ``nursery``.

    ``nursery`` is for tasks that use the connection: leaving the scope waits
    for them. ``request`` and ``response`` are those of the opening handshake;
    ``subprotocol`` is the one they agreed on, or None. The addresses, as
    socket.getsockname() gives them, are None where the stream isn't a socket.
    """

    _client: bool

    nursery: trio.Nursery

    def __init__(self, opened: Opened) -> None:
        self.request = opened.request
        self.response: Response | None = None
        self.subprotocol: str | None = None
        self.logger = opened.logger
        self.local_address: Any = opened.transport.local_address
        self.remote_address: Any = opened.transport.remote_address
        self._options = opened.options
        debug = self.logger.isEnabledFor(logging.DEBUG)
        self._story = Story(self.logger, self.id) if debug else None
        self._pings = Pings(self._story.latency if self._story else None)
        self._engine = Engine(
            client=self._client,
            max_size=opened.options.max_size,
            trace_received=self._story.received if self._story else None,
            trace_sent=self._story.sent if self._story else None,
        )
        # Hooks have the connection before its response is written, and a frame
        # must not come before that.
        self._engine.phase = CONNECTING
        self._engine.on_pong = self._pings.acknowledge
        self._pump = Pump(
            self._engine,
            opened.transport,
            opened.options,
            client=self._client,
            pings=self._pings,
            on_end=self._on_end,
        )
        self._pacer = current_pacer()
        self._turn: trio.StrictFIFOLock | None = None  # of senders, under contention
        self._receiving = False
        self._stream: StreamToken | None = None  # the message that is read piecemeal
        self._aclosed = False  # by the user: no clock, no verdict
        self._told_of_lost_data = False
        self._scope: ConnectionScope | None = None

    def _accepted(
        self, response: Response, handshake: ClientHandshake | ServerHandshake
    ) -> None:
        """Take over what the opening handshake has agreed on."""
        self.response = response
        self._engine.phase = OPEN
        self.subprotocol = handshake.subprotocol
        self._engine.extend(tuple(handshake.extensions))
        if handshake.leftover:
            self._engine.receive(handshake.leftover)

    # -- Facts ---------------------------------------------------------------

    @functools.cached_property
    def id(self) -> uuid.UUID:
        """A unique name of the connection, for logs."""
        return uuid.uuid4()

    @property
    def latency(self) -> float:
        """Seconds from the latest ping that was answered to its pong; 0 before."""
        return self._pings.latency

    @property
    def state(self) -> State:
        """The state, in the words of RFC 6455.

        Between a look at it and a call it may change: rather call, and catch
        ConnectionClosed.
        """
        if self._engine.phase is OPEN:
            return State.OPEN
        if self._engine.phase is CONNECTING:
            return State.CONNECTING
        return State.CLOSED if self._pump.closed else State.CLOSING

    @property
    def close_code(self) -> int | None:
        """The close code of the connection (RFC 6455, section 7.1.5).

        That of the peer's close frame, 1005 if it had none, 1006 if no close
        frame came; None while the connection is open or about to be closed.
        """
        if self._engine.rcvd is not None:
            return self._engine.rcvd.code
        if self._engine.phase in FINAL:
            return CloseCode.ABNORMAL_CLOSURE.value
        return None

    @property
    def close_reason(self) -> str | None:
        """The reason in the peer's close frame, "" if none came; None before."""
        if self._engine.rcvd is not None:
            return self._engine.rcvd.reason
        return "" if self._engine.phase in FINAL else None

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.id} {self.state.name} "
            f"{self.local_address} - {self.remote_address}>"
        )

    # -- Receiving -----------------------------------------------------------

    @overload
    async def recv(self, decode: Literal[True]) -> str: ...

    @overload
    async def recv(self, decode: Literal[False]) -> bytes: ...

    @overload
    async def recv(self, decode: None = None) -> str | bytes: ...

    @enable_ki_protection  # a KeyboardInterrupt comes while it waits or not at all
    async def recv(self, decode: bool | None = None) -> str | bytes:
        """Receive the next message: a str if it is text, else bytes.

        ``decode=False`` returns the bytes of a text, ``decode=True`` decodes a
        binary message, in UTF-8.

        Raises ConnectionClosedOK after a close in good order,
        ConnectionClosedError after a loss, in both cases once all messages
        that came before have been received; ConcurrencyError while another
        task receives; UnicodeDecodeError if ``decode=True`` and the message isn't
        UTF-8, which stays where it is.

        **Cancellation**: nothing is lost; the next call returns the message.
        A deadline that has passed already, as of move_on_after(0), never
        returns a message, even if one is there: recv_nowait() does.
        """
        # One of two calls that decide what a message costs, so it is spelt out.
        engine = self._engine
        if (
            engine.messages
            and not self._receiving
            and self._stream is None
            and not self._pacer.is_due()
        ):
            await checkpoint_if_cancelled()  # nothing else runs meanwhile
        else:
            self._begin_receiving()
            try:
                if self._stream is not None or not engine.idle:
                    await self._pacer.step()
                    self._leave_stream()
                while engine.idle:
                    await self._pump.wait_incoming()
                if not engine.messages:
                    raise self._closed()
            finally:
                self._receiving = False
        if decode is not None:
            return self._take(decode)
        message = engine.pop()
        if self._pump._reading is PAUSED:  # Pump.paused, without a call
            self._pump.taken()
        return message

    async def receive(self) -> str | bytes:
        """Receive the next message; recv(), by the name that trio's channels use.

        **Cancellation**: as recv().
        """
        return await self.recv()

    @enable_ki_protection
    def recv_nowait(self, decode: bool | None = None) -> str | bytes:
        """Receive a message that is there.

        Raises trio.WouldBlock if none is; otherwise as recv().
        """
        self._begin_receiving()
        try:
            self._leave_stream()
            if not self._engine.messages:
                self._pump.read_if_nobody_does()
            if not self._engine.messages:
                if self._engine.phase is not OPEN:
                    raise self._closed()
                raise trio.WouldBlock("no message is there")
            return self._take(decode)
        finally:
            self._receiving = False

    async def __anext__(self) -> str | bytes:
        """Receive the next message; a close in good order ends the iteration.

        **Cancellation**: as recv().
        """
        try:
            return await self.recv()
        except ConnectionClosedOK:
            raise StopAsyncIteration from None

    def recv_streaming(self, decode: bool | None = None) -> MessageStream:
        """Receive the next message piece by piece: ``async for piece in ...``.

        The pieces are str or bytes as the message is, or as ``decode`` says.
        Where they are cut has no meaning (RFC 6455, section 5.4). Left early,
        what is still to come of the message is discarded.

        The iteration raises what recv() raises, also in the middle of a
        message. **Cancellation**: nothing is lost; the iteration can go on.
        """
        return MessageStream(self, decode)

    def _begin_receiving(self) -> None:
        if self._receiving:
            raise ConcurrencyError("another task is already receiving")
        if self._stream is not None and self._stream.is_of_another_task():
            raise ConcurrencyError(
                "another task is in the middle of a message, by recv_streaming()"
            )
        self._receiving = True

    @enable_ki_protection
    def _take(self, decode: bool | None) -> str | bytes:
        # Converted before it is taken: what can't be decoded isn't lost.
        message = converted(self._engine.messages[0], decode)
        self._engine.pop()
        self._pump.taken()
        return message

    @enable_ki_protection
    def _leave_stream(self) -> None:
        """Discard the rest of a message that recv_streaming() was left in."""
        if self._stream is None:
            return
        begun = self._stream.begun
        self._stream = None
        self._pump.streaming = False
        if not begun:
            pass  # cancelled before the first piece, so nothing is lost (R4)
        elif self._engine.messages:
            self._engine.pop()
        else:
            self._engine.decoder.discard_partial()
        self._pump.taken()

    # -- Sending -------------------------------------------------------------

    async def send(
        self,
        message: Data | Iterable[Data] | AsyncIterable[Data],
        *,
        text: bool | None = None,
        compress: bool = True,
    ) -> None:
        """Send a message: text if it is a str, else binary.

        ``text=True`` sends bytes, which must be UTF-8, as text; ``text=False``
        a str as binary. An iterable, async or not, of str or of bytes sends
        one message in fragments, each as soon as the iterable yields it; other
        senders wait until its end, control frames do not. ``compress=False``
        sends it as it is on a connection that compresses.

        Returns once the message is accepted: it will be sent whole and in
        order, unless the connection is lost or its scope cancelled. Waits
        while ``write_limit`` bytes wait for the socket.

        Raises ConnectionClosed; TypeError for what isn't a message; UnicodeError
        for text that UTF-8 doesn't have, or bytes as text that aren't UTF-8. An
        iterable that yields nothing sends nothing.

        **Cancellation**: nothing of the message was or will be sent. In the
        middle of an iterable the connection is closed, with 1011: the peer
        can't be told to forget the beginning. The same if the iterable raises.
        """
        # The other of two calls that decide what a message costs.
        due = self._pacer.is_due()
        if not due:
            await checkpoint_if_cancelled()
            if text is None and self._turn is None and self._gather(message, compress):
                return
        if type(message) is bytes and text is None:
            opcode, payload = BINARY, message
        elif isinstance(message, (str, bytes, bytearray, memoryview)):
            opcode, payload = prepared(message, text)
        else:
            await self._send_fragments(fragments_of(message), text, compress)
            return
        if due:
            await self._pacer.rest()
        if not self._hand_over_at_once(opcode, payload, compress):
            async with Turn(self):
                await self._pump.wait_room()
                self._hand_over(opcode, payload, compress=compress)

    def send_nowait(
        self, message: Data, *, text: bool | None = None, compress: bool = True
    ) -> None:
        """Send a message if it is accepted without waiting, as send() else does.

        Raises trio.WouldBlock if ``write_limit`` bytes wait for the socket or
        another task is sending; nothing is sent then. Otherwise as send().
        """
        opcode, payload = prepared(message, text)
        if not self._hand_over_at_once(opcode, payload, compress):
            raise trio.WouldBlock("write_limit is reached, or another task is sending")

    @enable_ki_protection
    def _gather(self, message: object, compress: bool) -> bool:
        """Accept a message behind others that are about to go out, if there are any."""
        return self._engine.gather(message, compress)

    @enable_ki_protection
    def _hand_over_at_once(self, opcode: int, payload: bytes, compress: bool) -> bool:
        """Accept a message if nobody else's turn is to send and there is room."""
        engine, pump = self._engine, self._pump
        if engine.phase is not OPEN:
            raise self._closed()
        # Where nobody flushes, nothing waits.
        if self._turn is None and (not pump._flushing or pump.has_room):
            pump.write(engine.data_frame(opcode, payload, True, compress))
            return True
        return False

    @enable_ki_protection
    def _hand_over(
        self, opcode: int, payload: bytes, *, fin: bool = True, compress: bool
    ) -> None:
        """Accept a frame: the one step in which a message is committed (R5)."""
        if self._engine.phase is not OPEN:
            raise self._closed()
        self._pump.write(self._engine.data_frame(opcode, payload, fin, compress))

    @enable_ki_protection
    def _hand_over_fragment(
        self, message: FragmentedMessage, payload: bytes, *, fin: bool, compress: bool
    ) -> None:
        """Accept a fragment, and know at the same time that it was."""
        opcode = CONT if message.begun else message.opcode
        self._hand_over(opcode, payload, fin=fin, compress=compress)
        message.begun = not fin

    async def _send_fragments(
        self, fragments: AsyncIterable[Data], text: bool | None, compress: bool
    ) -> None:
        iterator = aiter(fragments)
        async with Turn(self):
            await self._pacer.step()
            message = FragmentedMessage(text)
            try:
                async for fragment in iterator:
                    payload = message.prepared(fragment)
                    await self._pump.wait_room()
                    self._hand_over_fragment(
                        message, payload, fin=False, compress=compress
                    )
                    await self._pacer.step()
                if message.begun:
                    message.finish()
                    await self._pump.wait_room()
                    self._hand_over_fragment(message, b"", fin=True, compress=compress)
            except BaseException as exc:
                if message.begun and self._engine.phase is OPEN:
                    self._pump.fail(1011, "message was not completed", exc)
                raise
            finally:
                # A generator that isn't finished is finished here, not by the
                # garbage collector. Anything else remains the caller's.
                if isinstance(iterator, AsyncGenerator):
                    with trio.CancelScope(shield=True) as scope:
                        scope.cancel()
                        await iterator.aclose()

    # -- Control -------------------------------------------------------------

    async def ping(self, data: str | bytes | None = None) -> float:
        """Send a ping; return the latency, in seconds, once its pong came.

        ``data`` is the payload, at most 125 bytes; by default four random
        ones (RFC 6455, section 5.5.2).

        While reading is paused (``max_queue``, ``max_size``) no pong is seen:
        receive in another task, or put a cancel scope around the call.

        Raises ConnectionClosed, also while it waits; ConcurrencyError if a
        ping with the same data still waits; ValueError or TypeError for data
        that no ping can carry.

        **Cancellation**: waits no longer; the ping may have been sent.
        """
        payload = None if data is None else control_payload(data)
        await self._pacer.step()
        if self._engine.phase is not OPEN:
            raise self._closed()
        payload, waiter = self._pings.add(payload)
        try:
            self._queue_ping(payload)
            await waiter.done.wait()
        finally:
            self._pings.forget(payload, waiter)
        if waiter.latency is None:
            raise self._closed()
        return waiter.latency

    async def pong(self, data: str | bytes = b"") -> None:
        """Send a pong that no ping asked for (RFC 6455, section 5.5.3).

        Raises ConnectionClosed; ValueError or TypeError for data that no pong can
        carry. **Cancellation**: nothing was sent.
        """
        payload = control_payload(data)
        await self._pacer.step()
        if self._engine.phase is not OPEN:
            raise self._closed()
        self._queue_pong(payload)

    @enable_ki_protection
    def _queue_ping(self, payload: bytes) -> None:
        self._engine.send_ping(payload)
        self._pump.flush()
        self._pump.keep_reading()

    @enable_ki_protection
    def _queue_pong(self, payload: bytes) -> None:
        self._engine.send_pong(payload)
        self._pump.flush()

    # -- Closing -------------------------------------------------------------

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection: what was sent, a close frame, the answer.

        Waits for the closing handshake (RFC 6455, section 7.1.2) and the end
        of TCP, ``close_timeout`` at most. Messages that weren't received are
        discarded. From now on every call raises ConnectionClosedOK. Does
        nothing on a connection that is closed.

        Raises ConnectionClosedError if messages that send() had accepted
        couldn't be written and nobody was told so far; ValueError, and does
        nothing, for a code that may not be sent and a reason of more than 123
        bytes.

        **Cancellation**: the close frame and what waits before it are written
        as far as that needs no waiting, and the connection is closed.
        """
        close_payload(code, reason)  # raises for wrong arguments
        if self._engine.phase is CONNECTING:
            raise self._closed()
        if self._lost and self._scope is not None and self._scope.was_told:
            self._told_of_lost_data = True
        self._aclosed = True
        if self._scope is not None:
            self._scope.stop_clock()
        await self._close(code, reason)
        if self._engine.lost_data and not self._told_of_lost_data:
            self._told_of_lost_data = True
            raise self._error()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed, by whomever.

        **Cancellation**: changes nothing.
        """
        await self._pump.wait_closed()

    async def _close(self, code: int, reason: str) -> None:
        """Do the closing handshake, or in a cancelled scope what can be done.

        **Cancellation**: closes in a hurry, then raises Cancelled.
        """
        try:
            await checkpoint_if_cancelled()
            if self._engine.phase is OPEN:
                self._pump.close(code, reason)
            await self._pump.wait_closed()
        except BaseException:
            await self._pump.goodbye(code, reason)
            raise

    # -- The end -------------------------------------------------------------

    @property
    def _in_order(self) -> bool:
        """Whether both close frames say that all is well."""
        rcvd, sent = self._engine.rcvd, self._engine.sent
        return (
            rcvd is not None
            and sent is not None
            and rcvd.code in OK_CODES
            and sent.code in OK_CODES
        )

    @property
    def _lost(self) -> bool:
        """Whether the connection ended, not in good order nor by the user."""
        return not (self._engine.phase is OPEN or self._aclosed or self._in_order)

    def _closed(self) -> ConnectionClosed:
        """Make the exception for a call that finds the connection closed.

        The one place where the user's code is told of a loss.
        """
        if self._engine.phase is CONNECTING:
            raise RuntimeError("connection isn't open yet: its response isn't sent")
        if self._lost:
            if self._scope is not None:
                self._scope.told()
            return self._error()
        engine = self._engine
        exc = ConnectionClosedOK(engine.rcvd, engine.sent, engine.rcvd_then_sent)
        exc._connection = self
        return exc

    def _error(self) -> ConnectionClosedError:
        engine = self._engine
        exc = ConnectionClosedError(engine.rcvd, engine.sent, engine.rcvd_then_sent)
        exc._connection = self
        exc.__cause__ = engine.cause
        return exc

    @enable_ki_protection
    def _on_end(self) -> None:
        """Act on the end of the connection; called once, by the pump."""
        self._pings.end()
        if self._story is not None:
            self._story.ended(self._engine)
        if self._scope is not None:
            self._scope.ended()


class ClientConnection(Connection):
    """The client's side of a connection."""

    _client = True


class ServerConnection(Connection):
    """The server's side of a connection."""

    _client = False

    def respond(self, status: int, text: str) -> Response:
        """Make a response of plain text, for process_request to return.

        Its headers and its body can be changed. Raises ValueError for a status
        that HTTP doesn't know.
        """
        return plain_response(status, text)
