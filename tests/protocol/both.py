"""The same steps for the code in use and for its copy in Python: the same outcome."""

from __future__ import annotations

import enum
import importlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from tests.peers import wire
from tests.protocol import pure

Load = Callable[[str], ModuleType]
Step = tuple[Any, ...]


def in_use(module: str) -> ModuleType:
    return importlib.import_module(f"trio_ws._protocol.{module}")


def comparable(value: Any) -> Any:
    """Make a value that is equal to that of the other copy, whose classes differ."""
    if isinstance(value, BaseException):
        code = getattr(value, "close_code", None)
        return type(value).__name__, str(value), code, comparable(value.__cause__)
    if isinstance(value, enum.Enum):
        return type(value).__name__, value.name
    if isinstance(value, (tuple, list)):
        return type(value), [comparable(each) for each in value]
    if type(value).__module__.startswith((pure.NAME, "trio_ws")):
        return type(value).__name__, str(value)
    return type(value), value


def told(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function; return what it returns or raises."""
    try:
        return comparable(function(*args))
    except Exception as exc:  # noqa: BLE001 - whatever it is, it's the same
        return comparable(exc)


def unmasked(frame: bytes | tuple[Any, ...]) -> tuple[Any, ...]:
    """Take a client's frame apart: keys are random."""
    whole = wire.made(frame)
    at = 2 + {126: 2, 127: 8}.get(whole[1] & 0x7F, 0)
    key, payload = whole[at : at + 4], whole[at + 4 :]
    sizes = None if isinstance(frame, bytes) else list(map(len, frame[:3]))
    return sizes, whole[:at], wire.xor(payload, key)


class Run:
    """An engine, what is done to it, and what comes of that."""

    def __init__(
        self,
        load: Load,
        *,
        client: bool,
        max_size: int | None = None,
        max_waiting: int | None = None,
        deflate: bool = False,
    ) -> None:
        self.traced: list[Any] = []
        self.engine: Any = load("engine").Engine(
            client=client,
            max_size=max_size,
            max_waiting=max_waiting,
            trace_received=lambda *frame: self.traced.append(("received", *frame)),
            trace_sent=lambda *frame: self.traced.append(("sent", *frame)),
        )
        if deflate:
            extension = load("extensions.deflate").PerMessageDeflate(
                remote_no_context_takeover=False,
                local_no_context_takeover=False,
                remote_max_window_bits=12,
                local_max_window_bits=12,
            )
            self.engine.extend([extension])

    def put(self, data: bytes) -> None:
        wire.put(self.engine, self.engine.receive, data)

    def send(self, *args: Any) -> Any:
        frame = self.engine.data_frame(*args)
        self.engine.outbox.push(frame)
        if self.engine.client:
            return unmasked(frame)
        return frame

    def queue_behind(self, room: int, *args: Any) -> Any:
        self.engine.outbox.batch_limit = room
        return self.engine.queue_behind(*args)

    def broadcast(self, *args: Any) -> Any:
        frame = self.engine.shared_frame(*args, {})
        self.engine.outbox.push(frame)
        return None if self.engine.client else frame

    def ping(self, payload: bytes) -> None:
        self.engine.send_ping(payload)

    def go_on(self) -> Any:
        return self.engine.go_on() if self.engine.backlog else None

    def limit(self, frames: int) -> None:
        """Let parsing stop after so many frames."""
        self.engine.decoder.frame_limit = frames

    def peek(self) -> Any:
        return self.engine.peek() if self.engine.messages else None

    def pop(self) -> Any:
        return self.engine.pop() if self.engine.messages else None

    def take(self) -> Any:
        decoder = self.engine.decoder
        return decoder.take_partial() if decoder.in_message else None

    def write(self, limit: int, count: int) -> Any:
        outbox = self.engine.outbox
        buffers = outbox.next_buffers(limit)
        outbox.consume(min(count, sum(map(len, buffers))))
        return list(map(len if self.engine.client else bytes, buffers))

    def abandon(self, flushed: bool) -> None:
        self.engine.abandon(flushed=flushed)

    def do(self, step: Step) -> Any:
        name, *args = step
        if hasattr(self, name):
            return told(getattr(self, name), *args)
        return told(getattr(self.engine, name), *args)

    def state(self) -> Any:
        engine, decoder, outbox = self.engine, self.engine.decoder, self.engine.outbox
        traced, self.traced = self.traced, []
        return comparable(
            [
                engine.phase,
                list(engine.messages),
                engine.queued,
                engine.violation,
                engine.cause,
                engine.rcvd,
                engine.sent,
                engine.rcvd_then_sent,
                engine.lost_data,
                engine.data_waits,
                engine.backlog,
                decoder.stopped,
                decoder.room,
                decoder.in_message,
                decoder.partial_size,
                decoder.where(),
                outbox.size,
                outbox.bytes_written,
                outbox.pongs_full,
                traced,
            ]
        )


def compare(
    steps: Iterable[Step],
    *,
    client: bool,
    max_size: int | None = None,
    max_waiting: int | None = None,
    deflate: bool = False,
) -> None:
    """Take the steps with both, and compare after each of them."""
    options: dict[str, Any] = {
        "client": client,
        "max_size": max_size,
        "max_waiting": max_waiting,
        "deflate": deflate,
    }
    one, other = Run(in_use, **options), Run(pure.load, **options)
    assert one.state() == other.state()
    for step in steps:
        assert one.do(step) == other.do(step), step
        assert one.state() == other.state(), step
