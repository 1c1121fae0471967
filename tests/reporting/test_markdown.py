"""Markdown: as agreed, and nothing in a model or a command becomes more than text."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.reporting.printed import as_html, html_tables, links, table_with
from tests.reporting.samples import DRY, FULL, IMAGES_OUT
from tests.reporting.shown_samples import BUDGETED, HOSTILE, TRAINED, hostile
from vfconvert.reporting.markdown import code, plain, to_markdown
from vfconvert.reporting.writing import write_report

REPORTS = {"full": FULL, "dry": DRY, "images_out": IMAGES_OUT, "trained": TRAINED, "budgeted": BUDGETED}


class Shape(HTMLParser):
    """The tags of a text, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("name", REPORTS)
def test_markdown_reads_as_agreed(golden, name):
    golden(f"{name}.md", to_markdown(REPORTS[name]))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_text(text):
    html = as_html(to_markdown(hostile(text)))
    wanted = Shape(as_html(to_markdown(hostile("plain"))))
    assert links(html) == []
    assert Shape(html).tags == wanted.tags
    assert len(html_tables(html)) == 4
    names = [row[0] for row in table_with(html_tables(html), "weights").rows[: len(FULL.layers)]]
    shown = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    assert names == [shown] * len(FULL.layers)


def looked_for(html: str) -> list[str]:
    """What GitHub would make links of in finished text: mentions, numbers of issues, addresses. Comments break it."""
    return [found[0] for node in Shape(html).text if (found := re.search(r"@\w|#\d|\w://|www\.", node))]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_is_left_that_github_makes_a_link_of(text):
    assert looked_for(as_html(plain(text))) == []


def test_meta_a_mention_is_seen():
    assert looked_for(as_html("see @someone, #1, https://example.invalid")) == ["@s"]
    assert looked_for(as_html("a @<!-- -->b")) == []


@pytest.mark.parametrize("text", ["layer4.0.conv1", "a b", "_under_", "x|y", "`", "", "a\\", "ünï"])
def test_code_shows_its_text(text):
    (row,) = html_tables(as_html(f"| a |\n|--|\n| {code(text)} |"))[0].rows
    assert row == [text]


def test_meta_a_link_and_a_tag_are_seen():
    html = as_html('[a](https://example.invalid)\n\n<img src="x">')
    assert links(html) == ["https://example.invalid", "x"]
    assert Shape(html).tags != Shape(as_html("a\n\nb")).tags


def test_path_that_is_not_utf8_is_written(tmp_path):
    path = b"caf\xe9.pt".decode("utf-8", "surrogateescape")
    for suffix in ("md", "html", "csv"):
        write_report(replace(FULL, input=replace(FULL.input, path=path), output=None), tmp_path / f"r.{suffix}")
        (tmp_path / f"r.{suffix}").read_text(encoding="utf-8")
