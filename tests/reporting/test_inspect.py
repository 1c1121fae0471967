"""An inspection on the screen and as JSON: to the letter, and its numbers added up again."""

import json
import math
import re
from dataclasses import replace

import pytest

from tests.reporting.inspect_samples import BY_PARAMETERS, CONV1, INSPECTED, UNTIMED, point
from tests.reporting.test_ledger import adds_up
from tests.reporting.test_terminal import text_of
from vfconvert.budget.frontier import Frontier
from vfconvert.reporting.inspect_json import inspect_to_json
from vfconvert.reporting.inspect_report import saved, smallest
from vfconvert.reporting.inspect_terminal import render_inspect

REPORTS = {"inspected": INSPECTED, "untimed": UNTIMED}


def printed(report=INSPECTED, width: int = 80, *, verbose: bool = False) -> str:
    return text_of(render_inspect(report, verbose=verbose), width)


def option_numbers(text: str) -> dict[str, list[float]]:
    """Layer -> the printed damage of each of its options, in their order."""
    found: dict[str, list[float]] = {}
    for line in text[text.index(" option ") : text.index("Explained is")].splitlines()[2:]:
        if re.match(r" \S", line):
            layer = found.setdefault(line.split()[0], [])
        elif option := re.search(r" % +(\S+)$", line):
            layer.append(float(option[1]))
    return found


def frontier_damages(text: str, cost: str) -> list[float]:
    table = text.split(f"Least damage by {cost}\n\n")[1].split("\n\n")[0]
    return [float(line.split()[-1]) for line in table.splitlines()[2:]]


