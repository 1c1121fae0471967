"""The tables of a rendering read back: headings, rows of texts, and the sums of their columns."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from html.parser import HTMLParser

from markdown_it import MarkdownIt


@dataclass
class Printed:
    """A table as it is printed; `headings` are those of its columns."""

    headings: list[str]
    rows: list[list[str]]

    def numbers(self, heading: str, *, place: int = 0) -> list[int | None]:
        """The whole numbers of the column of that heading (of several, the one at `place`); None where it is empty."""
        found = [index for index, text in enumerate(self.headings) if text == heading][place]
        return [int(row[found].replace(",", "")) if row[found] else None for row in self.rows]


class _Tables(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[list[list[str]]] = []
        self._cell: list[str] | None = None
        self._muted = 0

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []
        elif tag in ("small", "i"):
            self._muted += 1

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None
        elif tag in ("small", "i"):
            self._muted -= 1

    def handle_data(self, data):
        if self._cell is not None and not self._muted:
            self._cell.append(data)


def html_tables(page: str) -> list[Printed]:
    """Every table of a page."""
    reader = _Tables()
    reader.feed(page)
    return [Printed(table[0], table[1:]) for table in reader.tables]


def as_html(markdown: str) -> str:
    """What a reader of GitHub's Markdown makes of a text; HTML in it stays, as GitHub's does."""
    return MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(markdown)


def markdown_tables(markdown: str) -> list[Printed]:
    """Every table of a Markdown text."""
    return html_tables(as_html(markdown))


def csv_table(text: str) -> Printed:
    """The table of a CSV text."""
    rows = list(csv.reader(io.StringIO(text, newline="")))
    return Printed(rows[0], rows[1:])


def table_with(tables: list[Printed], heading: str) -> Printed:
    """The one that has such a heading."""
    (found,) = [table for table in tables if heading in table.headings]
    return found


def links(html: str) -> list[str]:
    """Where anything in a text points to, and what it would load."""
    return re.findall(r"<(?:a|img|script|link|iframe|form|svg:image)\b[^>]*?(?:href|src|action)=\"([^\"]*)\"", html)
