"""The directive `drawing`: a drawing of the method by its name, inline, with its caption below."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from docs.extensions.method import DRAWINGS


class DrawingDirective(Directive):
    """`{drawing} crops`, and the caption as its content."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """A figure whose picture is drawn now."""
        name = self.arguments[0]
        if name not in DRAWINGS:
            raise self.error(f"no drawing {name!r}; there are {', '.join(DRAWINGS)}")
        figure = nodes.container(classes=["drawn"], ids=[f"drawing-{name}"])
        figure += nodes.raw("", DRAWINGS[name]().markup(), format="html")
        caption = nodes.container(classes=["drawn-caption"])
        self.state.nested_parse(self.content, self.content_offset, caption)
        figure += caption
        return [figure]


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.add_directive("drawing", DrawingDirective)
    return {"version": "1", "parallel_read_safe": True}
