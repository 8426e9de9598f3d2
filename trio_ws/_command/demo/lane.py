"""A lane: one connection, with a server of its own and the network between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from ... import ClientConnection, Server, ServerConnection, WebSocketException
from . import code
from .relay import HOST, Relay, make_small
from .side import Side, logger_that_tells, said

#: What a lane tells: whose side it is of, a kind, a text, word for word, and which
#: function saw that.
Tell = Callable[[str, str, str, str], None]

#: With which codes the server can be told to close.
CODES = (1000, 1001, 1008, 1011, 4000)

# Of both sides: how often they ping. A pong so much later than that is overdue.
_PING_INTERVAL = 0.5
_OVERDUE = 0.25


class Lane:
    """A connection that the page shows, from its opening to its end.

    ``tell`` is called with all that its code sees, when it does.
    """

    def __init__(self, tell: Tell) -> None:
        self.server = Side(partial(tell, "server"))
        self.client = Side(partial(tell, "client"))
        self.relay = Relay()
        self.server_scope = trio.CancelScope()
        self.ended = False
        self._tell = tell
        self._logger = logger_that_tells(partial(tell, "server"))
        self._reading = trio.Event()
        self._reading.set()
        self._acts: set[object] = set()  # those that run
        self._latency = 0.0
        self._answered = trio.current_time()

    async def run(self) -> None:
        """Run both sides until both have ended.

        **Cancellation**: cancels both.
        """
        try:
            async with trio.open_nursery() as nursery:
                server: Server = await nursery.start(code.server, self)
                make_small(server.sockets[0])  # as those that it accepts are then
                port: int = await nursery.start(self.relay.run, server.port)
                await self._run_client(f"ws://{HOST}:{port}/")
                # The server's side may see it later.
                await server.aclose(close_connections=False)
                nursery.cancel_scope.cancel()
        except* OSError as group:  # for want of descriptors, for one
            for exc in group.exceptions:
                self._tell("client", "raised", said(exc), "the demo")
        finally:
            self.ended = True

    async def _run_client(self, uri: str) -> None:
        try:
            with self.client.watching("client"):
                await code.client(uri, self)
        except (WebSocketException, OSError):
            pass  # told

    # What the code is given

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of its server."""
        return {
            "host": HOST,
            "ping_interval": _PING_INTERVAL,
            "ping_timeout": 2,
            "compression": None,  # or what is sent is next to nothing
            "logger": self._logger,
        }

    def watched(
        self, handler: Callable[[ServerConnection], Awaitable[None]]
    ) -> Callable[[ServerConnection], Awaitable[None]]:
        """Return the handler, of which all is told."""

        async def run(ws: ServerConnection) -> None:
            self.server.ws = ws
            with self.server.watching("handler"):
                await handler(ws)

        return run

    def watch(self, ws: ClientConnection) -> None:
        """Show this connection."""
        self.client.ws = ws
        self._answered = trio.current_time()
        assert ws.socket is not None
        make_small(ws.socket)
        self._tell("client", "open", "connected", "client")

    async def work(self, message: str | bytes) -> None:
        await self._reading.wait()

    # What buttons do

    def stop_reading(self) -> None:
        self._reading = trio.Event()

    def read_on(self) -> None:
        self._reading.set()

    def do(self, what: str, close_code: int = 1000) -> None:
        """Do what a button says, as far as the connection still lives.

        Raises KeyError if no button says so.
        """
        if what in _ACTS_OF_NETWORK:
            _ACTS_OF_NETWORK[what](self.relay)
        elif what in _ACTS_OF_CLIENT:
            _ACTS_OF_CLIENT[what](self)
        elif what == "cancel":
            code.cancel(self.server_scope)
        else:
            arguments = (close_code, "by a button") if what == "close" else ()
            self._start(_ACTS_OF_SERVER[what], *arguments)

    def _start(
        self, function: Callable[..., Awaitable[None]], *arguments: object
    ) -> None:
        ws = self.server.ws
        if ws is None or self.server.ended or function in self._acts:
            return

        async def act() -> None:
            try:
                await function(ws, *arguments)
            except Exception as exc:
                self.server.saw(exc, function.__name__)
                raise
            finally:
                self._acts.discard(function)

        self._acts.add(function)
        ws.nursery.start_soon(act)

    # What the page shows

    def snapshot(self) -> dict[str, Any]:
        """Return how it is now."""
        return {
            "state": self.client.state,
            "server": self.server.state,
            "ended": self.ended,
            "frozen": self.relay.frozen,
            "slow": self.relay.delay > 0,
            "stopped": not self._reading.is_set(),
            "flooding": code.flood in self._acts,
            "here": {"server": self.server.here(), "client": self.client.here()},
            "tasks": {
                "server": len(self.server.tasks),
                "client": len(self.client.tasks),
            },
            **self._figures(),
        }

    def _figures(self) -> dict[str, Any]:
        client, server = self.client.ws, self.server.ws
        if client is None or server is None:
            return {}
        ours, theirs = client.statistics(), server.statistics()
        return {
            "latency": self._current_latency(ours.latency),
            "messages": [ours.messages_sent, ours.messages_received],
            "bytes": [ours.bytes_sent, ours.bytes_received],
            "unsent": theirs.bytes_unsent,
            "waiting": ours.messages_waiting,
            "close": [client.close_code, client.close_reason],
        }

    def _current_latency(self, latency: float) -> float:
        """Return that of the last pong, or how long one has been missing."""
        now = trio.current_time()
        if latency != self._latency:
            self._latency, self._answered = latency, now
        missing = now - self._answered - _PING_INTERVAL
        return missing if missing > _OVERDUE else latency


_ACTS_OF_NETWORK: dict[str, Callable[[Relay], None]] = {
    "reset": Relay.reset,
    "freeze": Relay.freeze,
    "thaw": Relay.thaw,
    "slow": Relay.slow,
    "quick": Relay.quick,
}

_ACTS_OF_CLIENT: dict[str, Callable[[Lane], None]] = {
    "stop": Lane.stop_reading,
    "read": Lane.read_on,
}

_ACTS_OF_SERVER: dict[str, Callable[..., Awaitable[None]]] = {
    "close": code.close,
    "flood": code.flood,
    "fail": code.fail,
}

_FUNCTIONS: dict[str, list[Callable[..., object]]] = {
    **{what: [function] for what, function in _ACTS_OF_NETWORK.items()},
    "stop": [Lane.stop_reading, Lane.work],
    "read": [Lane.read_on, Lane.work],
    **{what: [function] for what, function in _ACTS_OF_SERVER.items()},
    "cancel": [code.cancel],
}

#: What each button does, as text.
SOURCES = {
    what: [code.text_of(function) for function in functions]
    for what, functions in _FUNCTIONS.items()
}
