"""Properties of trio_ws._protocol: splits, any bytes, round trips, two sides."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.peers import wire
from tests.peers.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT
from tests.protocol.streams import CUTS, TEXTS, split, streams
from trio_ws._protocol.closing import (
    CLOSE_DONE,
    CLOSE_SENT,
    CLOSED,
    FAILED,
    FINAL,
    OPEN,
    is_sendable,
)
from trio_ws._protocol.engine import Engine
from trio_ws._protocol.errors import ProtocolError
from trio_ws._protocol.frames.decoder import Decoder, Item
from trio_ws._protocol.frames.encoder import encode
from trio_ws._protocol.frames.memory import SPLIT_SIZE

Message = str | bytes


def comparable(items: list[Item]) -> list[Any]:
    return [
        (type(item), str(item), item.close_code)
        if isinstance(item, ProtocolError)
        else item
        for item in items
    ]


def feed_until_end(decoder: Decoder, pieces: list[bytes]) -> list[Item]:
    items: list[Item] = []
    for piece in pieces:
        items += decoder.feed(piece)
        last = items[-1] if items else None
        if isinstance(last, ProtocolError) or (
            isinstance(last, tuple) and last[0] == CLOSE
        ):
            break
    return items


# Streams


@given(st.booleans(), st.data(), CUTS, st.none() | st.integers(0, 200))
def test_a_split_changes_nothing_for_the_decoder(
    masked: bool, data: st.DataObject, cuts: list[int], max_size: int | None
) -> None:
    stream = data.draw(streams(masked))
    whole = Decoder(masked=masked, max_size=max_size).feed(stream)
    pieces = split(stream, cuts)
    assert b"".join(pieces) == stream
    parts = feed_until_end(Decoder(masked=masked, max_size=max_size), pieces)
    assert comparable(parts) == comparable(whole)
    bytewise = [bytes([byte]) for byte in stream]
    single = feed_until_end(Decoder(masked=masked, max_size=max_size), bytewise)
    assert comparable(single) == comparable(whole)


def outcome(engine: Engine) -> tuple[Any, ...]:
    """Tell all that can be told of a connection from outside."""
    size = engine.outbox.size
    stream = b"".join(engine.outbox.next_buffers(2**30))
    assert len(stream) == size
    masked = engine.client
    sent = [
        (int(frame.opcode), bytes(frame.data))
        for frame in wire.parse_stream(stream, masked=masked)
    ]
    return (
        engine.phase,
        list(engine.messages),
        engine.queued,
        (engine.rcvd, engine.sent, engine.rcvd_then_sent),
        (type(engine.cause), str(engine.cause)),
        engine.lost_data,
        engine.decoder.in_message,
        engine.decoder.where(),
        sent,
    )


def run(client: bool, pieces: list[bytes], closing: bool, eof: bool) -> Engine:
    engine = Engine(client=client, max_size=200)
    if closing:
        engine.close(1000, "")
    for piece in pieces:
        engine.receive(piece)
        engine.act_on_violation()
    if eof:
        engine.receive_eof()
    return engine


@given(st.booleans(), st.data(), CUTS, st.booleans(), st.booleans())
def test_a_split_changes_nothing_for_the_engine(
    client: bool, data: st.DataObject, cuts: list[int], closing: bool, eof: bool
) -> None:
    stream = data.draw(streams(masked=not client))
    whole = run(client, [stream], closing, eof)
    parts = run(client, split(stream, cuts), closing, eof)
    if whole.phase is FAILED and whole.sent is not None:
        # Where a stream that failed stands says nothing.
        assert outcome(parts)[:5] == outcome(whole)[:5]
        assert outcome(parts)[-1] == outcome(whole)[-1]
    else:
        assert outcome(parts) == outcome(whole)


@given(st.booleans(), st.data(), CUTS, st.booleans())
def test_any_bytes_end_in_a_state_of_the_table(
    client: bool, data: st.DataObject, cuts: list[int], closing: bool
) -> None:
    stream = data.draw(st.binary(max_size=300) | streams(masked=not client))
    engine = run(client, split(stream, cuts), closing, eof=False)
    event(engine.phase.name)
    assert engine.phase in (OPEN, CLOSE_SENT, CLOSE_DONE, FAILED)
    assert engine.violation is None
    sent = outcome(engine)[-1]
    if engine.phase is FAILED:
        # It says why, to the peer and to the user.
        assert isinstance(engine.cause, ProtocolError)
        assert engine.cause.close_code in (1002, 1007, 1009)
        assert engine.rcvd is None
        assert engine.sent is not None
        assert [opcode for opcode, _ in sent] == [CLOSE]
        assert engine.sent.code == engine.cause.close_code
    elif engine.phase is CLOSE_DONE:
        assert engine.rcvd is not None
        assert engine.rcvd.code == 1005 or is_sendable(engine.rcvd.code)
        assert closing or sent[-1][0] == CLOSE
    engine.receive_eof()
    assert engine.phase in FINAL


@st.composite
def fragmented(
    draw: st.DrawFn,
) -> tuple[list[Message], list[tuple[int, bytes]], list[tuple[int, bytes, bool]]]:
    """Make messages, control frames, and the frames that carry them all."""
    messages = draw(st.lists(TEXTS | st.binary(max_size=300), max_size=6))
    controls: list[tuple[int, bytes]] = []
    frames: list[tuple[int, bytes, bool]] = []

    def maybe_control() -> None:
        if draw(st.integers(0, 3)) == 0:
            opcode = draw(st.sampled_from([PING, PONG]))
            controls.append((opcode, draw(st.binary(max_size=125))))
            frames.append((*controls[-1], True))

    for message in messages:
        payload = message.encode() if isinstance(message, str) else message
        opcode = TEXT if isinstance(message, str) else BINARY
        # Fragments may cut characters.
        pieces = split(payload, draw(st.lists(st.integers(0, 400), max_size=5)))
        for i, piece in enumerate(pieces):
            maybe_control()
            frames.append((0 if i else opcode, piece, i == len(pieces) - 1))
    maybe_control()
    return messages, controls, frames


# Round trips


@given(st.booleans(), fragmented(), CUTS)
def test_what_is_encoded_is_what_is_decoded(
    masked: bool,
    made: tuple[list[Message], list[tuple[int, bytes]], list[tuple[int, bytes, bool]]],
    cuts: list[int],
) -> None:
    messages, controls, frames = made
    traced: list[tuple[int, bytes, bool]] = []
    decoder = Decoder(
        masked=masked,
        max_size=None,
        trace=lambda opcode, start, size, fin: traced.append((opcode, start, fin)),
    )
    stream = b""
    for opcode, payload, fin in frames:
        stream += wire.made(encode(opcode, payload, fin, masked))
    items: list[Item] = []
    for piece in split(stream, cuts):
        items += decoder.feed(piece)
    assert [item for item in items if not isinstance(item, tuple)] == messages
    assert [item for item in items if isinstance(item, tuple)] == controls
    assert [(o, p[:100], f) for o, p, f in traced] == [
        (o, p[:100], f) for o, p, f in frames
    ]
    assert not decoder.in_message
    assert decoder.where() == "between two messages"


@given(st.booleans(), fragmented(), CUTS, st.data())
def test_pieces_taken_add_up_to_the_messages(
    masked: bool,
    made: tuple[list[Message], list[tuple[int, bytes]], list[tuple[int, bytes, bool]]],
    cuts: list[int],
    data: st.DataObject,
) -> None:
    messages, _, frames = made
    stream = b"".join(
        wire.frame(o, p, fin=f, key=KEY if masked else None) for o, p, f in frames
    )
    decoder = Decoder(masked=masked, max_size=None)
    came: list[Message] = []
    begun: Message | None = None
    for piece in split(stream, cuts):
        for item in decoder.feed(piece):
            if isinstance(item, str | bytes):
                came.append(item if begun is None else begun + item)  # type: ignore[operator]
                begun = None
        if decoder.in_message and data.draw(st.booleans()):
            part = decoder.take_partial()
            begun = part if begun is None else begun + part  # type: ignore[operator]
    assert came == messages


class Peer:
    """One side, what it was asked to send, and what reached the other."""

    def __init__(self, *, client: bool) -> None:
        self.client = client
        self.engine = Engine(client=client, max_size=None)
        self.engine.on_pong = self._take_pong
        self.accepted: list[Message] = []  # whole messages
        self.begun: tuple[int, bytes] | None = None  # of a fragmented one
        self.frames: list[tuple[int, bytes, bool]] = []  # of data, as accepted
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.got: list[Message] = []
        self.stream = bytearray()  # all that went out
        self.delivered = 0  # how much of it reached the other side
        self.ended = False  # its own stream
        self.torn = False  # it may have ended within a frame
        self.end_seen = False  # of the other's stream
        self.failed = self.closed = False

    def _take_pong(self, payload: bytes) -> None:
        self.pongs.append(payload)

    def push(self, opcode: int, payload: bytes, fin: bool) -> None:
        self.engine.outbox.push(self.engine.data_frame(opcode, payload, fin))
        self.frames.append((opcode, payload, fin))

    def flush(self, count: int, limit: int) -> None:
        """Let the socket take up to ``count`` bytes."""
        buffers = self.engine.outbox.next_buffers(limit)
        assert bool(buffers) == bool(self.engine.outbox.size)
        taken = b"".join(buffers)[:count]
        self.engine.outbox.consume(len(taken))
        self.stream += taken

    def flush_all_but(self, count: int) -> None:
        while self.engine.outbox.size > count:
            self.flush(self.engine.outbox.size - count, 2**16)

    def flush_all(self) -> None:
        while self.engine.outbox.size:
            self.flush(2**30, 2**16)

    def take_messages(self) -> None:
        while self.engine.messages:
            self.got.append(self.engine.pop())
        assert self.engine.queued == 0


SIDES = st.sampled_from([0, 1])
CODES = st.sampled_from([1000, 1001, 1011, 3000, 4999])
REASONS = st.sampled_from(["", "bye", "\u00e9" * 61])
LARGE = st.just(SPLIT_SIZE + 1).map(bytes)  # goes out in two buffers
MESSAGES = st.one_of(TEXTS, st.binary(max_size=200), LARGE)


class TwoSides(RuleBasedStateMachine):
    """A client and a server whose streams are cut anywhere and end at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.peers = (Peer(client=True), Peer(client=False))
        self.faults = False
        self.ends = self.first_end = 0

    @initialize(faults=st.booleans(), first_end=st.integers(0, 3))
    def choose(self, faults: bool, first_end: int) -> None:
        """Choose what may happen: most runs should get somewhere before they end."""
        self.faults = faults
        self.first_end = first_end

    @property
    def may_end(self) -> bool:
        self.ends += 1
        return self.ends > self.first_end

    # What users do

    @rule(side=SIDES, messages=st.lists(MESSAGES, min_size=1, max_size=3))
    def send(self, side: int, messages: list[Message]) -> None:
        peer = self.peers[side]
        if peer.engine.phase is not OPEN or peer.begun is not None:
            return
        for message in messages:
            if isinstance(message, str):
                peer.push(TEXT, message.encode(), True)
            else:
                peer.push(BINARY, message, True)
            peer.accepted.append(message)

    @rule(side=SIDES, payload=TEXTS.map(str.encode), cut=st.integers(0, 60))
    def begin_message(self, side: int, payload: bytes, cut: int) -> None:
        peer = self.peers[side]
        if peer.engine.phase is not OPEN or peer.begun is not None:
            return
        # The first fragment ends anywhere, also within a character.
        peer.begun = (cut, payload)
        peer.push(TEXT, payload[:cut], False)

    @rule(side=SIDES)
    def finish_message(self, side: int) -> None:
        peer = self.peers[side]
        if peer.engine.phase is not OPEN or peer.begun is None:
            return
        cut, payload = peer.begun
        peer.begun = None
        peer.push(CONT, payload[cut:], True)
        peer.accepted.append(payload.decode())

    @rule(side=SIDES)
    def ping(self, side: int) -> None:
        peer = self.peers[side]
        if peer.engine.phase is OPEN:
            peer.pings.append(b"%d" % len(peer.pings))
            peer.engine.send_ping(peer.pings[-1])

    @rule(side=SIDES)
    def take_messages(self, side: int) -> None:
        self.peers[side].take_messages()

    @rule(side=SIDES, code=CODES, reason=REASONS)
    def close(self, side: int, code: int, reason: str) -> None:
        peer = self.peers[side]
        if peer.engine.phase is OPEN and self.may_end:
            peer.closed = True
            peer.engine.close(code, reason)

    @precondition(lambda self: self.faults)
    @rule(side=SIDES, code=CODES, reason=REASONS, count=st.integers(0, 60))
    def fail(self, side: int, code: int, reason: str, count: int) -> None:
        if not self.may_end:
            return
        peer = self.peers[side]
        if not peer.ended:
            # So that it often fails within a frame.
            self.send(side, [bytes(60)])
            peer.flush_all_but(count)
        peer.failed = peer.failed or peer.engine.phase not in FINAL
        peer.engine.fail(code, reason, TimeoutError())

    # What the network does

    @rule(side=SIDES, count=st.integers(1, 400), limit=st.integers(0, 400))
    def flush(self, side: int, count: int, limit: int) -> None:
        if not self.peers[side].ended:
            self.peers[side].flush(count, limit)

    @rule(side=SIDES)
    def flush_all(self, side: int) -> None:
        if not self.peers[side].ended:
            self.peers[side].flush_all()

    @rule(side=SIDES, count=st.integers(1, 400) | st.just(2**30))
    def deliver(self, side: int, count: int) -> None:
        """Bring bytes to a side, and the end once all is there."""
        receiver, sender = self.peers[side], self.peers[1 - side]
        data = bytes(sender.stream[sender.delivered :][:count])
        sender.delivered += len(data)
        if data:
            receiver.engine.receive(data)
            # Two sides that obey the rules never break them.
            assert receiver.engine.violation is None
        elif sender.ended and not receiver.end_seen:
            receiver.end_seen = True
            receiver.engine.receive_eof()

    @rule(side=SIDES)
    def end_in_order(self, side: int) -> None:
        peer = self.peers[side]
        if peer.engine.phase in (CLOSE_DONE, *FINAL) and not peer.engine.outbox.size:
            peer.ended = True

    @precondition(lambda self: self.faults)
    @rule(side=SIDES, lose=st.booleans())
    def end_abruptly(self, side: int, lose: bool) -> None:
        peer = self.peers[side]
        if self.may_end and not peer.ended:
            peer.ended = peer.torn = True
            if lose:
                peer.failed = peer.failed or peer.engine.phase not in FINAL
                peer.engine.lose(ConnectionResetError())

    # What always holds

    @invariant()
    def messages_are_a_prefix(self) -> None:
        for receiver, sender in (self.peers, self.peers[::-1]):
            came = [*receiver.got, *receiver.engine.messages]
            assert came == sender.accepted[: len(came)]

    @invariant()
    def what_came_was_sent(self) -> None:
        for receiver, sender in (self.peers, self.peers[::-1]):
            engine = receiver.engine
            if engine.rcvd is not None:
                assert engine.rcvd == sender.engine.sent
            # An answer to each ping but those that too many others pushed out,
            # in order.
            answers = iter(receiver.pings)
            assert all(pong in answers for pong in receiver.pongs)

    @invariant()
    def phases_fit(self) -> None:
        for side, other in (self.peers, self.peers[::-1]):
            engine = side.engine
            if engine.phase in (CLOSE_DONE, CLOSED):
                assert engine.rcvd is not None
                assert engine.sent is not None
                assert engine.rcvd_then_sent is not None
            if engine.phase is CLOSED:
                assert other.ended
            if engine.phase is CLOSE_SENT:
                assert engine.rcvd is None
            if engine.phase is FAILED:
                assert side.failed or side.end_seen
            assert (engine.cause is not None) == (engine.phase is FAILED)

    @invariant()
    def the_close_frame_ends_the_messages(self) -> None:
        for receiver, sender in (self.peers, self.peers[::-1]):
            if (
                receiver.engine.rcvd is not None
                and not sender.failed
                # Whoever closes first discards what comes.
                and not receiver.closed
            ):
                came = [*receiver.got, *receiver.engine.messages]
                assert came == sender.accepted

    # The end

    def teardown(self) -> None:
        for _ in range(6):
            for side in (0, 1):
                self.flush_all(side)
                self.end_in_order(side)
                self.deliver(side, 2**30)
                self.deliver(side, 2**30)
        for peer in self.peers:
            self._check_stream(peer)
        self.messages_are_a_prefix()
        self.what_came_was_sent()
        self.phases_fit()
        self.the_close_frame_ends_the_messages()
        client, server = (peer.engine for peer in self.peers)
        event(f"{client.phase.name} {server.phase.name}")
        if client.phase is not OPEN or server.phase is not OPEN:
            if not any(peer.torn and not peer.failed for peer in self.peers):
                assert client.phase in FINAL
                assert server.phase in FINAL
        if client.phase is CLOSED and server.phase is CLOSED:
            assert (client.sent, client.rcvd) == (server.rcvd, server.sent)

    def _check_stream(self, peer: Peer) -> None:
        """Read what a side wrote, by another parser and the rules of the RFC."""
        try:
            frames = wire.parse_stream(bytes(peer.stream), masked=peer.client)
        except EOFError:
            assert peer.torn
            return
        read = [(int(f.opcode), bytes(f.data), f.fin) for f in frames]
        data = [frame for frame in read if frame[0] < 8]
        assert data == peer.frames[: len(data)]
        # A side that was told that the other reads no more drops what waits.
        if not (peer.torn or peer.engine.lost_data or peer.engine.rcvd):
            assert data == peer.frames
        closes = [i for i, frame in enumerate(read) if frame[0] == CLOSE]
        if closes:
            # One, and nothing behind it but answers to pings.
            assert len(closes) == 1
            assert {frame[0] for frame in read[closes[0] + 1 :]} <= {PONG}
            assert peer.engine.sent is not None
            code = int.from_bytes(read[closes[0]][1][:2], "big")
            assert code == peer.engine.sent.code
            assert read[closes[0]][1][2:].decode() == peer.engine.sent.reason
        elif not peer.torn:
            assert peer.engine.sent is None
        pings = [payload for opcode, payload, _ in read if opcode == PING]
        assert pings == peer.pings[: len(pings)]


# Two sides, joined by streams that are cut anywhere


def test_two_sides_never_disagree() -> None:
    run_state_machine_as_test(TwoSides, settings=settings(stateful_step_count=40))
