"""The page in a real browser: it renders without a complaint, sorts by mouse and keyboard, fits a phone, prints."""

from dataclasses import replace

import pytest

from tests.browser import CHROMIUM, Browser
from tests.reporting.samples import DRY, FULL
from tests.reporting.shown_samples import BUDGETED, HOSTILE, RESTORED, TRAINED, hostile
from vfconvert.reporting.writing import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
REPORTS = {"full": FULL, "dry": DRY, "trained": TRAINED, "restored": RESTORED, "budgeted": BUDGETED}
REPORTS |= {f"hostile {number}": replace(hostile(text), training=None) for number, text in enumerate(HOSTILE)}
NAMES = "[...document.querySelectorAll('.layers tbody th code')].map((cell) => cell.textContent)"
SORTED = "[...document.querySelectorAll('.layers [aria-sort]')].map((heading) => heading.getAttribute('aria-sort'))"
CONTRAST = """
(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const told = {};
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.matches("script, style")) continue;
    const svg = element instanceof SVGElement;
    const style = getComputedStyle(element);
    const [a, b] = [light(svg ? style.fill : style.color), light(behind(svg ? element.closest("figure") : element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) told[`${element.tagName}.${element.className}`] = ratio;
  }
  return told;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Where the page of a report is, written once."""
    folder, written = tmp_path_factory.mktemp("pages"), {}

    def page_of(report):
        if id(report) not in written:
            written[id(report)] = folder / f"{len(written)}.html"
            write_report(report, written[id(report)])
        return written[id(report)]

    return page_of


@pytest.fixture
def opened(browser, pages):
    """`opened(report)` shows a report in a window of 1280 pixels and gives the browser."""

    def show(report, width=1280, scheme="light"):
        browser.size(width)
        browser.scheme(scheme)
        browser.noise.clear()
        browser.requests.clear()
        browser.open(pages(report))
        return browser

    return show


@pytest.mark.parametrize("name", REPORTS)
def test_page_loads_without_a_complaint_and_fetches_nothing(opened, name):
    page = opened(REPORTS[name])
    assert page.value("document.querySelectorAll('h1').length") == 1
    assert page.value("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert page.noise == []
    assert all(url.startswith(("file:", "data:")) for url in page.requests)


def test_meta_a_complaint_and_a_script_that_is_not_ours_are_seen(opened):
    page = opened(FULL)
    page.value("console.error('seen')")
    page.value("document.head.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
    assert page.value("window.ran === undefined")  # the policy of the page stops it
    assert any("seen" in line for line in page.noise)
    assert any("Content Security Policy" in line for line in page.noise)


@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("name", ["trained", "restored", "budgeted", "hostile 0"])
def test_page_never_scrolls_sideways(opened, name, width):
    page = opened(REPORTS[name], width)
    assert page.value("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["trained", "restored", "budgeted"])
def test_text_stands_out(opened, name, scheme):
    page = opened(REPORTS[name], scheme=scheme)
    background = page.value("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is (scheme == "light")
    assert page.value(CONTRAST) == {}


def test_meta_faint_text_is_seen(opened):
    page = opened(FULL)
    page.value("document.querySelector('h1').style.color = '#999'")
    (told,) = page.value(CONTRAST)
    assert told == "H1."


def test_click_sorts_numbers_and_texts(opened):
    page = opened(BUDGETED)
    assert page.value(NAMES) == [row.name for row in BUDGETED.layers]
    press = "[...document.querySelectorAll('.layers button')].find((one) => one.textContent === '{}').click()"
    page.value(press.format("weights"))
    by_weights = sorted(BUDGETED.layers, key=lambda row: -row.weights_before)
    assert page.value(NAMES) == [row.name for row in by_weights]
    assert page.value(SORTED)[1] == "descending"
    page.value(press.format("weights"))
    assert page.value(NAMES) == [row.name for row in sorted(BUDGETED.layers, key=lambda row: row.weights_before)]
    assert page.value(SORTED)[1] == "ascending"
    assert page.value("document.getElementById('sorted').textContent") == "Sorted by weights, ascending"
    page.value(press.format("unexplained"))
    assert page.value(NAMES)[:2] == ["blocks.0.conv2", "blocks.0.conv1"]
    page.value(press.format("unexplained"))  # what is not known stays last
    assert page.value(NAMES)[:2] == ["blocks.0.conv1", "blocks.0.conv2"]
    page.value(press.format("becomes"))  # "crops …; 2 windows" before "crops …; in segments" before "kept"
    assert page.value(NAMES)[:2] == ["blocks.0.conv2", "blocks.0.conv1"]
    page.value(press.format("layer, in order"))
    assert page.value(NAMES) == [row.name for row in BUDGETED.layers]
    assert [state for state in page.value(SORTED) if state != "none"] == ["ascending"]
    assert page.noise == []


def test_keyboard_reaches_the_headings_and_sorts(opened):
    page = opened(FULL)
    page.press("Tab")
    assert page.value("document.activeElement.textContent") == "Skip to the report"
    for _ in range(40):
        page.press("Tab")
        if page.value("document.activeElement.textContent") == "after":
            break
    page.press("Enter", "\r")
    assert page.value(NAMES)[:2] == ["blocks.0.conv1", "blocks.0.conv2"]
    page.press(" ", " ")
    assert page.value(NAMES)[0] == "stem.0"
    assert page.value("document.activeElement.textContent") == "after"


def test_screen_reader_is_told_of_landmarks_tables_and_pictures(opened):
    page = opened(TRAINED)
    page.call("Accessibility.enable")
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    told = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    roles = [role for role, _ in told]
    assert {"main", "banner", "navigation", "complementary", "columnheader", "rowheader"} <= set(roles)
    for role in ("table", "region", "image", "button", "navigation"):
        assert all(name for kind, name in told if kind == role), role
    assert any(name.startswith("loss in training") for _, name in told)


@pytest.mark.parametrize("name", ["trained", "restored", "budgeted", "hostile 0"])
def test_printed_page_is_no_wider_than_the_paper(opened, name):
    page = opened(REPORTS[name], 718)  # A4 between margins of a centimetre
    page.scheme("dark", "print")
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.value("document.documentElement.scrollWidth") <= 718
    shown = (
        "(row) => [...row.cells].filter((cell) => cell.offsetParent).map((cell) => cell.getBoundingClientRect().left)"
    )
    lefts = page.value(f"[...document.querySelector('.layers').rows].map({shown})")
    assert all(row == lefts[0] for row in lefts)  # the columns that are left stand below their headings


def test_page_is_printed_with_what_is_folded_up(opened):
    page = opened(TRAINED)
    page.value("window.dispatchEvent(new Event('beforeprint'))")
    assert page.value("[...document.querySelectorAll('details')].every((one) => one.open)")
    page.value("window.dispatchEvent(new Event('afterprint'))")
    assert not page.value("[...document.querySelectorAll('details')].some((one) => one.open)")
    assert page.pdf().startswith(b"%PDF-")
    assert page.noise == []
