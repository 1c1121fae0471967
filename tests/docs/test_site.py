"""The site as it is built: without a warning, with every command and option, and without anything from elsewhere."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest

import vfconvert
from docs.extensions.commands import prose, reference
from docs.extensions.fields import table
from tests.browser import CHROMIUM, Browser
from tests.docs.pages import DOCS, PAGES, ROOT
from vfconvert import errors
from vfconvert.cli.main import main
from vfconvert.keywords import KEYWORDS
from vfconvert.options import ConversionOptions
from vfconvert.training_options import TrainingOptions


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Sphinx with every warning an error, references that lead nowhere among them."""
    line = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-E", str(source), str(target)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    built = build(DOCS, folder)
    assert (built.returncode, built.stderr) == (0, "")
    return folder


def test_every_page_is_there(site):
    assert {path.stem for path in site.glob("*.html")} >= {page.stem for page in PAGES} - {"README"}


def anchor(name: str, flag: str) -> str:
    program = "vfconvert" if name == "convert" else f"vfconvert-{name}"
    return f'id="cmdoption-{program}-{flag.lstrip("-")}"'


@pytest.mark.parametrize("name", main.commands)
def test_every_command_has_its_section_and_every_option_its_entry(site, name):
    page, command = (site / "commands.html").read_text(encoding="utf-8"), main.commands[name]
    title = "MODEL" if name == "convert" else name
    assert re.search(rf"<h2><code[^>]*><span class=\"pre\">vfconvert</span> <span class=\"pre\">{title}<", page)
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if anchor(name, option.opts[0]) not in page] == []


def test_meta_an_option_that_does_not_exist_is_not_there(site):
    assert anchor("convert", "--spacial") not in (site / "commands.html").read_text(encoding="utf-8")


def test_reference_holds_the_help_of_every_option():
    text = reference()
    for command in main.commands.values():
        context = click.Context(command)
        for option in command.params:
            if (record := option.get_help_record(context)) is not None:
                assert prose(record[1]) in text


def test_help_is_shown_as_it_is():
    assert prose("as in '*.a=b' or <x>, see --spatial") == r"as in '\*.a=b' or \<x\>, see `--spatial`"


def test_every_keyword_has_its_row():
    rows = [*table(ConversionOptions).splitlines(), *table(TrainingOptions).splitlines()]
    named = [row.split("`")[1] for row in rows if row.startswith("| `")]
    known = [field.name for options in (ConversionOptions, TrainingOptions) for field in fields(options)]
    assert named == [name for name in known if name in KEYWORDS]
    assert [row for row in rows[2:] if row.endswith("|  |")] == []


def test_public_names_have_their_entries(site):
    page = (site / "python.html").read_text(encoding="utf-8")
    names = [f"vfconvert.{name}" for name in vfconvert.__all__ if name not in ("BenchReport", "__version__")]
    names += ["vfconvert.benching.report.BenchReport", "vfconvert.nn.VersatileConv2d"]
    names += [f"vfconvert.errors.{name}" for name, kind in vars(errors).items() if isinstance(kind, type)]
    assert [name for name in names if f'id="{name}"' not in page] == []


def test_pages_fetch_nothing_from_elsewhere(site):
    for path in site.glob("*.html"):
        fetched = re.findall(
            r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="([^"]+)"', path.read_text(encoding="utf-8")
        )
        assert [address for address in fetched if re.match(r"(?:[a-z]+:)?//", address)] == []
    for path in site.rglob("*.css"):
        style = path.read_text(encoding="utf-8")
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)]*", style) == [], path


def test_drawings_stand_in_the_page(site):
    page = (site / "method.html").read_text(encoding="utf-8")
    assert page.count('<svg class="drawing"') == len(re.findall(r"\{drawing\}", (DOCS / "method.md").read_text()))


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("# A\n\n[b](nowhere.md)\n", "nowhere.md"),
        ("# A\n\n```{drawing} circles\n```\n", "no drawing 'circles'"),
        ("# A\n\n```{eval-rst}\n.. autofunction:: vfconvert.nothing\n```\n", "failed to import 'nothing'"),
    ],
    ids=["link", "drawing", "name"],
)
def test_meta_a_broken_page_is_an_error(tmp_path, page, said):
    source = tmp_path / "docs"
    source.mkdir()
    settings = (DOCS / "conf.py").read_text().replace("Path(__file__).parent.parent", f"Path({str(ROOT)!r})")
    (source / "conf.py").write_text(settings.replace('html_static_path = ["_static"]', ""))
    (source / "index.md").write_text(page)
    built = build(source, tmp_path / "site")
    assert built.returncode != 0
    assert said in built.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_a_phone_and_a_desk(site, tmp_path, width):
    with Browser(tmp_path) as browser:
        for path in sorted(site.glob("*.html")):
            browser.size(width)
            browser.open(path)
            assert browser.value("document.documentElement.scrollWidth") <= width, path.name
        assert browser.noise == []
        assert [address for address in browser.requests if not address.startswith(("file:", "data:"))] == []
