"""The ledger of kept layers: its shares add up, on the screen and against the network."""

import re
from dataclasses import replace

import pytest
import torch
from rich.console import Group
from torch import nn

from tests.reporting.samples import FULL, LAYERS
from tests.reporting.test_terminal import text_of
from vfconvert.analysis.counting import count_macs
from vfconvert.analysis.profile import profile
from vfconvert.analysis.totals import totals_of
from vfconvert.planning import Wish, make_plan
from vfconvert.reporting.describe import layer_rows
from vfconvert.reporting.ledger import ledger


def printed(rows, *, verbose=False, width=80) -> str:
    return text_of(Group(*ledger(rows, verbose=verbose)), width)


def shares(text: str) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """The printed shares of parameters and MACs in percent, and the printed totals."""
    rows = re.findall(r"^ +([\d.]+) % +(?:([\d.]+) %|-) ", text, flags=re.MULTILINE)
    total = re.search(r"^kept: ([\d.]+) % of the parameters, (?:at least )?([\d.]+) % of the MACs$", text, re.MULTILINE)
    assert total is not None
    return [(float(p), float(m or 0)) for p, m in rows], (float(total[1]), float(total[2]))


def adds_up(text: str) -> bool:
    """Whether the rows sum to the totals, but for what cutting off at two decimals takes from each."""
    rows, totals = shares(text)
    sums = [sum(column) for column in zip(*rows, strict=True)]
    return all(-1e-6 <= total - found <= 0.01 * len(rows) for found, total in zip(sums, totals, strict=True))


@pytest.mark.parametrize("verbose", [False, True], ids=["grouped", "each"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_ledger_reads_as_agreed(golden, verbose, width):
    golden(f"ledger_{'verbose' if verbose else 'normal'}_{width}.txt", printed(LAYERS, verbose=verbose, width=width))


@pytest.mark.parametrize("verbose", [False, True], ids=["grouped", "each"])
def test_printed_shares_add_up_to_the_printed_totals(verbose):
    text = printed(LAYERS, verbose=verbose)
    assert len(shares(text)[0]) == (3 if verbose else 2)
    assert adds_up(text)


def test_meta_a_wrong_share_breaks_the_sum():
    text = printed(LAYERS)
    assert not adds_up(text.replace(" 4.38 %", " 4.48 %", 1))
    assert not adds_up(text.replace("21.45 %", "21.48 %"))


def test_a_row_is_printed_for_every_kept_layer_with_verbose():
    text = " ".join(printed(LAYERS, verbose=True, width=160).split())
    for row in (row for row in LAYERS if row.decision == "keep"):
        assert f"{row.name}: {row.reason} {row.flag}" in text
    assert "blocks.0" not in text


def test_many_layers_of_one_reason_are_counted():
    rows = tuple(replace(LAYERS[3], name=f"l{index}", parameters_share=0.01) for index in range(20))
    assert "l0, l1, l2 and 17 more: a 1x1 kernel" in printed(rows, width=120)


def test_unknown_macs_make_the_total_a_lower_bound():
    rows = (LAYERS[0], replace(LAYERS[3], code="subclass", reason="its own", macs_share=None, flag=None))
    text = printed(rows)
    assert "of the parameters, at least 9.81 % of the MACs" in text
    assert re.search(r"10\.39 % +- .*its own +no flag$", printed(rows, width=160), re.MULTILINE)
    assert adds_up(text)


def test_nothing_is_printed_where_nothing_is_kept():
    assert list(ledger(LAYERS[1:3], verbose=False)) == []


class _Own(nn.Conv2d):
    pass


def described(*, macs: int | None = None):
    """Rows of a network of known sizes: a stem, a pair of tied layers, a plain one and one of a class of its own."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.Conv2d(8, 8, 3, padding=1),
        _Own(8, 8, 1),
    ).eval()
    model[2].weight = model[1].weight
    layers = profile(model, torch.zeros(1, 3, 8, 8))
    before = totals_of(model, layers, count_macs(model, torch.zeros(1, 3, 8, 8)))
    plan = make_plan(model, layers, {}, Wish())
    return layer_rows(plan, layers, None, {}, before if macs is None else replace(before, macs_executed=macs)), before


def test_shares_of_all_layers_are_those_of_the_whole_network():
    rows, before = described()
    assert [row.code for row in rows] == ["first", "tied", "tied", None, "subclass"]
    numbers = [27 * 8 + 8, 576, 0, 576 + 8, 64 + 8]  # what is tied counts once
    assert before.numbers.parameters == sum(numbers)
    assert [row.parameters_share for row in rows] == [count / sum(numbers) for count in numbers]
    assert sum(row.parameters_share for row in rows) == pytest.approx(1)
    products = [64 * count for count in (216, 576, 576, 576)]
    assert [row.macs_share for row in rows] == [*(count / (sum(products) + 64 * 64) for count in products), None]
    assert [row.flag for row in rows] == ["--include-first", None, None, None, None]


def test_meta_shares_of_other_macs_do_not_add_up():
    rows, before = described(macs=1_000_000)
    known = sum(row.macs_share for row in rows if row.macs_share is not None)
    assert known != pytest.approx(1 - 64 * 64 / before.macs_executed)


def test_ledger_of_the_sample_is_that_of_its_totals():
    for row in LAYERS:
        assert row.macs_share == row.macs_before / FULL.before.macs_executed
