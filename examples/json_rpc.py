"""JSON-RPC 2.0 over a connection: both ends call, notify, refuse and give up.

``Peer.run()`` reads, and owns the nursery of the handlers, which run at the same time.
When the connection ends, those that still run are cancelled. A call that is cancelled
says so by ``$/cancelRequest`` of the Language Server Protocol, since JSON-RPC has no
such thing; its batches are refused. To run it: python json_rpc.py
"""

import contextlib
import inspect
import itertools
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from trio_ws import Connection as WebSocket
from trio_ws import ConnectionClosed, ServerConnection, connect, open_server

MAX_HANDLERS = 100
logger = logging.getLogger(__name__)


class RPCError(Exception):
    """What a call was answered with: RPCError(code, message)."""


def error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


class Peer:
    """One end. Its handlers get it as their first argument."""

    def __init__(self, ws: WebSocket, **handlers: Callable[..., Awaitable[Any]]):
        self.ws = ws
        self._handlers = handlers
        self._numbers = itertools.count(1)
        self._waiting: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._running: dict[int | str, trio.CancelScope] = {}

    async def call(self, method: str, *params: Any) -> Any:
        """Return the result.

        Raises RPCError; trio.EndOfChannel if the connection ends meanwhile;
        ConnectionClosed after its end.
        """
        number = next(self._numbers)
        self._waiting[number], answer = trio.open_memory_channel[dict[str, Any]](1)
        try:
            await self._send({"id": number, "method": method, "params": params})
            outcome = await answer.receive()
        except trio.Cancelled:
            gone = {"method": "$/cancelRequest", "params": {"id": number}}
            with contextlib.suppress(trio.WouldBlock, ConnectionClosed):
                self.ws.send_nowait(json.dumps({"jsonrpc": "2.0", **gone}))
            raise
        finally:
            self._waiting.pop(number, None)  # a late answer is nobody's
        match outcome:
            case {"error": {"code": int() as code, "message": str() as message}}:
                raise RPCError(code, message)
            case {"error": wrong}:
                raise RPCError(-32603, f"no error of JSON-RPC: {wrong!r}")
        return outcome["result"]

    async def notify(self, method: str, *params: Any) -> None:
        """Tell the other end, which doesn't answer."""
        await self._send({"method": method, "params": params})

    async def run(self) -> None:
        """Read until the connection ends."""
        try:
            async with trio.open_nursery() as nursery:
                async for text in self.ws:
                    if len(nursery.child_tasks) >= MAX_HANDLERS:
                        await self.ws.aclose(1008, "too many calls at once")
                        break
                    self._take(text, nursery)
                nursery.cancel_scope.cancel()
        finally:  # also of a loss: who calls may be a task that it doesn't cancel
            for sender in self._waiting.values():
                sender.close()

    async def _send(self, fields: dict[str, Any]) -> None:
        await self.ws.send(json.dumps({"jsonrpc": "2.0", **fields}))

    def _take(self, text: str | bytes, nursery: trio.Nursery) -> None:
        # Whatever has to wait is a task's: reading waits for none of it.
        running = self._running
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            nursery.start_soon(self._reply, None, error(-32700, "no JSON"))
            return
        match message:
            case {"method": "$/cancelRequest", "params": {"id": int() | str() as id_}}:
                if id_ in running:
                    running[id_].cancel()
            case {"method": str()} if "id" not in message:
                nursery.start_soon(self._outcome, message)
            case {"method": str(), "id": int() | str() as id_} if id_ not in running:
                running[id_] = trio.CancelScope()
                nursery.start_soon(self._answer, id_, message)
            case {"id": int() as id_} if "result" in message or "error" in message:
                if id_ in self._waiting:
                    self._waiting.pop(id_).send_nowait(message)
            case _:
                nursery.start_soon(self._reply, None, error(-32600, "invalid request"))

    async def _answer(self, id_: int | str, message: dict[str, Any]) -> None:
        outcome = error(-32800, "cancelled")
        with self._running[id_]:
            outcome = await self._outcome(message)
        del self._running[id_]
        await self._reply(id_, outcome)

    async def _reply(self, id_: int | str | None, outcome: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionClosed):  # run() sees it, too
            await self._send({"id": id_, **outcome})

    async def _outcome(self, message: dict[str, Any]) -> dict[str, Any]:
        method, params = message["method"], message.get("params", [])
        args, named = ([], params) if isinstance(params, dict) else (params, {})
        try:
            handler = self._handlers[method]
        except KeyError:
            return error(-32601, f"no method {method!r}")
        try:
            inspect.signature(handler).bind(self, *args, **named)
        except TypeError as exc:
            return error(-32602, str(exc))
        try:
            return {"result": await handler(self, *args, **named)}
        except RPCError as exc:
            return error(*exc.args)
        except ConnectionClosed:
            return {}  # nobody gets it
        except Exception:
            logger.exception("%s failed", method)
            return error(-32603, "internal error")


# What the two ends here do for each other.


async def add(peer: Peer, one: int, two: int) -> int:
    return one + two


async def greet(peer: Peer) -> str:
    return f"hello, {await peer.call('name')}"  # it calls the caller


async def wait(peer: Peer) -> None:
    try:
        await peer.notify("progress", "waiting")
        await trio.sleep_forever()
    finally:
        print("server: gives up waiting")


async def serve(ws: ServerConnection) -> None:
    await Peer(ws, add=add, greet=greet, wait=wait).run()


async def name(peer: Peer) -> str:
    return "alice"


async def main() -> None:
    waiting = trio.CancelScope()

    async def progress(peer: Peer, what: str) -> None:
        print("client: the server is", what)
        waiting.cancel()

    async with open_server(serve, 0, host="127.0.0.1") as server:
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            peer = Peer(ws, name=name, progress=progress)
            ws.nursery.start_soon(peer.run)
            print("client:", await peer.call("add", 1, 2))
            print("client:", await peer.call("greet"))
            for wrong in ("subtract", 1, 2), ("add", 1):
                try:
                    await peer.call(*wrong)
                except RPCError as exc:
                    print("client:", *exc.args)
            with waiting:
                await peer.call("wait")
            print("client:", await peer.call("add", 3, 4))
            await ws.aclose()


trio.run(main)
