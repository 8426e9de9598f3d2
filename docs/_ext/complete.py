"""What is public is in the reference, and so in the index.

Classes that are made of plain values say in their own docstring what each is; here each
gets an entry. When the build has read all pages, what has no entry is a
warning, which fails it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import trio_ws
import trio_ws.exceptions
import trio_ws.extensions
import trio_ws.testing

logger = logging.getLogger(__name__)

MODULES = (trio_ws, trio_ws.exceptions, trio_ws.extensions, trio_ws.testing)

# Public by their names alone: other parts of the package use them.
INTERNAL = {
    "trio_ws.Attempt.lasted",
    "trio_ws.Attempt.why",
    "trio_ws.Headers.from_valid",
    "trio_ws.Options.close_seconds",
    "trio_ws.Options.max_messages",
    "trio_ws.Options.max_waiting",
    "trio_ws.Options.open_seconds",
    "trio_ws.Options.open_timed_out",
    "trio_ws.Options.stall_timeout",
    "trio_ws.extensions.PerMessageDeflate.bits_for",
    "trio_ws.extensions.PerMessageDeflate.compressed_alone",
    "trio_ws.extensions.PerMessageDeflate.decoding",
    "trio_ws.extensions.PerMessageDeflate.deflate_message",
    "trio_ws.extensions.PerMessageDeflate.forget",
    "trio_ws.extensions.PerMessageDeflate.inflate_message",
}


def public() -> Iterator[str]:
    """Yield the full name of all that is public: names, then members."""
    seen = set()
    for module in MODULES:
        for name in module.__all__:
            thing = getattr(module, name)
            known = f"{module.__name__}.{name}"
            if hasattr(trio_ws, name):  # where most exceptions are, too
                known = f"trio_ws.{name}"
            if known in seen:
                continue
            seen.add(known)
            yield known
            if inspect.isclass(thing):
                members = (f"{known}.{member}" for member in own_members(thing))
                yield from (full for full in members if full not in INTERNAL)


def own_members(cls: type[Any]) -> Iterator[str]:
    """Yield the public attributes and methods that a class itself defines."""
    names = [*vars(cls), *inspect.get_annotations(cls), *set_by_init(cls)]
    for name in dict.fromkeys(names):
        # What other libraries call otherwise is there only to say so.
        hint = type(vars(cls).get(name)).__module__.endswith(".elsewhere")
        if not name.startswith("_") and not hint and not overrides(cls, name):
            yield name


def set_by_init(cls: type[Any]) -> Iterator[str]:
    """Yield the attributes that the class's own __init__ sets."""
    init = vars(cls).get("__init__")
    if not inspect.isfunction(init):
        return
    try:
        source = inspect.getsource(init)
    except OSError:  # what dataclasses make has none, and its fields are known
        return
    for node in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                yield node.attr


def overrides(cls: type[Any], name: str) -> bool:
    """Tell whether a class of this package above it, or any exception, has it."""
    return any(
        name in {*vars(base), *inspect.get_annotations(base), *set_by_init(base)}
        for base in cls.__mro__[1:]
        if base.__module__.startswith("trio_ws") or base is BaseException
    )


def described(cls: type[Any]) -> Iterator[str]:
    """Yield the members that only the docstring of their class describes."""
    text = inspect.getdoc(cls) or ""
    for member in own_members(cls):
        value = vars(cls).get(member)
        own = inspect.isroutine(value) or isinstance(value, property | classmethod)
        if not own and f"``{member}``" in text:
            yield member


def add_entries(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Give those an entry in the index, which leads to their class."""
    if inspect.isclass(thing):
        for member in described(thing):
            entry = [f".. py:attribute:: {member}", "   :no-typesetting:", ""]
            lines[:0] = entry


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of what is public and has no entry."""
    known = env.domains.python_domain.objects
    for name in public():
        if name not in known:
            logger.warning("not in the reference: %s", name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register both."""
    app.connect("autodoc-process-docstring", add_entries)
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
