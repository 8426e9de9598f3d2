"""Check trio_ws where it has just been installed from a file of a release.

    PYTHON -I tests/programs/check_dist.py {compiled,python}

PYTHON is the one that it was installed for, and -I keeps this checkout off its path.
The word says which codec should be in use.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

import trio

import trio_ws

SOURCES = Path(__file__).parents[2] / "trio_ws"


def files(folder: Path, pattern: str) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob(pattern)}


async def echo(ws: trio_ws.ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def round_trips() -> None:
    with trio.fail_after(60):
        async with trio_ws.open_server(echo, 0, host="127.0.0.1") as server:
            uri = f"ws://127.0.0.1:{server.port}/"
            async with trio_ws.connect(uri, proxy=None) as ws:
                for message in "hi", b"\x00" * 100_000, "hi" * 1000:
                    await ws.send(message)
                    assert await ws.recv() == message


def main() -> None:
    (kind,) = sys.argv[1:]
    installed = Path(trio_ws.__file__).parent
    assert installed.is_relative_to(sys.prefix), installed
    assert (installed / "py.typed").is_file(), "no py.typed"
    for pattern in ("*.py", "*.pxd", "*.html"):
        assert files(installed, pattern) == files(SOURCES, pattern)
    assert not files(installed, "*.c"), "generated files"
    assert importlib.metadata.version("trio_ws") == trio_ws.__version__
    assert trio_ws.codec() == kind, trio_ws.codec()
    trio.run(round_trips)
    command = Path(sysconfig.get_path("scripts"), "trio-ws")
    said = subprocess.run(
        [command, "--version"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    assert said.startswith(f"trio-ws {trio_ws.__version__}, Python "), said
    version = sys.version.partition(" ")[0]
    print(f"trio_ws {trio_ws.__version__} on Python {version}: {kind}, as it should be")


if __name__ == "__main__":
    main()
