"""A cluster in one command: a redis-server, and processes that share a port.

    python -m examples.cluster                                  a Redis of its own
    python -m examples.cluster --redis redis://10.0.0.5:6379    on each host

Then, for instance: trio-ws connect "ws://localhost:8765/tea?name=alice"
"""

import argparse
import importlib.util
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress

import trio

NO_REDIS = """\
redis-server is missing: apt-get install redis-server, or name one that runs, \
by --redis redis://HOST:6379"""


def redis_command(port: int, folder: str, *options: str) -> list[str]:
    """Return the command of a Redis that still has, after a kill, what it has told."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit(NO_REDIS)
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    return [*command, "--dir", folder, "--appendonly", "yes", *options]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)


async def keep(command: list[str]) -> None:
    ended = await trio.run_process(command, check=False)  # a cancellation ends it
    print("a process has ended with", ended.returncode, flush=True)


async def run(processes: int, port: int, redis: str) -> None:
    from .redis_link import FAILED, open_client  # once it is known to be importable

    try:
        async with open_client(redis):
            pass
    except* FAILED:
        sys.exit(f"no Redis answers at {redis}: is it running there?")
    command = [sys.executable, "-m", "examples.cluster.server", redis, str(port)]

    async def stop() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as stops:
            await anext(stops)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        async with trio.open_nursery() as serving:
            for _ in range(processes):
                serving.start_soon(keep, command)
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.cluster")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--redis", help="the URI of one that runs")
    options = parser.parse_args()
    if importlib.util.find_spec("coredis") is None:
        sys.exit('coredis is missing: pip install "coredis>=6.9"')
    with ExitStack() as stack:
        redis = options.redis
        if redis is None:
            port = free_port()
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            command = redis_command(port, folder)
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.DEVNULL)
            )
            stack.callback(process.terminate)
            redis = f"redis://127.0.0.1:{port}"
            print(f"redis-server {process.pid} at {redis}", flush=True)
            wait_for(port)
        trio.run(run, options.processes, options.port, redis)


if __name__ == "__main__":
    main()
