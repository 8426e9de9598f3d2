"""The ``faults`` directive: the table of docs/faults.json, or ``about`` it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tests.programs.faults import report

MEASURED = Path(__file__).resolve().parents[1] / "faults.json"


class Faults(SphinxDirective):
    """Show a row below the other, each with the lines of its figures."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make them."""
        self.env.note_dependency(str(MEASURED))
        found = json.loads(MEASURED.read_text(encoding="utf-8"))
        if self.arguments == ["about"]:
            return self.parse_text_to_nodes(report.about(found))
        made: list[nodes.Node] = []
        for row in found["rows"]:
            made += self.parse_text_to_nodes(f"**{row['key']}.** {row['title']}.")
            text = [".. list-table::", "   :header-rows: 1"]
            text += ["   :widths: 34 16 20 30", ""]
            for cells in (report.HEAD, *report.lines({"rows": [row]})):
                text += [
                    f"   {' ' if number else '*'} - {cell}"
                    for number, cell in enumerate(cells[2:])
                ]
            made += self.parse_text_to_nodes("\n".join(text))
        return made


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("faults", Faults)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
