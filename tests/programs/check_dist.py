"""Check a distribution file where it has just been installed.

    PYTHON -I tests/programs/check_dist.py dist/FILE {compiled,python}

PYTHON is the one that it was installed for, and -I keeps this checkout off its path.
The second word says which codec should be in use.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import trio_ws
from trio_ws._protocol.frames.decoder import Decoder
from trio_ws._protocol.frames.encoder import encode

SOURCES = Path(__file__).parents[2] / "trio_ws"


def files(folder: Path, pattern: str) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob(pattern)}


def main() -> None:
    name, kind = sys.argv[1:]
    installed = Path(trio_ws.__file__).parent
    assert installed.is_relative_to(sys.prefix), installed
    assert (installed / "py.typed").is_file(), "no py.typed"
    for pattern in ("*.py", "*.pxd", "*.html"):
        assert files(installed, pattern) == files(SOURCES, pattern)
    assert not files(installed, "*.c"), "generated files"
    assert importlib.metadata.version("trio_ws") == trio_ws.__version__
    assert trio_ws.codec() == kind, trio_ws.codec()
    frame = encode(1, b"hi", True, True)
    assert isinstance(frame, bytes)
    assert Decoder(masked=True, max_size=None).feed(frame) == ["hi"]
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert callable(scripts["trio-ws"].load())
    print("trio_ws", trio_ws.__version__, "imported from", name, kind)


if __name__ == "__main__":
    main()
