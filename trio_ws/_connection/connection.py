"""What a user does with a connection: receive, send, ping, close.

Each method may be called from any task, several at once, with one exception:
only one task at a time may receive.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import (
    AsyncIterable,
    Iterable,
)
from types import TracebackType
from typing import Any, Literal, cast, overload

import trio
from trio.lowlevel import checkpoint_if_cancelled, enable_ki_protection

from .._endpoint.budget import check_run, current_budget
from .._endpoint.elsewhere import CONNECTION, Hinting
from .._endpoint.endpoint import Endpoint
from .._endpoint.errors import ConnectionClosed, ConnectionClosedOK
from .._endpoint.host import CLOSED
from .._endpoint.identity import shown
from .._endpoint.messages import Data, control_payload, encode_message, fragments_of
from .._endpoint.reader import OFFERED, PAUSED
from .._endpoint.statistics import ConnectionStatistics, statistics_of
from .._protocol.closing import CONNECTING, OPEN, State, close_payload, connection_close
from .._protocol.http.messages import Request, Response
from .._protocol.opcodes import BINARY
from .._transports.base import TLSInfo
from .groups import exit_code
from .message_stream import MessageStream


class Connection(trio.abc.Channel[str | bytes], Hinting, elsewhere=CONNECTION):
    """A WebSocket connection: a channel of messages, str for text, else bytes.

    Made by connect(), accept() or serve(), whose scope it lives in. The hooks of
    a server see it earlier, with its ``request``, ``id``, ``logger`` and addresses:
    calls that need the connection raise RuntimeError there, and there is no
    ``nursery``.

    ``nursery`` is for tasks that use the connection: leaving the scope waits
    for them. ``request`` is that of the opening handshake.
    """

    nursery: trio.Nursery

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = cast("Endpoint", endpoint)  # which isn't for users
        self.request: Request = self._endpoint.request
        self._engine = self._endpoint.engine
        self._reader = self._endpoint.reader
        self._receiver = self._endpoint.receiver
        self._sender = self._endpoint.sender
        self._writer = self._endpoint.writer
        self._budget = current_budget()
        self._endpoint.identity.belongs_to(self)

    # -- Facts ---------------------------------------------------------------

    @property
    def id(self) -> uuid.UUID:
        """A unique name of the connection, for logs."""
        return self._endpoint.identity.id

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """A logger whose lines begin with the connection's id and the peer's address.

        It is the one given, or ``trio_ws.client`` or ``trio_ws.server``, in an adapter
        that gives records the attributes ``websocket``, ``connection_id`` and
        ``remote_address``, in which a Unix socket's path is without control characters.
        """
        return self._endpoint.identity.log

    @property
    def local_address(self) -> Any:
        """The address of this side, as of socket.getsockname(); None if it has none.

        With ``proxy_protocol``, the one that the client has connected to.
        """
        return self._endpoint.identity.local_address

    @property
    def remote_address(self) -> Any:
        """The address of the peer, as of socket.getpeername(); None if it has none.

        With ``proxy_protocol``, that of the client.
        """
        return self._endpoint.identity.remote_address

    @property
    def ssl_object(self) -> TLSInfo | None:
        """The WebSocket's own TLS, to ask for certificate, cipher or protocol.

        None without TLS; TLS with a proxy isn't the WebSocket's. An ssl.SSLObject, or
        the user's trio.SSLStream. It answers after the end, too. Don't read or write
        by it.
        """
        return self._endpoint.transport.ssl_object

    @property
    def socket(self) -> trio.socket.SocketType | None:
        """The socket, for its options: SO_PEERCRED, TCP_INFO and the like.

        None over a stream that has none, and once it is closed. Of a StapledStream, the
        socket that is read from. Don't read, write or close it.
        """
        return self._endpoint.transport.trio_socket

    @property
    def response(self) -> Response | None:
        """The response of the opening handshake; None before it is sent."""
        return self._endpoint.response

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the opening handshake agreed on, or None."""
        return self._endpoint.subprotocol

    @property
    def latency(self) -> float:
        """Seconds from the latest ping that was answered to its pong; 0 before."""
        return self._endpoint.pings.latency

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
        return State.CLOSED if self._endpoint.state is CLOSED else State.CLOSING

    @property
    def close_code(self) -> int | None:
        """The close code of the connection (RFC 6455, section 7.1.5).

        That of the peer's close frame, 1005 if it had none, 1006 if no close
        frame came; None while the connection is open or about to be closed.
        """
        close = connection_close(self._engine.phase, self._engine.rcvd)
        return None if close is None else close.code

    @property
    def close_reason(self) -> str | None:
        """The reason in the peer's close frame, "" if none came; None before."""
        close = connection_close(self._engine.phase, self._engine.rcvd)
        return None if close is None else close.reason

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.id} {self.state.name} "
            f"{shown(self.local_address)} - {shown(self.remote_address)}>"
        )

    def statistics(self) -> ConnectionStatistics:
        """Say what the connection has carried, and what waits in it.

        Of one that is closed, as it was in the end. Raises RuntimeError in another
        thread before.
        """
        if self._endpoint.state is not CLOSED:
            check_run(self._budget, "statistics")
        return statistics_of(self._endpoint)

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
        engine, receiver = self._engine, self._receiver
        if (
            engine.messages
            and not receiver.receiving
            and receiver.stream is None
            and not self._budget.spend()
        ):
            await checkpoint_if_cancelled()  # nothing else runs meanwhile
        else:
            receiver.begin()
            try:
                if receiver.stream is not None or not engine.idle:
                    await self._budget.checkpoint()
                    receiver.leave_stream()
                while engine.idle:
                    if self._reader.by is OFFERED:
                        await receiver.wait()
                    else:
                        await receiver.sleep()
                        self._budget.renew()
                if not engine.messages and not receiver.look_after_end():
                    raise self._endpoint.ending.closed()
            finally:
                receiver.receiving = False
        if decode is not None:
            return receiver.take(decode)
        message = engine.pop()
        if self._reader.by is PAUSED:
            self._reader.resume_if_low()
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
        check_run(self._budget, "recv_nowait")
        receiver = self._receiver
        receiver.begin()
        try:
            receiver.look()
            return receiver.take(decode)
        finally:
            receiver.receiving = False

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
        return MessageStream(self._receiver, decode)

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
        sender = self._sender
        due = self._budget.spend()
        if not due:
            await checkpoint_if_cancelled()
            if text is None and self._writer.turn is None:
                if sender.queue_behind(message, compress):
                    return
        if type(message) is bytes and text is None:
            opcode, payload = BINARY, message
        elif isinstance(message, (str, bytes, bytearray, memoryview)):
            opcode, payload = encode_message(message, text)
        else:
            await sender.accept_fragments(fragments_of(message), text, compress)
            return
        if due:
            await self._budget.yield_()
        if not sender.accept_nowait(opcode, payload, compress):
            await sender.accept(opcode, payload, compress)

    def send_nowait(
        self, message: Data, *, text: bool | None = None, compress: bool = True
    ) -> None:
        """Send a message if it is accepted without waiting, as send() else does.

        Raises trio.WouldBlock if ``write_limit`` bytes wait for the socket or
        another task is sending; nothing is sent then. Otherwise as send().
        """
        check_run(self._budget, "send_nowait")
        opcode, payload = encode_message(message, text)
        if not self._sender.accept_nowait(opcode, payload, compress):
            raise trio.WouldBlock("write_limit is reached, or another task is sending")

    # -- Control -------------------------------------------------------------

    async def ping(self, data: str | bytes | None = None) -> float:
        """Send a ping; return the latency, in seconds, once its pong came.

        ``data`` is the payload, at most 125 bytes; by default four random
        letters and digits (RFC 6455, section 5.5.2).

        While reading is paused (``max_queue``, ``max_size``) no pong is seen:
        receive in another task, or put a cancel scope around the call.

        Raises ConnectionClosed, also while it waits; ConcurrencyError if a
        ping with the same data still waits; ValueError or TypeError for data
        that no ping can carry.

        **Cancellation**: waits no longer; the ping may have been sent.
        """
        check_run(self._budget, "ping")
        payload = None if data is None else control_payload(data)
        await self._budget.checkpoint()
        endpoint = self._endpoint
        if self._engine.phase is not OPEN:
            raise endpoint.ending.closed()
        payload, waiter = endpoint.pings.add(payload)
        try:
            endpoint.ping(payload)
            await waiter.done.wait()
        finally:
            endpoint.pings.forget(payload, waiter)
        if waiter.latency is None:
            raise endpoint.ending.closed()
        return waiter.latency

    async def pong(self, data: str | bytes = b"") -> None:
        """Send a pong that no ping asked for (RFC 6455, section 5.5.3).

        Raises ConnectionClosed; ValueError or TypeError for data that no pong can
        carry. **Cancellation**: nothing was sent.
        """
        check_run(self._budget, "pong")
        payload = control_payload(data)
        await self._budget.checkpoint()
        if self._engine.phase is not OPEN:
            raise self._endpoint.ending.closed()
        self._endpoint.pong(payload)

    # -- Closing -------------------------------------------------------------

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection: what was sent, a close frame, the answer.

        Waits for the closing handshake (RFC 6455, section 7.1.2) and the end
        of TCP, ``close_timeout`` at most; in that time a fragmented message that
        another task is sending can end, else the connection is closed with 1011.
        Messages that weren't received are discarded. From now on every call
        raises ConnectionClosedOK. Does nothing on a connection that is closed.

        Raises ConnectionClosedError if messages that send() had accepted
        couldn't be written and nobody was told so far; ValueError, and does
        nothing, for a code that may not be sent and a reason of more than 123
        bytes.

        **Cancellation**: the close frame and what waits before it are written
        as far as that needs no waiting, and the connection is closed.
        """
        close_payload(code, reason)  # raises for wrong arguments
        check_run(self._budget, "aclose")
        if self._engine.phase is CONNECTING:
            raise self._endpoint.ending.closed()
        ending = self._endpoint.ending
        ending.aclose()
        if self._endpoint.state is CLOSED:  # else there is the closing to wait for
            await trio.lowlevel.checkpoint()
        await self._endpoint.aclose(code, reason)
        ending.raise_for_lost_data()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, with the code that leaving the connection's own block has.

        1000, or 1011 after an exception, or 1001 when cancelled.
        **Cancellation**: as of aclose().
        """
        is_loss = isinstance(exc, ConnectionClosed) and exc.connection is self
        await self.aclose(exit_code(exc, is_loss=is_loss))

    async def wait_closed(self) -> None:
        """Wait until the connection is closed, by whomever.

        **Cancellation**: changes nothing.
        """
        check_run(self._budget, "wait_closed")
        await trio.lowlevel.checkpoint()
        await self._endpoint.wait_closed()
