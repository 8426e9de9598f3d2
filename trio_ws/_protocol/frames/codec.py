"""Which code makes and parses frames: compiled, or Python."""

from __future__ import annotations

from types import FunctionType
from typing import Literal

from .encoder import encode


def codec() -> Literal["compiled", "python"]:
    """Tell whether frames are made and parsed by compiled code or by Python.

    Both do the same. The code is compiled where trio_ws was installed on CPython with
    a C compiler at hand; ``TRIO_WS_PURE=1`` in the environment when trio_ws is
    imported makes it Python all the same, where there are sources, as there aren't in
    what PyInstaller makes; so does a free-threaded Python while its GIL is off.
    """
    return "python" if isinstance(encode, FunctionType) else "compiled"
