"""Several processes on one port; SIGHUP replaces them, and nobody is refused.

The first process opens the socket, which all listen on, and serves nobody itself. New
ones run the code as it is then; the old ones end once the new ones listen. One that
dies is replaced, and none outlives the first.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import trio

from trio_ws import ServerConnection, open_server

assert sys.platform != "win32"  # which can't hand over a listening socket so

WORKERS = 2
START_TIMEOUT = 30  # seconds until a worker has to listen
STOP_TIMEOUT = 10  # until it has to have ended
FIRST_PAUSE, LAST_PAUSE = 1, 60  # before one that died is replaced

log = logging.getLogger("workers")

# A worker


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(f"{os.getpid()} says {message!s}")


async def work(sock: socket.socket, link: socket.socket) -> None:
    async with open_server(echo, listeners=[sock]) as server:
        link.send(b"!")
        # Whoever is connecting may, before those who are connected have to go.
        await server.aclose_on_signal(signal.SIGTERM, open_grace=2, timeout=5)


def follow(link: socket.socket) -> None:
    """End this process once the supervisor has, which never writes to the link."""
    with suppress(ConnectionResetError):
        link.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_TIMEOUT)
    os.kill(os.getpid(), signal.SIGKILL)


# The supervisor


async def run_worker(sock: socket.socket, listens: Callable[[], None]) -> None:
    """Run one until it ends; raise ChildProcessError if it never gets to listen."""
    ours, theirs = socket.socketpair()  # each end tells when the other process ends
    with trio.socket.from_stdlib_socket(ours) as link:
        with theirs:
            descriptors = sock.fileno(), theirs.fileno()
            process = await trio.lowlevel.open_process(
                [sys.executable, __file__, *map(str, descriptors)],
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl+C is for the supervisor alone
            )
        try:
            ready = b""
            with trio.move_on_after(START_TIMEOUT):
                ready = await link.recv(1)
            if not ready:
                raise ChildProcessError(f"worker {process.pid} doesn't listen")
            listens()
            code = await process.wait()
            log.warning("worker %d has ended with %d", process.pid, code)
        finally:
            process.terminate()
            with trio.move_on_after(STOP_TIMEOUT, shield=True):
                await process.wait()
            process.kill()


async def keep_worker(
    sock: socket.socket, *, task_status: trio.TaskStatus[None]
) -> None:
    """Run one, which has to start, and another one whenever it dies."""
    began = trio.current_time()
    await run_worker(sock, task_status.started)
    pause = FIRST_PAUSE
    while True:
        if trio.current_time() > began + LAST_PAUSE:
            pause = FIRST_PAUSE
        log.warning("another one starts in %g s", pause)
        await trio.sleep(pause)
        began, pause = trio.current_time(), min(2 * pause, LAST_PAUSE)
        try:
            await run_worker(sock, lambda: None)
        except OSError as error:
            log.error("%s", error)


async def keep_workers(
    sock: socket.socket, *, task_status: trio.TaskStatus[trio.CancelScope]
) -> None:
    """Keep all; they have started once all listen. What is returned then ends them."""
    async with trio.open_nursery() as nursery:
        for _ in range(WORKERS):
            await nursery.start(keep_worker, sock)
        task_status.started(nursery.cancel_scope)


async def renew(sock: socket.socket, hangups: trio.MemoryReceiveChannel[None]) -> None:
    """Put new workers in the place of the old ones, each time."""
    current: trio.CancelScope | None = None
    async with trio.open_nursery() as nursery:
        async for _ in hangups:
            try:
                new = await nursery.start(keep_workers, sock)
            except* OSError as errors:
                log.error("new workers can't start: %s", errors.exceptions[0])
                if current is None:
                    raise
            else:
                log.info("new workers serve")
                if current is not None:
                    current.cancel()
                current = new


async def supervise(sock: socket.socket) -> None:
    hang_up, hangups = trio.open_memory_channel[None](1)
    hang_up.send_nowait(None)  # for the first workers
    signals = signal.SIGHUP, signal.SIGTERM, signal.SIGINT
    with trio.open_signal_receiver(*signals) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew, sock, hangups)
            async for number in received:
                if number != signal.SIGHUP:
                    nursery.cancel_scope.cancel()
                    break
                with suppress(trio.WouldBlock):  # one waits already
                    hang_up.send_nowait(None)
    log.info("stopped")


if len(sys.argv) > 1:
    inherited, link = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    threading.Thread(target=follow, args=[link], daemon=True).start()
    trio.run(work, inherited, link)
else:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with socket.create_server(("127.0.0.1", 8765), backlog=4096) as sock:
        try:
            trio.run(supervise, sock)
        except* ChildProcessError:
            sys.exit(1)  # the log says why
