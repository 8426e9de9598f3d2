"""How Sphinx builds the documentation; ``make docs`` does it."""

import sys
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from werkzeug.routing import Map

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.programs.benchmarks
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import trio_ws
import trio_ws.extensions
from trio_ws._server import routing

project = "trio_ws"
author = "trio_ws contributors"
version = release = trio_ws.__version__

extensions = ["sphinx.ext.autodoc", "complete", "measured", "faults", "run"]
exclude_patterns = ["_ext", "snippets", "rivals_table.rst"]  # the last is included
default_role = "code"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# A name that only type checkers import; with it, the signature's others are found, too.
autodoc_type_aliases = {"Map": "werkzeug.routing.Map"}

# Every reference must have its target; names of other packages have none here,
# and private ones (types of keywords) have none at all.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"trio_ws\._.*"),
    (r"py:.*", r"(trio|_?ssl|logging|socket|collections|uuid|enum)\..*"),
    (r"py:.*", r"(typing|functools|types|os|werkzeug)\..*"),
]

html_theme = "furo"
html_title = f"trio_ws {version}"
html_copy_source = False
html_show_copyright = False


# What annotations name that is imported for type checkers alone; without it, none of a
# function's annotations can be looked up.
routing.__dict__["Map"] = Map


def find_definitions(module: ModuleType) -> None:
    """Show autodoc the files that define the public names of a module.

    Those names say that they live in ``module``, whose source has neither the order of
    their members nor what stands below an attribute.
    """
    shown = ModuleAnalyzer.for_module(module.__name__)
    shown.analyze()
    for name in [name for name in sys.modules if name.startswith("trio_ws._")]:
        if not str(sys.modules[name].__file__).endswith(".py"):
            continue  # compiled: nothing public is defined there
        defining = ModuleAnalyzer.for_module(name)
        defining.analyze()
        public = {one for one in module.__all__ if one in defining.tags}
        for tag, order in defining.tagorder.items():
            if tag.partition(".")[0] in public:
                shown.tagorder[tag] = order
        for key, text in defining.attr_docs.items():
            if key[0].partition(".")[0] in public:
                shown.attr_docs[key] = text


def leave_out_types(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Leave out the docstring of a datum, which is that of its type."""
    if what == "data":
        lines.clear()


def setup(app: Sphinx) -> None:
    """Register what autodoc is to call."""
    for module in (trio_ws, trio_ws.extensions):
        find_definitions(module)
    app.connect("autodoc-process-docstring", leave_out_types)
