"""A drawing as SVG that stands inline in a page: its colours are those of the page, light or dark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape


class Drawing:
    """Boxes, words and arrows in units of CSS pixels; `kind` is the class that the style sheet knows."""

    def __init__(self, title: str, width: float, height: float) -> None:
        self._title, self._width, self._height = title, width, height
        self._parts: list[str] = []

    @contextmanager
    def group(self, name: str) -> Iterator[None]:
        """What belongs together, so that it can be found by `data-name`."""
        self._parts.append(f'<g data-name="{escape(name)}">')
        yield
        self._parts.append("</g>")

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """A rectangle by its upper left corner."""
        self._parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>')

    def text(self, x: float, y: float, words: str, *, kind: str = "words", anchor: str = "start") -> None:
        """Words whose line stands at `y`; `anchor` is "start", "middle" or "end"."""
        self._parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>')

    def line(self, *points: tuple[float, float], kind: str = "line") -> None:
        """A line through points."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._parts.append(f'<polyline class="{kind}" points="{path}"/>')

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line whose last piece, which is level or upright, ends in a head."""
        (x, y), (u, v) = points[-2:]
        across, down = (u > x) - (u < x), (v > y) - (v < y)
        self.line(*points)
        self.line((u - 5 * across - 4 * down, v - 5 * down - 4 * across), (u, v),
                  (u - 5 * across + 4 * down, v - 5 * down + 4 * across))  # fmt: skip

    def markup(self) -> str:
        """The element."""
        head = (
            f'<svg class="drawing" viewBox="0 0 {self._width:g} {self._height:g}" role="img" '
            f'aria-label="{escape(self._title)}" xmlns="http://www.w3.org/2000/svg">'
        )
        return "".join([head, *self._parts, "</svg>"])
