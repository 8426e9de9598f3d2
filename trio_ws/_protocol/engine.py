# cython: annotation_typing=False, nonecheck=True
"""One side of a WebSocket connection, without any input or output.

Bytes go in by :meth:`Engine.receive`, messages wait in :attr:`Engine.messages`,
bytes that have to go out wait in :attr:`Engine.outbox`. The closing handshake is
the table of ``closing``; this file says what each step means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from .closing import (
    DEAF,
    FAILED,
    FINAL,
    OPEN,
    TABLE,
    Close,
    Event,
    Phase,
    close_or_none,
    close_payload,
    close_reason,
    parse_close,
    reads_no_more,
)
from .errors import ProtocolError
from .extensions.base import Extension
from .frames import text
from .frames.decoder import Control, Decoder, Item, Trace
from .frames.encoder import encode
from .frames.extended import encode_control, encode_extended, forget
from .frames.header import MAX_LENGTH
from .frames.outbox import Encoded, Outbox
from .frames.shared import encode_shared
from .frames.text import WideText
from .opcodes import BINARY, CLOSE, MAX_HEADER, PING, PONG, TEXT

# Shared where no message waits, and never added to: an empty deque takes 760 bytes.
_NOTHING: Final[deque[str | bytes]] = deque()


class Engine:
    """The protocol from the end of the opening handshake on."""

    __slots__ = (
        "_close_frame",
        "_trace_sent",
        "bug",
        "cause",
        "client",
        "decoder",
        "extensions",
        "lost_data",
        "max_waiting",
        "messages",
        "messages_received",
        "messages_sent",
        "on_pong",
        "outbox",
        "phase",
        "queued",
        "rcvd",
        "rcvd_then_sent",
        "sent",
        "violation",
    )

    def __init__(
        self,
        *,
        client: bool,
        max_size: int | None,
        max_waiting: int | None = None,
        trace_received: Trace | None = None,
        trace_sent: Trace | None = None,
    ) -> None:
        self.client = client
        self.extensions: Sequence[Extension] = ()
        self._trace_sent = trace_sent
        # Parsing stops once messages that wait have taken more than so many bytes.
        self.max_waiting = MAX_LENGTH if max_waiting is None else max_waiting
        self.phase: Phase = OPEN
        self.decoder = Decoder(
            masked=not client, max_size=max_size, trace=trace_received
        )
        self.outbox = Outbox()
        self.messages: deque[str | bytes] = _NOTHING  # that came and weren't taken
        self.queued = 0  # their size in memory
        self.messages_received = self.messages_sent = 0
        self.on_pong: Callable[[bytes], None] | None = None
        # How it ended: the close frames, which was first, and why.
        self.rcvd: Close | None = None
        self.sent: Close | None = None
        self.rcvd_then_sent: bool | None = None
        self.cause: BaseException | None = None
        self.bug: Exception | None = None  # that code of the user's raised
        # What the peer did against the protocol, until it is acted on.
        self.violation: ProtocolError | None = None
        self.lost_data = False  # whether accepted data will never go out
        self._close_frame: bytes | None = None

    def extend(self, extensions: Sequence[Extension]) -> None:
        """Use the extensions that the opening handshake has agreed on."""
        self.extensions = extensions
        self.decoder.extend(extensions)

    def _step(self, event: Event) -> None:
        phase = TABLE.get((self.phase, event))
        if phase is None:
            raise ProtocolError(f"{event.name}: impossible in state {self.phase.name}")
        if phase is FAILED and self.phase is not OPEN:
            self.decoder.stopped = False  # what is left is for nobody
        self.phase = phase

    # -- Receiving -----------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether the connection is open and no message waits."""
        return self.phase is OPEN and not self.messages

    def receive(self, data: bytes) -> bool:
        """Take in bytes of the peer: queue messages, answer control frames.

        Return whether anything else than messages came, which is to be acted on. Not
        all is taken in where ``backlog`` is true then.
        """
        deaf = self.phase is not OPEN and self.phase in DEAF
        if deaf or self.violation is not None:
            return False
        self.decoder.room = self.max_waiting - self.queued
        return self._take_in(self.decoder.feed(data))

    @property
    def backlog(self) -> bool:
        """Whether go_on() has something to take in."""
        waits = self.decoder.stopped and self.violation is None
        return waits and self.phase not in DEAF

    def go_on(self) -> bool:
        """Take in more of what receive() was given, also after a loss; return that."""
        self.decoder.room = self.max_waiting - self.queued
        return self._take_in(self.decoder.go_on())

    def space(self) -> memoryview | None:
        """Return where to put bytes for filled(); None unless a large message comes."""
        return self.decoder.space() if self.phase is OPEN else None

    def filled(self, count: int) -> bool:
        """Take in so many bytes, which were put into the space, as receive() does."""
        return self._take_in(self.decoder.filled(count))

    def _take_in(self, items: list[Item]) -> bool:
        size = 0
        for item in items:
            if type(item) is not str and type(item) is not bytes:
                return self._receive_others(items)
            size += text.memory_size(item)
        # After our own close frame nobody waits for messages.
        if items and (self.phase is OPEN or self.phase in FINAL):
            if self.messages:
                self.messages.extend(items)  # type: ignore[arg-type]  # as was seen
            else:
                self.messages = deque(items)  # type: ignore[arg-type]
            self.queued += size
            self.messages_received += len(items)
        return False

    def _receive_others(self, items: list[Item]) -> bool:
        """Take in items that aren't all messages, or are wide text."""
        acts = False
        for item in items:
            if isinstance(item, (str, bytes)):
                if self.phase is OPEN or self.phase in FINAL:
                    if not self.messages:
                        self.messages = deque()
                    self.messages.append(item)
                    self.messages_received += 1
                    self.queued += text.memory_size(item)
            elif self.phase in FINAL:
                if type(item) is tuple and item[0] == CLOSE and self.rcvd is None:
                    self.rcvd = close_or_none(item[1])  # came before the loss
                    self.rcvd_then_sent = False if self.rcvd and self.sent else None
            elif isinstance(item, tuple):
                self._receive_control(item)
                acts = True
            elif isinstance(item, ProtocolError):
                self._violate(item)
                acts = True
            else:  # a bug of an extension, or no memory
                items.clear()  # no cycle with its traceback
                self.bug = item
                self.fail(1011, "", item)
                acts = True
        return acts

    def receive_eof(self) -> None:
        """Act on the end of the peer's stream."""
        self.act_on_violation()  # which came first, and says more
        if self.phase in FINAL:
            return
        if self.phase not in DEAF:
            self.cause = EOFError(f"stream ended {self.decoder.where()}")
        if self.sent is None:
            self._drop(self.cause)
        # A peer that has ended its stream after our close frame may still read.
        self._step(Event.EOF)

    def _receive_control(self, item: Control) -> None:
        opcode, payload = item
        if opcode == PING:
            # Section 5.5.2: "Upon receipt of a Ping frame, an endpoint MUST send a Pong
            # frame in response, unless it already received a Close frame". So also
            # behind a close frame of ours, which may wait behind data still.
            self._step(Event.RECV_CONTROL)
            self.outbox.put_pong(self._control(PONG, payload))
        elif opcode == PONG:
            self._step(Event.RECV_CONTROL)
            if self.on_pong is not None:
                self.on_pong(payload)
        else:
            self._receive_close(payload)

    def _receive_close(self, payload: bytes) -> None:
        """Take in a close frame, and answer it.

        Section 5.5.1 lets an endpoint finish the message under way before it answers.
        A peer that has closed reads no more, so what waits is dropped.
        """
        try:
            rcvd = parse_close(payload)
        except ProtocolError as exc:
            self._violate(exc)
            return
        # "When sending a Close frame in response, the endpoint typically echos the
        # status code it received".
        answer = self._control(CLOSE, payload) if self.sent is None else None
        self.rcvd = rcvd
        self._step(Event.RECV_CLOSE)
        close = self._close_frame
        waits = close is not None and self.outbox.waits(close)
        self._note_lost(None)
        self.outbox.drop_data()
        if answer is not None:
            self._step(Event.SEND_CLOSE)
            self._send_close(answer, rcvd)
            return
        self.rcvd_then_sent = False
        if close is not None and waits:
            self.outbox.push(close)

    def _violate(self, exc: ProtocolError) -> None:
        # Who keeps the error would keep payloads by its frames. Its text says enough.
        exc.__traceback__ = exc.__cause__ = exc.__context__ = None
        self.violation = exc

    def act_on_violation(self) -> None:
        """Fail the connection if the peer broke the protocol (section 7.1.7).

        Here a violation becomes a close code and a reason. A step of its own, so that
        messages that came before it in the same read can still be answered.
        """
        exc, self.violation = self.violation, None
        if exc is not None:
            self.fail(exc.close_code, close_reason(str(exc)), exc)

    def pop(self) -> str | bytes:
        """Take the oldest message."""
        message = taken = self.messages.popleft()
        if type(taken) is WideText:
            try:
                message = taken.decode()
            except MemoryError:
                self.messages.appendleft(taken)
                raise
        self.queued -= text.memory_size(taken)
        if not self.messages:
            self.messages = _NOTHING
        return message

    def peek(self) -> str | bytes:
        """Return the oldest message, which stays where it is."""
        message = self.messages[0]
        return message.decode() if type(message) is WideText else message

    def discard_messages(self) -> None:
        """Forget what nobody will ask for any more."""
        self.messages = _NOTHING
        self.queued = 0
        self.decoder.discard_partial()

    # -- Sending -------------------------------------------------------------

    def data_frame(
        self, opcode: int, payload: bytes, fin: bool, compress: bool = True
    ) -> Encoded:
        """Build a data frame, which the caller has to push or write at once.

        ``compress`` is the same for all frames of a message.
        """
        self._sends(opcode, payload, fin)
        if self.extensions:
            deflate = self.decoder.deflate
            return encode_extended(
                opcode, payload, fin, self.client, self.extensions, compress, deflate
            )
        return encode(opcode, payload, fin, self.client)

    def _sends(self, opcode: int, payload: bytes, fin: bool) -> None:
        if self.phase is not OPEN:
            self._step(Event.SEND_DATA)
        if self._trace_sent is not None:
            self._trace_sent(opcode, payload, len(payload), fin)
        self.messages_sent += fin

    def queue_behind(self, message: object, compress: bool) -> bool:
        """Queue a message behind others that are about to go out together.

        Return False if none are, if they are enough, or if it can't go as it is.
        """
        outbox = self.outbox
        if not outbox.batch_limit or self.phase is not OPEN:
            return False
        if type(message) is bytes:
            opcode, payload = BINARY, message
        elif type(message) is str:
            opcode, payload = TEXT, message.encode()
        else:
            return False
        if outbox.size + len(payload) + MAX_HEADER >= outbox.batch_limit:
            return False
        frame = self.data_frame(opcode, payload, True, compress)
        try:
            outbox.push(frame)
        except MemoryError:
            self.forget_context()
            raise
        return True

    def shared_frame(
        self, opcode: int, payload: bytes, cache: dict[int, Encoded]
    ) -> Encoded:
        """Build the frame of a message to many; those alike share it by ``cache``."""
        deflate = self.decoder.deflate if self.extensions else None
        if self.client or (self.extensions and deflate is None):
            return self.data_frame(opcode, payload, True)
        self._sends(opcode, payload, True)
        return encode_shared(opcode, payload, deflate, cache)

    def forget_context(self) -> None:
        """Let nothing refer to a message that was built and will not be sent."""
        forget(self.extensions)

    def send_ping(self, payload: bytes) -> bytes:
        """Queue a ping and return its frame, for Outbox.waits()."""
        self._step(Event.SEND_CONTROL)
        frame = self._control(PING, payload)
        self.outbox.push_control(frame)
        return frame

    def send_pong(self, payload: bytes) -> None:
        """Queue an unsolicited pong (section 5.5.3)."""
        self._step(Event.SEND_CONTROL)
        self.outbox.put_pong(self._control(PONG, payload))

    def close(self, code: int, reason: str) -> None:
        """Queue a close frame behind the data; discard what came, and what comes."""
        payload = close_payload(code, reason)
        try:
            frame = self._control(CLOSE, payload)
        except Exception as exc:
            self.fail(1011, "", exc)
            self.bug = None  # raised once is enough
            raise
        self._step(Event.SEND_CLOSE)
        self._send_close(frame, Close(code, reason))
        self.discard_messages()

    def fail(self, code: int, reason: str, cause: BaseException | None) -> None:
        """Give the connection up: a close frame right away, the rest is dropped."""
        if self.phase in FINAL:
            return
        frame, payload = None, close_payload(code, reason)
        if self._close_frame is None or self.outbox.waits(self._close_frame):
            try:
                frame = self._control(CLOSE, payload)
            except Exception as exc:  # noqa: BLE001 - of an extension: without it, then
                self.bug = exc
                frame = self._control(CLOSE, payload, True)
        self._step(Event.FAIL)
        self.cause = cause or self.bug
        self._drop(cause)
        if frame is not None:
            self._send_close(frame, Close(code, reason))

    def lose(self, cause: BaseException) -> None:
        """Be lost: the stream is broken, and nothing can be sent any more."""
        if self.phase in FINAL:
            return
        self._step(Event.FAIL)
        self.cause, self.violation = self.violation or cause, None
        self.abandon(flushed=True)

    def abandon(self, *, flushed: bool) -> None:
        """Send nothing more; ``flushed``: what was taken from the outbox went out."""
        self._note_lost(self.cause)
        self.outbox.discard()
        if not flushed and not reads_no_more(self.rcvd):
            self.lost_data = True

    @property
    def data_waits(self) -> bool:
        """Whether data waits in the outbox, besides the close frame behind it."""
        return self.outbox.holds_data(self._close_frame)

    def _note_lost(self, cause: BaseException | None) -> None:
        """Note whether data is about to be lost; let ``cause`` say how much."""
        if self.data_waits and not reads_no_more(self.rcvd) and not self.lost_data:
            self.lost_data = True
            if isinstance(cause, (OSError, EOFError)):
                cause.add_note(f"{self.outbox.size} waiting bytes were never sent")

    def _drop(self, cause: BaseException | None) -> None:
        """Forget what waits, but for the frame under way."""
        self._note_lost(cause)
        self.outbox.drop()

    def _send_close(self, frame: bytes, close: Close) -> None:
        self._close_frame = frame
        self.outbox.push(frame)
        self.sent = close
        if self.rcvd is not None:
            self.rcvd_then_sent = True

    def _control(self, opcode: int, payload: bytes, plain: bool = False) -> bytes:
        if self._trace_sent is not None and not plain:
            self._trace_sent(opcode, payload, len(payload), True)
        extensions = () if plain else self.extensions
        return encode_control(opcode, payload, extensions, self.client)
