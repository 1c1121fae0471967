"""`--linear` from the command line: plan, report, file, and plan files."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import vfconvert
import vfconvert.errors
import vfconvert.targets
from tests.references import assert_close_enough
from vfconvert.options import ConversionOptions
from vfconvert.pipeline import convert
from vfconvert.recipes.recipe import FieldError, recipe_of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(5), nn.Flatten(), nn.Dropout()),
        *(nn.Linear(200, 16), nn.ReLU(), nn.Linear(16, 4)),
    )
    torch.save(net, tmp_path / "net.pt")
    return tmp_path / "net.pt"


def options(model: Path, **more: object) -> ConversionOptions:
    common: dict[str, object] = {"model": model, "input_shape": (3, 8, 8), "calibration_images": 48}
    common |= {"reconstruct": False, "measure": False, "output": model.with_name("out.onnx")}
    return ConversionOptions(**{**common, **more})  # type: ignore[arg-type]


def test_linear_is_converted_written_and_loaded(model: Path) -> None:
    plan = model.with_name("plan.json")
    report = convert(
        options(model, spatial=True, channel=True, linear=True, formats=("onnx", "safetensors"), save_plan=plan)
    )
    assert report is not None
    rows = {row.name: row for row in report.layers}
    assert rows["5.conv"].spec == "crops 5x5 3x3 1x1; 2 windows, stride 2"
    assert rows["5.conv"].weights_after == 3 * 200  # 16 outputs of 6 a primary
    assert rows["5.conv"].unexplained is not None
    assert rows["5.conv"].unexplained < 0.9
    assert report.linears == ()
    original = torch.load(model, weights_only=False)
    loaded = vfconvert.load(model.with_name("out.safetensors"), like=original)
    lowered = vfconvert.load(model.with_name("out.safetensors"), like=original, lowered=True)
    x = torch.randn(3, 3, 8, 8)
    assert_close_enough(lowered(x), loaded(x), tolerance=1e-4)
    assert type(original[5]) is nn.Linear
    again = convert(options(model, plan=plan, dry_run=True))
    assert again is not None
    assert {row.name: row.spec for row in again.layers} == {row.name: row.spec for row in report.layers}


def test_kept_linear_is_in_the_ledger_with_its_flag(model: Path) -> None:
    report = convert(options(model, spatial=True, include_first=True, dry_run=True))
    assert report is not None
    (row,) = report.linears
    assert (row.name, row.shape, row.flag, row.weights_before, row.macs_before) == (
        "5",
        "200->16",
        "--linear",
        3200,
        3200,
    )
    assert row.parameters_share == pytest.approx((3200 + 16) / report.before.parameters)


def test_plan_that_does_not_speak_of_linears_keeps_them(model: Path) -> None:
    plan = model.with_name("plan.json")
    convert(options(model, spatial=True, linear=True, save_plan=plan, dry_run=True))
    stated = json.loads(plan.read_text())
    assert stated.pop("linear") is True
    plan.write_text(json.dumps(stated))
    with pytest.raises(vfconvert.errors.PlanFileError, match=r"5\.conv"):
        convert(options(model, plan=plan, dry_run=True))


def test_target_chooses_for_the_linear_too(model: Path) -> None:
    report = convert(
        options(model, linear=True, targets=(vfconvert.targets.Target(cost="params", share=0.6),), dry_run=True)
    )
    assert report is not None
    assert {row.name: row.decision for row in report.layers}["5.conv"] == "convert"


def test_recipe_of_another_linear_is_refused(model: Path, tmp_path: Path) -> None:
    convert(options(model, spatial=True, linear=True, formats=("safetensors",), output=tmp_path / "out.safetensors"))
    other = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout()),
        *(nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 4)),
    )
    with pytest.raises(vfconvert.errors.StateDictMismatchError, match="expected a Linear of 200 inputs"):
        vfconvert.load(tmp_path / "out.safetensors", like=other)
    recipe = json.loads((tmp_path / "out.json").read_text())
    recipe["linear"] = {"5": [8, 5, 0]}
    with pytest.raises(FieldError, match="expected numbers above 0"):
        recipe_of(recipe)
