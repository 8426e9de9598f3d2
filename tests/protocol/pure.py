"""A second copy of trio_ws._protocol, in Python, whatever the first one is."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pathlib
import sys
from types import ModuleType
from unittest import mock

import trio_ws._protocol

NAME = "pure_protocol"
FOLDER = pathlib.Path(trio_ws._protocol.__file__).parent


def load(module: str) -> ModuleType:
    """Import a module of the copy."""
    if NAME not in sys.modules:
        # Another name for the folder, which has a finder of its own.
        spec = importlib.util.spec_from_file_location(
            NAME,
            FOLDER / "__init__.py",
            submodule_search_locations=[os.path.join(FOLDER, ".")],
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        with mock.patch.dict(os.environ, TRIO_WS_PURE="1"):
            spec.loader.exec_module(package)
        sys.modules[NAME] = package
    with mock.patch.dict(os.environ, TRIO_WS_PURE="1"):
        return importlib.import_module(f"{NAME}.{module}")
