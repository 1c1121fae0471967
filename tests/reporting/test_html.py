"""The page: as agreed, in one file, and every text from outside in it escaped."""

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from math import nan

import pytest

from tests.reporting.printed import html_tables, links, table_with
from tests.reporting.samples import DRY, FULL, IMAGES_OUT
from tests.reporting.shown_samples import BUDGETED, HOSTILE, RESTORED, SEGMENTED, TRAINED, hostile
from vfconvert.reporting.html import to_html

REPORTS = {"full": FULL, "dry": DRY, "images_out": IMAGES_OUT, "trained": TRAINED, "restored": RESTORED}
REPORTS |= {"budgeted": BUDGETED, "segmented": SEGMENTED}
_EMPTY = ("meta", "link", "img", "br", "use", "path")


class Outline(HTMLParser):
    """A page as an indented outline of its elements and texts; styles, scripts, drawings and pictures are left out."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._depth, self._muted = 0, ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if self._muted:
            return
        given = {name: value for name, value in attrs if name not in ("style", "class", "content")}
        if str(given.get("src", "")).startswith("data:"):
            given["src"] = "data:"
        shown = "".join(f' {name}="{value}"' for name, value in given.items())
        self.lines.append(f"{'  ' * self._depth}<{tag}{shown}>")
        if tag in ("style", "script", "svg"):
            self._muted = tag
        elif tag not in _EMPTY:
            self._depth += 1

    def handle_endtag(self, tag):
        if self._muted:
            self._muted = "" if tag == self._muted else self._muted
        else:
            self._depth -= tag not in _EMPTY

    def handle_data(self, data):
        if not self._muted and data.strip():
            self.lines.append(f"{'  ' * self._depth}{' '.join(data.split())}")


@pytest.mark.parametrize("name", REPORTS)
def test_page_reads_as_agreed(golden, name):
    golden(f"{name}_page.txt", "\n".join(Outline(to_html(REPORTS[name])).lines) + "\n")


@pytest.mark.parametrize("name", REPORTS)
def test_page_needs_nothing_but_itself(name):
    page = to_html(REPORTS[name])
    assert all(link.startswith(("#", "data:image/png;base64,", "data:,")) for link in links(page))
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page


def test_meta_a_foreign_link_is_seen():
    assert links('<script src="https://example.invalid/a.js">') == ["https://example.invalid/a.js"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_text(text, monkeypatch):
    monkeypatch.setattr("vfconvert.reporting.html.training_charts", lambda found: ())  # drawing takes long

    def elements(page):
        return [line.strip().split(" ")[0] for line in Outline(page).lines if line.strip().startswith("<")]

    page, wanted = to_html(hostile(text)), to_html(hostile("plain"))
    assert [name for name in elements(page) if name in ("<script>", "<img", "<h1>", "<b>", "<a")] == [
        name for name in elements(wanted) if name in ("<script>", "<img", "<h1>", "<b>", "<a")
    ]
    assert page.count("<script") == 1
    assert page.count("<") == wanted.count("<")
    names = [row[0] for row in table_with(html_tables(page), "weights").rows[: len(FULL.layers)]]
    assert names == [" ".join(text.split())] * len(FULL.layers)


def test_pages_of_equal_reports_are_equal():
    assert to_html(TRAINED) == to_html(replace(TRAINED))


def test_identifiers_are_unique_though_there_are_several_drawings():
    page = to_html(TRAINED)
    assert page.count("<svg ") == 2
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
    for named in re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]+)', page):
        assert named in identifiers


def test_without_matplotlib_the_page_says_what_it_lacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = to_html(TRAINED)
    assert "<svg" not in page
    assert "vfconvert[plot]" in page
    assert len(table_with(html_tables(page), "epoch").rows) == 3


def test_numbers_that_are_not_finite_are_told():
    report = replace(FULL, agreement=replace(FULL.agreement, value=nan))
    assert "Top-1 agreement with the original: not finite on 200 held-out images" in to_html(report)


def test_every_picture_has_a_text_and_every_table_a_caption():
    for report in REPORTS.values():
        page = to_html(report)
        assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img [^>]*>", page))
        assert page.count("<caption") == page.count("<table")
        assert not re.search(r"<th(?![^>]*scope=)[ >]", page)