def agree(text: str) -> bool:
    """Whether every printed plan has the sum of its options' printed damages, but for three digits' rounding."""
    options = list(option_numbers(text).values())
    sums = [sum(o[index] for o, index in zip(options, p.chosen, strict=True)) for p in BY_PARAMETERS]
    plans = frontier_damages(text, "parameters")
    return all(math.isclose(a, b, rel_tol=1e-2) for a, b in zip(plans, sums, strict=True))


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("verbose", [False, True], ids=["normal", "verbose"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_inspection_reads_as_agreed(golden, name, verbose, width):
    golden(
        f"{name}_{'verbose' if verbose else 'normal'}_{width}.txt",
        printed(REPORTS[name], width, verbose=verbose),
    )


@pytest.mark.parametrize("name", REPORTS)
def test_inspection_json_reads_as_agreed(golden, name):
    golden(f"{name}.json", inspect_to_json(REPORTS[name]))


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("verbose", [False, True], ids=["normal", "verbose"])
def test_inspection_fits_60_columns_but_for_paths_and_commands(name, verbose):
    lines = printed(REPORTS[name], 60, verbose=verbose).splitlines()
    assert {line.split(":")[0] for line in lines if len(line) > 60} <= {"Command", "Read"}


def test_printed_damages_of_options_add_up_to_those_of_the_plans():
    text = printed(width=160, verbose=True)
    assert [len(found) for found in option_numbers(text).values()] == [6, 4]
    assert agree(text)


def test_meta_a_wrong_damage_breaks_the_sum():
    text = printed(width=160, verbose=True)
    assert not agree(text.replace("0.0077", "0.0078", 1))
    assert not agree(text.replace("0.0464", "0.0474", 1))


def test_printed_ledger_adds_up():
    text = printed()
    kept = text[text.index("Kept:") : text.index("Least damage")]
    assert adds_up(kept)
    assert not adds_up(kept.replace("25.17 %", "25.27 %"))


def test_smallest_option_has_the_fewest_parameters_then_the_least_damage():
    assert smallest(CONV1, "spatial") == CONV1.options[1]
    assert smallest(CONV1, "group") is None
    better = replace(CONV1.options[1], damage=0.001)
    assert smallest(replace(CONV1, options=(*CONV1.options, better)), "spatial") == better


def test_saved_is_what_the_layer_has_less():
    assert saved(CONV1, CONV1.options[1]) == (1152, 1_048_576)
    assert saved(CONV1, CONV1.options[0]) == (0, 0)
    assert saved(CONV1, replace(CONV1.options[1], macs=2_359_297)) == (1152, -1)


def test_every_layer_tells_what_its_smallest_options_explain_save_and_damage():
    text = printed(width=120)
    assert re.search(r"explained +87\.50 % +90\.00 % +92\.00 % +70\.00 %$", text, re.MULTILINE)
    assert re.search(r"params +-1\.15 k +-1\.15 k +-1\.15 k +-1\.73 k$", text, re.MULTILINE)
    assert re.search(r"MACs +-1\.05 M +-786 k +-1\.18 M +-1\.70 M$", text, re.MULTILINE)
    assert re.search(r"damage +0\.0123 +0\.0099 +0\.0077 +0\.0456$", text, re.MULTILINE)
    assert re.search(r"explained +79\.00 % +- +- +55\.00 %$", text, re.MULTILINE)


def test_long_frontiers_are_thinned_and_keep_their_ends():
    points = tuple(point(9_850 - 100 * index, 4_505_920, 0.001, 0.001 * index) for index in range(37))
    text = printed(replace(INSPECTED, frontiers=(Frontier(cost="params", points=points),)))
    damages = frontier_damages(text, "parameters")
    assert damages == sorted(set(damages))
    assert (len(damages), damages[0], damages[-1]) == (10, 0.0, 0.036)


def test_reading_is_explained_in_the_unit_of_the_measure():
    assert "in nats by which" in " ".join(printed().split())
    assert "as the share of its own variance" in " ".join(printed(UNTIMED).split())
    for text in (printed(), printed(UNTIMED)):
        assert "adds up over layers, and is a prediction" in " ".join(text.split())


def test_network_without_a_choice_still_has_its_ledger():
    text = printed(replace(INSPECTED, layers=(), frontiers=(), uniform=()))
    assert "Convertible: 0 of 3 Conv2d layers" in text
    assert "Kept: 3 of 3 Conv2d layers" in text
    assert "smallest" not in text


def test_synthetic_images_are_called_so():
    images = replace(INSPECTED.images, source="synthetic", calibration=64)
    assert "Measured on 64 synthetic images." in printed(replace(INSPECTED, images=images))


def test_names_are_not_read_as_markup():
    layers = (replace(CONV1, layer="[red]a[/red]"),)
    for verbose in (False, True):
        assert "[red]a[/red]" in printed(replace(INSPECTED, layers=layers), 120, verbose=verbose)


def test_json_holds_every_number():
    read = json.loads(inspect_to_json(INSPECTED))
    assert next(iter(read)) == "schema_version"
    assert (read["macs"], read["flops"], read["latency"]) == (4_505_920, 9_011_840, 0.001)
    first = read["layers"][0]
    assert (first["name"], first["shape"], first["norm"]) == ("blocks.0.conv1", "16->16 3x3", "blocks.0.bn1")
    for got, option in zip(first["options"], CONV1.options, strict=True):
        assert [got[key] for key in ("kind", "parameters", "macs", "seconds", "unexplained", "damage")] == [
            option.kind,
            option.parameters,
            option.macs,
            option.seconds,
            option.unexplained,
            option.damage,
        ]
        assert got["explained"] == 1 - option.unexplained
    assert [row["flag"] for row in read["kept"]] == ["--include-first", "--channel", "--channel"]
    assert [p["damage"] for p in read["frontiers"][0]["points"]] == [p.damage for p in BY_PARAMETERS]
    assert [u["name"] for u in read["uniform"]] == ["spatial", "channel", "both"]


def test_json_is_the_same_every_time_and_another_for_another_report():
    assert inspect_to_json(INSPECTED) == inspect_to_json(INSPECTED)
    assert inspect_to_json(INSPECTED) != inspect_to_json(replace(INSPECTED, seed=4))


@pytest.mark.parametrize("value", [math.inf, math.nan], ids=str)
def test_numbers_that_are_not_finite_become_null_and_are_said(value):
    broken = replace(CONV1, options=(CONV1.options[0], replace(CONV1.options[1], damage=value, unexplained=value)))
    report = replace(INSPECTED, layers=(broken,))
    option = json.loads(inspect_to_json(report), parse_constant=pytest.fail)["layers"][0]["options"][1]
    assert (option["damage"], option["explained"]) == (None, None)
    assert printed(report, verbose=True).count("not finite") == 2
