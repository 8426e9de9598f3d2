"""The ``run`` directive: shows a snippet and what it prints, by running it.

.. code-block:: rst

   .. run:: lost.py
      :only: output
      :expect: no close frame received or sent
         Connection reset by peer
      :exit: 1

``only`` is ``code`` or ``output``; without it both are shown. The build fails if
the exit code isn't ``exit`` (0 by default), or if a line of ``expect`` isn't part
of the output.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from snippets import SNIPPETS, Use, lines, problems, run, shown
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

run_once = functools.cache(run)


class Run(SphinxDirective):
    """Run a script of docs/snippets and show it, its output, or both."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {
        "only": lambda value: directives.choice(value, ("code", "output")),
        "expect": lines,
        "exit": directives.nonnegative_int,
    }

    def run(self) -> list[nodes.Node]:
        """Make the blocks."""
        name = self.arguments[0]
        self.env.note_dependency(str(SNIPPETS / name))
        use = Use(
            self.env.docname,
            name,
            self.options.get("expect", ()),
            self.options.get("exit", 0),
        )
        outcome = run_once(name)
        wrong = problems(use, outcome)
        if wrong:
            raise self.error("\n".join(wrong))
        only = self.options.get("only")
        blocks: list[nodes.Node] = []
        if only != "output":
            blocks.append(self._block(shown(name), "python"))
        if only != "code" and outcome.output:
            blocks.append(self._block(outcome.output, "text"))
        return blocks

    def _block(self, text: str, language: str) -> nodes.literal_block:
        block = nodes.literal_block(text, text, language=language)
        self.set_source_info(block)
        return block


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("run", Run)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
