"""What is printed adds up: in every rendering the columns of the layers sum to the totals of the whole network."""

from dataclasses import replace

import pytest

from tests.reporting.printed import csv_table, html_tables, markdown_tables, table_with
from tests.reporting.samples import DRY, FULL, IMAGES_OUT
from tests.reporting.shown_samples import BUDGETED, TRAINED, hostile
from vfconvert.reporting.csv_report import to_csv
from vfconvert.reporting.html import to_html
from vfconvert.reporting.markdown import to_markdown

REPORTS = {"full": FULL, "dry": DRY, "images_out": IMAGES_OUT, "trained": TRAINED, "budgeted": BUDGETED}
REPORTS |= {"hostile": hostile("| a | `b` <td>1</td>\n|3,000|")}


def check_sum(numbers, total):
    """Fail unless the numbers but the last, which is printed as their sum, add up to it, and it is the total."""
    *parts, printed = numbers
    assert sum(parts) == printed, f"{parts} add up to {sum(parts)}, printed is {printed}"
    assert printed == total


@pytest.mark.parametrize("name", REPORTS)
def test_html_layers_add_up(name):
    report = REPORTS[name]
    table = table_with(html_tables(to_html(report)), "weights")
    assert len(table.rows) == len(report.layers) + 2
    check_sum(table.numbers("weights"), report.before.parameters)
    check_sum(table.numbers("after"), report.after.parameters)
    check_sum(table.numbers("MACs"), report.before.macs_method)
    if name == "dry":
        totals = replace(report, layers=tuple(replace(row, macs_executed=None) for row in report.layers))
        table = table_with(html_tables(to_html(totals)), "weights")
        check_sum(table.numbers("after, method's count"), report.after.macs_method)
    else:
        check_sum(table.numbers("executed"), report.after.macs_executed)


@pytest.mark.parametrize("name", REPORTS)
def test_markdown_layers_add_up(name):
    report = REPORTS[name]
    table = table_with(markdown_tables(to_markdown(report)), "weights")
    assert len(table.rows) == len(report.layers) + 2
    check_sum(table.numbers("weights"), report.before.parameters)
    check_sum(table.numbers("after"), report.after.parameters)


@pytest.mark.parametrize("name", REPORTS)
def test_csv_layers_add_up(name):
    report = REPORTS[name]
    table = csv_table(to_csv(report))
    assert len(table.rows) == len(report.layers) + 1
    assert sum(table.numbers("weights_before")) == report.before.parameters
    assert sum(table.numbers("weights_after")) == report.after.parameters
    assert sum(table.numbers("macs_before")) == report.before.macs_method
    assert sum(table.numbers("macs_after")) == report.after.macs_method
    assert sum(table.numbers("macs_executed")) == report.after.macs_executed


@pytest.mark.parametrize("render", [to_html, to_markdown], ids=["html", "markdown"])
def test_shares_of_kept_layers_add_up(render):
    read = html_tables if render is to_html else markdown_tables
    table = table_with(read(render(FULL)), "included by")
    shares = [float(row[3].removesuffix(" %")) for row in table.rows]
    weights, kept = (432, 1024, 1024), 432 + 1024 + 1024
    cut = [100 * part / FULL.before.parameters - share for part, share in zip(weights, shares, strict=False)]
    assert all(0 <= left < 0.01 for left in cut)  # percentages are cut off, never rounded up
    assert f"{int(10_000 * kept / FULL.before.parameters) / 100:.2f} %" in render(FULL)


def test_damage_of_layers_adds_up():
    table = table_with(html_tables(to_html(BUDGETED)), "damage, nats")
    place = table.headings.index("damage, nats")
    *parts, _, printed = [row[place] for row in table.rows]
    assert sum(float(part) for part in parts if part) == pytest.approx(float(printed), rel=1e-9)


def test_meta_a_wrong_row_breaks_the_sum():
    page = to_html(FULL).replace(">2,304<", ">2,305<")
    with pytest.raises(AssertionError, match="add up to 9851, printed is 9850"):
        check_sum(table_with(html_tables(page), "weights").numbers("weights"), FULL.before.parameters)
    text = to_markdown(FULL).replace("| 2,304 |", "| 2,305 |")
    with pytest.raises(AssertionError, match="add up to 9851, printed is 9850"):
        check_sum(table_with(markdown_tables(text), "weights").numbers("weights"), FULL.before.parameters)


def test_meta_a_wrong_total_is_seen():
    with pytest.raises(AssertionError, match="3 == 4"):
        check_sum([1, 2, 3], 4)
