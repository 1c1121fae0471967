"""Inspections from Python: the options of layers, pictures and texts of them, and plans chosen from them."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vfconvert
from tests.cli.test_plans import deep
from vfconvert.errors import BudgetError, NothingEligibleError, UnwritableOutputError
from vfconvert.targets import Target

FAST = {"reconstruct": False, "measure": False}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def seen(images: Tensor) -> vfconvert.Inspection:
    return vfconvert.inspect(deep(), data=images)


def test_an_inspection_leaves_the_network_as_it_was_and_writes_nothing(
    images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = deep().train()
    before = copy.deepcopy(model.state_dict())
    found = vfconvert.inspect(model, spatial=True, data=images)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert os.listdir(tmp_path) == []
    kinds = {option.kind for layer in found.report.layers for option in layer.options}
    assert kinds == {"keep", "spatial"}
    assert found.report.command == "vfconvert.inspect"
    assert found.report.input.path == "<Sequential>"


def test_a_network_in_a_file_has_the_options_of_the_network(
    seen: vfconvert.Inspection, images: Tensor, tmp_path: Path
) -> None:
    torch.save(deep(), tmp_path / "model.pt")
    there = vfconvert.inspect(tmp_path / "model.pt", data=images, damage_cache=tmp_path / "kept.json")
    assert there.report.layers == seen.report.layers
    assert there.report.input.path == str(tmp_path / "model.pt")
    assert (tmp_path / "kept.json").exists()


def test_an_inspection_is_shown_in_a_line(seen: vfconvert.Inspection) -> None:
    assert repr(seen) == "Inspection(3.80 k parameters, 2 of 3 convolutions have options)"


def test_an_inspection_is_saved_and_drawn(seen: vfconvert.Inspection, tmp_path: Path) -> None:
    seen.save(tmp_path / "options.json")
    assert (tmp_path / "options.json").read_text(encoding="utf-8") == seen.to_json()
    assert [layer["name"] for layer in json.loads(seen.to_json())["layers"]] == ["3", "6"]
    seen.draw(tmp_path / "frontier.svg")
    assert "damage" in (tmp_path / "frontier.svg").read_text(encoding="utf-8")
    with pytest.raises(UnwritableOutputError, match=r"a picture's name ends in \.svg or \.png"):
        seen.draw(tmp_path / "frontier.pdf")


@pytest.mark.parametrize(
    "targets", [{"params": "70%"}, {"macs": 0.7}, {"params": 0.8, "size": "27KB"}], ids=["params", "macs", "two"]
)
def test_a_plan_is_the_one_that_a_conversion_chooses(
    seen: vfconvert.Inspection, images: Tensor, targets: dict[str, Any]
) -> None:
    chosen = seen.plan(targets)
    conversion = vfconvert.convert(deep(), targets=targets, data=images, **FAST)
    assert chosen == conversion.plan
    assert chosen.plan.converted
    assert chosen.predicted is not None
    assert chosen.predicted.parameters == conversion.report.after.parameters


def test_tighter_targets_harm_more(seen: vfconvert.Inspection) -> None:
    loose, tight = (seen.plan([Target(cost="params", share=share)]).predicted for share in (0.8, 0.5))
    assert loose is not None
    assert tight is not None
    assert tight.parameters < loose.parameters
    assert tight.damage > loose.damage
    assert tight.parameters_share <= 0.5


@pytest.mark.parametrize(
    ("targets", "error", "said"),
    [
        ({"params": "1%"}, BudgetError, "is the least that can be reached"),
        (
            {"params": 1.0},
            NothingEligibleError,
            r"none of the 3 Conv2d .* \(budget: 2, first: 1\)",
        ),
        ({"latency": 0.5}, BudgetError, "nothing was timed, so it is no target here; inspect again with measure=True"),
        ({}, ValueError, r"^plan\(\): targets: got none, expected one or more"),
        ("params=50%", TypeError, r"^plan\(\): targets: got 'params=50%', expected a mapping"),
        ({"parms": 0.5}, ValueError, r"^plan\(\): targets: got 'parms=50%': expected one of params"),
    ],
)
def test_plans_that_cannot_be_are_refused(
    seen: vfconvert.Inspection, targets: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        seen.plan(targets)


def test_options_are_timed_where_that_is_asked_for(images: Tensor) -> None:
    """Times of so small a network say nothing; that there are some is what is looked at."""
    found = vfconvert.inspect(deep(), spatial=True, data=images, measure=True)
    assert [frontier.cost for frontier in found.report.frontiers] == ["params", "macs", "latency"]
    assert all(option.seconds is not None for layer in found.report.layers for option in layer.options)
    with pytest.raises(BudgetError, match=r"latency: .* is the least that can be reached"):
        found.plan({"latency": 1e-6})


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"epochs": 2}, TypeError, r"^inspect\(\) has no setting 'epochs'; vfconvert\.convert has it$"),
        ({"targets": {"params": 0.5}}, TypeError, r"no setting 'targets'; Inspection\.plan chooses by it$"),
        ({"layers": {"2": "keep"}}, TypeError, r"no setting 'layers'; NetworkPlan\.changed decides by it$"),
        ({"crop": "lines"}, TypeError, r"^inspect\(\) has no setting 'crop'; the nearest is 'crops'$"),
        ({"crops": "lines"}, ValueError, r"^inspect\(\): crops says nothing without spatial"),
        ({"measure": 1}, TypeError, r"^inspect\(\): measure: got 1, expected True or False$"),
        ({"arch": "torchvision:resnet18"}, TypeError, r"^inspect\(\): arch says how a file is read"),
        ({"progress": 3}, TypeError, r"^inspect\(\): progress: got 3, expected a function like progress\("),
    ],
)
def test_an_inspection_refuses_what_it_does_not_take(
    settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        vfconvert.inspect(deep(), **settings)


def test_an_inspection_needs_a_network() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match=r"^inspect\(\): model: got 3, expected a network or the path of a file$"):
        vfconvert.inspect(wrong)
    with pytest.raises(TypeError, match=r"^inspect\(\): model: got <class .*Sequential'>, expected a network"):
        vfconvert.inspect(nn.Sequential)  # type: ignore[arg-type]
