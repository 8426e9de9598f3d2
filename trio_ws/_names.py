"""The names by which tracebacks, pickles and documentation know public objects."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable


def publish(module: str, names: Iterable[str]) -> None:
    """Let classes and functions say that they live where users import them from.

    Without it a traceback names the file that defines an exception, which may move,
    and a pickle would be of no use after that.
    """
    namespace = vars(sys.modules[module])
    for name in names:
        if inspect.isclass(namespace[name]) or inspect.isfunction(namespace[name]):
            namespace[name].__module__ = module
