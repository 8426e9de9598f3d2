"""One connection of the command: what is typed goes out, what comes is shown."""

from __future__ import annotations

import dataclasses
from math import inf

import trio

from .. import ClientConnection, ConnectionClosed
from .notes import Status
from .sinks import Message, NoReaderError, Screen, Sink, StdoutError
from .source import Source

_QUIET = 1.0  # seconds, by default, after the end of stdin
# Seconds until the server, if it is behind, has got to what was sent last.
_CATCH_UP = 20.0

_HELP = "commands: /ping; a line that is to begin with a slash begins with two"


@dataclasses.dataclass(frozen=True, slots=True)
class Manner:
    """How a conversation is held.

    ``one``: one message out, one in. ``wait``: close once nothing has come for so many
    seconds after the end of what is to be sent; None for what is usual.
    """

    binary: bool = False
    one: bool = False
    wait: float | None = None


class Conversation:
    """Sends what ``source`` has and shows in ``sink`` what comes.

    ``over`` tells in the end that this side has ended it, ``closed`` how the peer has,
    ``fault`` what else there is to say, with an exit code.
    """

    def __init__(
        self, ws: ClientConnection, source: Source, sink: Sink, manner: Manner
    ) -> None:
        self.over = False
        self.closed: ConnectionClosed | None = None
        self.fault: tuple[str, Status] | None = None
        self._ws = ws
        self._source = source
        self._sink = sink
        self._manner = manner
        self._wait = inf  # for the next message, since the last one or the end
        self._quiet = trio.CancelScope()
        self._sending = trio.CancelScope()

    async def run(self) -> None:
        """Talk until one side has had enough."""
        self._ws.nursery.start_soon(self._send_all)
        try:
            await self._receive_all()
            self.over = True
        except ConnectionClosed as exc:
            self.closed = exc
        except (NoReaderError, StdoutError) as exc:
            self._stop(exc)
        finally:
            self._sending.cancel()

    # What comes

    async def _receive_all(self) -> None:
        while True:
            # Around the receiving alone: what came is shown, however slow that is.
            self._quiet = trio.CancelScope(deadline=trio.current_time() + self._wait)
            with self._quiet:
                message = await self._ws.recv()
            if self._quiet.cancelled_caught:
                break
            if self._manner.one:
                await self._sink.show([message])
                return
            await self._sink.show([message, *self._waiting()])
        # A deadline that has passed leaves what came.
        if messages := self._waiting():
            await self._sink.show(messages[:1] if self._manner.one else messages)

    def _waiting(self) -> list[Message]:
        """Take the messages that have come: a thread for each would be slow."""
        messages: list[Message] = []
        try:
            while True:
                messages.append(self._ws.recv_nowait())
        except (trio.WouldBlock, ConnectionClosed):
            return messages

    def _end_after(self, seconds: float) -> None:
        self._wait = seconds
        self._quiet.deadline = trio.current_time() + seconds

    def _stop(self, exc: NoReaderError | StdoutError) -> None:
        """End, as nothing more can be shown."""
        self.over = True
        if isinstance(exc, StdoutError):
            self.fault = str(exc), Status.LOST

    # What is sent

    async def _send_all(self) -> None:
        try:
            with self._sending:
                async with trio.open_nursery() as nursery:
                    await self._send_lines(nursery)
                    await self._end()
        except* ConnectionClosed:
            pass  # who receives is told, too
        except* (NoReaderError, StdoutError):
            self._end_after(0)  # the terminal is gone

    async def _send_lines(self, pings: trio.Nursery) -> None:
        while True:
            if isinstance(self._sink, Screen) and not self._source.held:
                await self._sink.prompt()
            message = await self._source.next()
            if message is None:
                return
            if isinstance(self._sink, Screen):
                self._sink.entered()
                await self._act_on(self._sink, message, pings)
            elif self._manner.binary:
                await self._ws.send(message)
            else:
                try:
                    await self._ws.send(message, text=True)
                except UnicodeError:
                    self.fault = (
                        f"line {self._source.taken} of stdin isn't UTF-8; --binary "
                        f"sends bytes as they are",
                        Status.USAGE,
                    )
                    return
            self._source.sent()
            if self._manner.one:
                return

    async def _act_on(self, screen: Screen, line: bytes, pings: trio.Nursery) -> None:
        """Do what a line says that was typed: send it, or a command."""
        text = screen.decoded(line)
        if not text.startswith("/"):
            await self._ws.send(text)
        elif text.startswith("//"):
            await self._ws.send(text[1:])
        elif text.strip() == "/ping":
            pings.start_soon(self._ping)
        else:
            screen.note(_HELP)

    async def _ping(self) -> None:
        latency = await self._ws.ping()
        self._sink.note(f"pong after {latency * 1000:.1f} ms")

    async def _end(self) -> None:
        """Let the conversation end, now that nothing more is to be sent."""
        wait = self._manner.wait
        if self.fault is not None or (self._source.ended and self._sink.interactive):
            self._end_after(0)
        elif self._manner.one:
            self._end_after(inf if wait is None else wait)
        else:
            # Data may still be under way to a server that is slow; the pong comes when
            # it has read all of it.
            with trio.move_on_after(_CATCH_UP):
                await self._ws.ping()
            self._end_after(_QUIET if wait is None else wait)
