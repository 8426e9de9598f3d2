"""How Sphinx builds the documentation; ``make docs`` does it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.programs.benchmarks
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import trio_ws
import trio_ws.extensions

project = "trio_ws"
author = "trio_ws contributors"
version = release = trio_ws.__version__

extensions = ["sphinx.ext.autodoc", "measured", "run"]
exclude_patterns = ["_ext", "snippets"]
default_role = "code"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

# Every reference must have its target; names of other packages have none here,
# and private ones (types of keywords) have none at all.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"trio_ws\._.*"),
    (r"py:.*", r"(trio|ssl|logging|socket|collections|uuid|enum)\..*"),
    (r"py:.*", r"(typing|functools|types|os)\..*"),
]

html_theme = "furo"
html_title = f"trio_ws {version}"
html_copy_source = False
html_show_copyright = False


def _show_public_names() -> None:
    """Let types appear by the names that users import them by."""
    for name in trio_ws.__all__:
        thing = getattr(trio_ws, name)
        if getattr(thing, "__module__", "").startswith("trio_ws."):
            thing.__module__ = "trio_ws"
    for name in trio_ws.extensions.__all__:
        if name != "ExtensionParameter":  # an alias, of a tuple
            getattr(trio_ws.extensions, name).__module__ = "trio_ws.extensions"


_show_public_names()
