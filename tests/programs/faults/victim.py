"""A server to which things are done, with what it notices of them.

    python tests/programs/faults/victim.py LIBRARY OPTIONS

Prints its port, and then answers each line of its input with one of facts, both in
JSON. Its handlers are chosen by the path that a client asks for.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter, process_time, thread_time
from typing import Any

import trio

# A script's path starts at its own folder, and a checkout may not be installed.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.peers.certificates import contexts
from tests.programs.faults import clock, handlers
from tests.programs.rivals.adapters import HOST
from tests.programs.rivals.wire import Ended, Wire

BACKLOG = 8192  # the system's own limit is mostly less
TICK = 0.001


class Pulse:
    """Notices for how long nothing else got its turn, in seconds.

    ``held`` is CPU time, which nobody else on the machine can take from us; ``gap`` is
    time on the wall.
    """

    held = gap = 0.0
    _skip = False

    async def run(self) -> None:
        while True:
            wall, cpu = perf_counter(), thread_time()
            await trio.sleep(TICK)
            if self._skip:
                self._skip = False  # what made us begin anew isn't to be seen
                continue
            self.gap = max(self.gap, perf_counter() - wall - TICK)
            self.held = max(self.held, thread_time() - cpu)

    def reset(self) -> None:
        self.held = self.gap = 0.0
        self._skip = True


class Logged(logging.Handler):
    """Counts what is logged, from warnings on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def memory(name: str) -> int:
    """Return a line of /proc/self/status, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


class Server:
    """Serves by one library, and tells."""

    def __init__(self, library: str, given: dict[str, Any]) -> None:
        self.library = library
        self.secured: bool = given.pop("secured", False)
        self.watch: bool = given.pop("watch", True)
        self.stopping: dict[str, float] = given.pop("stopping", {})
        if given.pop("codec", "isal") == "zlib":
            hidden: dict[str, Any] = sys.modules
            hidden["isal"] = None
        self.options = given
        self.pulse = Pulse()
        self.logged = Logged()
        self.handling = handlers.Handling(Counter())
        self.server: Any = None

    def facts(self) -> dict[str, Any]:
        return {
            "resident": memory("VmRSS"),
            "peak": memory("VmHWM"),
            "held": self.pulse.held * 1000,
            "gap": self.pulse.gap * 1000,
            "cpu": process_time(),
            "descriptors": len(os.listdir("/dev/fd")),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "logged": len(self.logged.lines),
            "lines": self.logged.lines[-3:],
            **self.handling.seen,
        }

    def reset(self) -> None:
        """Begin to notice anew."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM
        self.pulse.reset()

    def do(self, command: dict[str, Any]) -> dict[str, Any]:
        match command.pop("do"):
            case "reset":
                self.reset()
            case "jump":
                clock.JUMPING.jump(command["seconds"])
            case "broadcast":
                return self.handling.broadcast(**command)
            case "descriptors":
                limits = command["most"], resource.getrlimit(resource.RLIMIT_NOFILE)[1]
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        return self.facts()

    async def obey(self) -> None:
        buffer = b""
        async with trio.lowlevel.FdStream(os.dup(0)) as stream:
            async for data in stream:
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    print(json.dumps(self.do(json.loads(line))), flush=True)
        os._exit(0)  # whoever asked has gone

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Serve until cancelled, or told to stop."""
        context = contexts()[1] if self.secured else None
        if self.library == "bare":
            await serve_bare(self.handling, listeners, context, self.options)
        elif self.library == "websockets":
            from websockets.trio.server import serve as theirs

            await theirs(
                self.handling.handle, listeners=listeners, ssl=context, **self.options
            )
        else:
            import trio_ws

            async with trio.open_nursery() as nursery:
                self.server = await nursery.start(
                    self._ours(trio_ws, context), listeners
                )

    def _ours(self, trio_ws: Any, context: Any) -> Callable[..., Awaitable[None]]:
        async def run(
            listeners: list[trio.SocketListener],
            task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
        ) -> None:
            await trio_ws.serve(
                self.handling.handle,
                listeners=listeners,
                ssl=context,
                task_status=task_status,
                **self.options,
            )

        return run

    async def stop(self) -> None:
        """Close in good order on SIGTERM, as docs/stopping.rst has it."""
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                await self.server.aclose(**self.stopping)
                os._exit(0)

    async def main(self) -> None:
        listeners = await trio.open_tcp_listeners(0, host=HOST, backlog=BACKLOG)
        async with trio.open_nursery() as nursery:
            if self.watch:
                nursery.start_soon(self.pulse.run)
            nursery.start_soon(self.obey)
            if self.library == "trio_ws":
                nursery.start_soon(self.stop)
            port = listeners[0].socket.getsockname()[1]
            print(json.dumps({"port": port}), flush=True)
            await self.serve(list(listeners))


async def serve_bare(
    handling: handlers.Handling,
    listeners: list[trio.SocketListener],
    context: Any,
    options: dict[str, Any],
) -> None:
    """Read and, for /echo, send back: what trio itself takes for it."""

    async def handle(stream: Any) -> None:
        wire = Wire(stream, client=False)
        request = b""
        with trio.move_on_after(options.get("open_timeout", 10)):
            request = await wire.shake_hands()
        if not request:
            return
        async for data in stream:
            if request.startswith(b"GET /echo"):
                await stream.send_all(data)

    async def safely(stream: Any) -> None:
        if context is not None:
            stream = trio.SSLStream(stream, context, server_side=True)
        handling.seen["open"] += 1
        try:
            async with stream:
                await handle(stream)
        except (Ended, trio.BrokenResourceError, AttributeError):
            pass
        finally:
            handling.seen["open"] -= 1

    await trio.serve_listeners(safely, listeners)


def main() -> None:
    server = Server(sys.argv[1], json.loads(sys.argv[2]))
    logging.basicConfig(level=logging.WARNING, handlers=[server.logged])
    trio.run(server.main, clock=clock.JUMPING)


if __name__ == "__main__":
    main()
