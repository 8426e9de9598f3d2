"""Several processes on one port; SIGHUP replaces them, and nobody is refused.

The first process opens the socket, which all listen on, and serves nobody itself. A
new process runs the code as it is then; an old one ends once a new one listens.
"""

import functools
import os
import signal
import socket
import sys

import trio

from trio_ws import ServerConnection, open_server

assert sys.platform != "win32"  # which can't hand over a listening socket so

WORKERS = 2


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(f"{os.getpid()} says {message!s}")


async def work(descriptor: int, ready: int) -> None:
    sock = socket.socket(fileno=descriptor)
    async with open_server(echo, listeners=[sock]) as server:
        os.write(ready, b"!")
        # Whoever is connecting may, before those who are connected have to go.
        await server.aclose_on_signal(signal.SIGTERM, open_grace=2, timeout=5)


async def start(nursery: trio.Nursery, descriptor: int) -> trio.Process | None:
    """Start a process; return it once it listens, None if it fails before."""
    reading, ready = os.pipe()
    run = functools.partial(
        trio.run_process,
        [sys.executable, __file__, str(descriptor), str(ready)],
        pass_fds=[descriptor, ready],
        check=False,
        start_new_session=True,  # Ctrl+C is for the supervisor alone
    )
    process: trio.Process = await nursery.start(run)
    os.close(ready)
    async with trio.lowlevel.FdStream(reading) as stream:
        return process if await stream.receive_some() else None


async def supervise(sock: socket.socket) -> None:
    signals = signal.SIGHUP, signal.SIGTERM, signal.SIGINT
    with trio.open_signal_receiver(*signals) as received:
        async with trio.open_nursery() as nursery:
            workers = [await start(nursery, sock.fileno()) for _ in range(WORKERS)]
            print("serving", flush=True)
            async for number in received:
                for index, old in enumerate(workers):
                    new = None
                    if number == signal.SIGHUP:
                        new = await start(nursery, sock.fileno())
                        if new is None:
                            print("a new one fails, the old one goes on", flush=True)
                            continue
                    if old is not None:
                        old.terminate()
                    workers[index] = new
                if number != signal.SIGHUP:
                    break
    print("stopped")


if len(sys.argv) > 1:
    inherited, ready = map(int, sys.argv[1:])
    trio.run(work, inherited, ready)
else:
    with socket.create_server(("127.0.0.1", 8765), backlog=4096) as sock:
        trio.run(supervise, sock)
