"""Wine has no answer where trio asks for layered providers: the socket itself is it.

Python imports this when it starts; trio's module for Windows is changed once it is
imported. On Windows itself nothing of this is needed.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Finder:
    """Finds one module, and changes what looks for the socket below another."""

    name = "trio._core._io_windows"

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            _answer_all(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _answer_all(module: Any) -> None:
    ask, base = module._get_underlying_socket, module.WSAIoctls.SIO_BASE_HANDLE

    def answer(sock: object, *, which: object = base) -> object:
        try:
            return ask(sock, which=which)
        except OSError:
            return ask(sock, which=base)

    module._get_underlying_socket = answer


if sys.platform == "win32":
    sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
