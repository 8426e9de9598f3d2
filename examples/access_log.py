"""Write a line of JSON for each connection once it has ended, or was refused.

Those that send no whole request have none: server.statistics() counts them. The lines
go by logging: who reads them may go away, or a disk be full, and no connection minds.
"""

import functools
import json
import logging
import sys
import time

import trio

from trio_ws import (
    InvalidStatus,
    Request,
    Response,
    ServerConnection,
    connect,
    open_server,
)

log = logging.getLogger("access")


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


def write_line(ws: ServerConnection, code: int | None, sent: int) -> None:
    """Write a line; json.dumps() escapes what the client has written."""
    now = ws.statistics()
    address = ws.remote_address  # on a Unix socket it is no tuple
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "address": str(address[0] if isinstance(address, tuple) else address),
        "path": ws.request.path,
        "code": code,  # of the close frame; of HTTP, if the connection was refused
        "duration": round(now.age, 3),
        "bytes_received": now.bytes_received,
        "bytes_sent": sent,
    }
    log.info("%s", json.dumps(line))


async def log_end(ws: ServerConnection) -> None:
    """Log a connection once it is closed, however it ends."""
    await ws.wait_closed()
    write_line(ws, ws.close_code, ws.statistics().bytes_sent)


def log_response(
    nursery: trio.Nursery, ws: ServerConnection, request: Request, response: Response
) -> None:
    """Log a refusal at once, and a connection later, by a task outside of it."""
    if response.status_code == 101:
        nursery.start_soon(log_end, ws)
    else:
        write_line(ws, response.status_code, len(response.body))


async def main() -> None:
    log.addHandler(logging.StreamHandler(sys.stdout))
    log.setLevel(logging.INFO)
    async with trio.open_nursery() as nursery:
        async with open_server(
            echo,
            0,
            host="127.0.0.1",
            origins=[None],
            process_response=functools.partial(log_response, nursery),
        ) as server:
            uri = f"ws://127.0.0.1:{server.port}"
            async with connect(f"{uri}/chat", compression=None) as ws:
                await ws.send("Hello!")
                await ws.recv()
            try:
                async with connect(f"{uri}/chat?x=1", origin="https://example.org"):
                    pass
            except InvalidStatus:
                pass


if __name__ == "__main__":
    trio.run(main)
