"""Stream a large file to a server and from it; go on where a transfer was cut off.

A chunk is a message. Who can't store it yet makes the other wait: during ``write()`` no
message is taken, so reading pauses, TCP's window closes, and at the other end the
``send()`` waits. Whatever the size of the file, a side holds less than two ``max_size``
of it. The receiver says how much it has, the sender begins there, and a checksum of the
whole comes last. To run it: python large_file.py [MIB]
"""

import filecmp
import functools
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import trio

from trio_ws import (
    Connection,
    ConnectionClosedError,
    ServerConnection,
    connect,
    open_server,
)

CHUNK = 2**16


async def send_file(ws: Connection, path: Path) -> None:
    """Send what the other side lacks of a file, then its checksum."""
    answer = str(await ws.recv())
    if not re.fullmatch("[0-9]{1,19}", answer):
        raise ValueError("how much of it do you have?")
    have = int(answer)
    digest = hashlib.sha256()
    position = 0
    async with await trio.open_file(path, "rb") as file:
        while chunk := await file.read(CHUNK):
            digest.update(chunk)
            if rest := chunk[max(0, have - position) :]:
                await ws.send(rest)
            position += len(chunk)
    await ws.send(digest.hexdigest())


async def receive_file(
    ws: Connection, path: Path, progress: Callable[[int], None] = lambda size: None
) -> None:
    """Receive a file, or the rest of it; ``path`` has it once it is whole."""
    part = path.with_name(f"{path.name}.part")
    digest = hashlib.sha256()
    async with await trio.open_file(part, "a+b") as file:
        await file.seek(0)
        while chunk := await file.read(CHUNK):
            digest.update(chunk)
        size = await file.tell()
        await ws.send(str(size))
        while isinstance(message := await ws.recv(), bytes):
            await file.write(message)
            digest.update(message)
            size += len(message)
            progress(size)
    if message != digest.hexdigest():
        part.unlink()  # or it would never be right
        raise ValueError("it isn't what was sent")
    part.replace(path)


async def files(folder: Path, ws: ServerConnection) -> None:
    """Serve the files of a folder: ``get NAME`` or ``put NAME``, one a connection."""
    try:
        request = re.fullmatch(r"(get|put) (\w[\w.-]{0,50})", str(await ws.recv()))
        if request is None:  # or a name that leads out of the folder
            raise ValueError("get NAME or put NAME")
        path = folder / request[2]
        if request[1] == "put":  # two who put one name at a time are up to you
            await receive_file(ws, path)
            await ws.send("stored")
        elif path.is_file():
            await send_file(ws, path)
        else:
            await ws.aclose(4404, "no such file")
    except ValueError as exc:
        await ws.aclose(1008, str(exc))
    except ConnectionClosedError:
        pass  # the client may come again


async def upload(uri: str, path: Path) -> None:
    async with connect(uri, compression=None) as ws:
        await ws.send(f"put {path.name}")
        await send_file(ws, path)
        print("upload:", await ws.recv())


async def download(
    uri: str, path: Path, progress: Callable[[int], None] = lambda size: None
) -> None:
    async with connect(uri, compression=None) as ws:
        await ws.send(f"get {path.name}")
        await receive_file(ws, path, progress)


def fail_at(limit: int, size: int) -> None:
    if size >= limit:
        raise OSError(f"cut off after {size / 2**20:.2f} MiB")


async def main(mib: int, there: Path, here: Path) -> None:
    original, copy = here / "large.bin", here / "copy" / "large.bin"
    copy.parent.mkdir()
    with original.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(2**20))
    serve = functools.partial(files, there)
    async with open_server(serve, 0, host="127.0.0.1") as server:
        uri = f"ws://127.0.0.1:{server.port}/"
        await upload(uri, original)
        try:
            await download(uri, copy, functools.partial(fail_at, mib * 2**19))
        except OSError as exc:
            print("download:", exc)
        await download(uri, copy)
        print("download: all of it:", filecmp.cmp(original, copy, False))


if __name__ == "__main__":
    mib, *more = sys.argv[1:] or ["8"]
    if more or not re.fullmatch("[1-9][0-9]*", mib):
        sys.exit(__doc__)
    with (
        tempfile.TemporaryDirectory() as there,
        tempfile.TemporaryDirectory() as here,
    ):
        trio.run(main, int(mib), Path(there), Path(here))
