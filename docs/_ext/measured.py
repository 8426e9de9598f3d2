"""The ``measured`` directive: tables and pictures from docs/performance.json.

.. code-block:: rst

   .. measured:: round trip
      :pictures: 32 B; 64 KiB

The argument is the title of a table of tests/programs/benchmarks/report.py, up to its
colon, or ``about``. The build fails if the file has no such thing.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tests.programs.benchmarks import report

MEASURED = Path(__file__).resolve().parents[1] / "performance.json"


@functools.cache
def results() -> Any:
    """Read the file once."""
    return json.loads(MEASURED.read_text(encoding="utf-8"))


class Measured(SphinxDirective):
    """Show a table, after pictures of some of its columns."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {
        "pictures": lambda value: [case.strip() for case in value.split(";")]
    }

    def run(self) -> list[nodes.Node]:
        """Make them."""
        self.env.note_dependency(str(MEASURED))
        name = self.arguments[0]
        if name == "about":
            return self.parse_text_to_nodes(report.about_text(results()))
        try:
            table = report.tables(results(), brief=True)[name]
            pictures = [
                report.picture(results(), name, case)
                for case in self.options.get("pictures", ())
            ]
        except KeyError as error:
            raise self.error(f"{MEASURED.name} has no {name!r}: {error}") from None
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in table.head, *table.rows:
            lines += [
                f"   {'*' if number == 0 else ' '} - {cell}"
                for number, cell in enumerate(row)
            ]
        return [
            *self.parse_text_to_nodes(table.note),
            *(nodes.raw("", picture, format="html") for picture in pictures),
            *self.parse_text_to_nodes("\n".join(lines)),
        ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
