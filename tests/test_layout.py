"""Who may know whom in trio_ws, and how long its parts are."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_ws

FOLDER = Path(trio_ws.__file__).parent

# From top to bottom: a module imports of its own line and of those below. A room is a
# module or all of a folder; the longest name that fits a module is the room it is in.
LAYERS = (
    "__main__",
    "_command",
    "__init__ testing exceptions extensions",
    "_testing",
    "_client _server",
    "_connection",
    "_endpoint",
    "_transports",
    "_protocol.engine",
    "_protocol.handshake _protocol.frames",
    "_protocol.extensions",
    "_protocol.uri _protocol.closing",
    "_protocol.errors",
    "_protocol.http _protocol.opcodes _protocol.escaping _protocol.strangers "
    "_protocol.limits",
    # Importing whatever is in a folder imports this first.
    "_protocol.__init__",
    "_version _names",
)
RANKS = {room: rank for rank, line in enumerate(LAYERS) for room in line.split()}
STRANGERS = {"_client", "_server"}

# Each with its reason.
LONG_FUNCTIONS = {
    "_protocol.frames.decoder: Decoder._parse": (
        "the hot loop: a call for each frame would be most of its time"
    ),
}
# connection._writer is how broadcast() comes to what users don't see.
DOORS = {("_connection.broadcast", "_writer")}

MAX_MODULE, MAX_FUNCTION = 450, 50


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(FOLDER).with_suffix("").parts)


SOURCES = {
    name_of(path): path.read_text(encoding="utf-8")
    for path in sorted(FOLDER.rglob("*.py"))
}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}


def room_of(module: str) -> str:
    parts = module.split(".")
    prefixes = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in RANKS), module)


# Imports


def cimports(module: str) -> ast.Module:
    """What compiled code imports besides; a .pxd is no Python."""
    path = FOLDER.joinpath(*module.split(".")).with_suffix(".pxd")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = re.findall(r"^\s*((?:from \S+ )?)c(import .+)$", text, re.M)
    return ast.parse("\n".join("".join(line) for line in lines))


def file_of(dotted: str) -> str | None:
    """Return the name, in SOURCES, of a module or a package."""
    inner = f"{dotted}.__init__".removeprefix(".")
    return next((name for name in (dotted, inner) if name in SOURCES), None)


def imports_of(module: str, tree: ast.AST) -> Iterator[str]:
    """The modules of trio_ws that this one imports, in whatever block."""
    package = module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            absolute = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = [node.module] if node.module else []
            if node.level:
                start = ["trio_ws", *package[: len(package) + 1 - node.level], *start]
            origin = ".".join(start)
            absolute = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for dotted in absolute:
            if dotted.split(".")[0] == "trio_ws":
                inside = dotted.removeprefix("trio_ws").removeprefix(".")
                # What is no module is a name that its parent defines.
                found = file_of(inside) or file_of(inside.rpartition(".")[0])
                assert found is not None, f"{module} imports {dotted}"
                yield found


IMPORTS = {
    module: {
        other
        for source in (tree, cimports(module))
        for other in imports_of(module, source)
    }
    for module, tree in TREES.items()
}


def test_each_module_has_a_place() -> None:
    rooms = {room_of(module) for module in SOURCES}
    assert rooms == set(RANKS)


def test_imports_are_seen() -> None:
    """Wherever they stand, and in each form that there is."""
    source = """
from ..frames import decoder
from . import fields
from .. import prefer_sources
if TYPE_CHECKING:
    from ..http.headers import Headers
def f():
    import trio_ws._protocol.uri, trio
    from trio_ws import connect
    """
    assert set(imports_of("_protocol.handshake.new", ast.parse(source))) == {
        "_protocol.frames.decoder",
        "_protocol.handshake.fields",
        "_protocol.__init__",
        "_protocol.http.headers",
        "_protocol.uri",
        "__init__",
    }
    compiled = imports_of("_protocol.engine", cimports("_protocol.engine"))
    assert "_protocol.frames.decoder" in set(compiled)


def test_imports_go_down() -> None:
    up = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in sorted(others)
        if RANKS[room_of(other)] < RANKS[room_of(module)]
        or {room_of(module), room_of(other)} == STRANGERS
    ]
    assert up == []


def test_imports_make_no_circle() -> None:
    """Neither of modules nor of rooms."""
    rooms: dict[str, set[str]] = {}
    for module, others in IMPORTS.items():
        room = room_of(module)
        rooms.setdefault(room, set()).update(set(map(room_of, others)) - {room})
    for graph in (IMPORTS, rooms):
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as exc:
            pytest.fail(" < ".join(exc.args[1]))


# Private names


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def targets_of(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


def defined_in(tree: ast.AST) -> Iterator[str]:
    """The names that a file gives to what it makes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if is_own(node.value):
                yield node.attr
        elif any(
            isinstance(t, ast.Name) and t.id == "__slots__" for t in targets_of(node)
        ):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def foreign_names(tree: ast.AST) -> Iterator[str]:
    """The private names that a file uses and another defines."""
    own = set(defined_in(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if is_private(node.attr) and node.attr not in own:
                if not is_own(node.value):
                    yield node.attr
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            yield from (n for n in names if is_private(n) and n not in RANKS)


def test_private_names_are_seen() -> None:
    source = """
from .other import _helper, open_it
from . import _names
class A(B):
    __slots__ = ("_in_slots",)
    _of_class: int = 1
    def __init__(self, x):
        self._assigned = x
        self._inherited()
    def _method(self): pass
def f(a, b):
    a._in_slots, a._of_class, a._assigned, a._method, a.__class__, a.public
    b._inherited, b.c._deeper
    b._stored = 1
    """
    assert set(foreign_names(ast.parse(source))) == {
        "_helper",
        "_inherited",
        "_deeper",
        "_stored",
    }


def test_private_names_stay_in_their_file() -> None:
    found = {
        (module, name) for module, tree in TREES.items() for name in foreign_names(tree)
    }
    assert found == DOORS


# Lengths


def functions_of(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Each function's name and number of lines, those in others included."""
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{child.name}".removeprefix(".")
            if not isinstance(child, ast.ClassDef):
                assert child.end_lineno is not None
                yield name, child.end_lineno - child.lineno + 1
        yield from functions_of(child, name)


def test_functions_are_short() -> None:
    long = {
        f"{module}: {name}"
        for module, tree in TREES.items()
        for name, lines in functions_of(tree)
        if lines > MAX_FUNCTION
    }
    assert long == set(LONG_FUNCTIONS)


def test_modules_are_short() -> None:
    sizes = {module: len(source.splitlines()) for module, source in SOURCES.items()}
    assert {m: size for m, size in sizes.items() if size > MAX_MODULE} == {}
