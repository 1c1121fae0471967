"""Plans from Python: made without converting, looked at, changed by name, saved, and converted by as values."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vfconvert
from tests.cli.test_plans import deep
from vfconvert.errors import IllegalSpecError, NothingEligibleError, PlanFileError, SelectionError
from vfconvert.overrides import Override

FAST = {"reconstruct": False, "measure": False}
SHAPE = (3, 12, 12)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(0))


def stated(**settings: Any) -> vfconvert.NetworkPlan:
    return vfconvert.plan(deep(), input_shape=SHAPE, **settings)


def kinds(plan: vfconvert.NetworkPlan) -> dict[str, str]:
    return {each.layer: str(each.spec) if hasattr(each, "spec") else each.code for each in plan.decisions}


@pytest.mark.parametrize(
    "settings",
    [{"spatial": True}, {"channel": True, "windows": 4, "channel_stride": "1/8"}, {"layers": {"3": "lines"}}],
    ids=["spatial", "channel", "layers"],
)
def test_a_plan_is_what_a_conversion_does(images: Tensor, settings: dict[str, Any]) -> None:
    plan = stated(**settings)
    conversion = vfconvert.convert(deep(), data=images, **settings, **FAST)
    assert plan == conversion.plan
    assert plan.plan.converted
    assert plan.predicted is None


def test_a_plan_for_targets_is_what_a_conversion_chooses(images: Tensor) -> None:
    targets = {"params": 0.7}
    plan = vfconvert.plan(deep(), targets=targets, data=images)
    assert plan == vfconvert.convert(deep(), targets=targets, data=images, **FAST).plan
    assert plan.predicted is not None
    assert plan.predicted.parameters_share <= 0.7


def test_a_plan_is_shown_in_a_line_and_printed_in_a_line_for_each_layer() -> None:
    plan = stated(spatial=True)
    assert repr(plan) == "NetworkPlan(2 of 3 convolutions converted)"
    assert str(plan).splitlines() == [
        "0  3->8 3x3      keep (first: first convolution, of few input channels (3); --include-first converts it)",
        "3  8->16 3x3 /2  crops 3x3 1x1",
        "6  16->16 3x3    crops 3x3 1x1",
    ]


def test_a_saved_plan_is_read_for_its_network(tmp_path: Path) -> None:
    plan = stated(spatial=True)
    plan.save(tmp_path / "plan.json")
    assert (tmp_path / "plan.json").read_text(encoding="ascii") == plan.to_json()
    again = stated(plan=tmp_path / "plan.json")
    assert again == plan
    assert stated(plan=plan) == plan


@pytest.mark.parametrize("as_value", [True, False], ids=["value", "path"])
def test_convert_takes_a_plan(images: Tensor, tmp_path: Path, as_value: bool) -> None:
    plan = stated(channel=True).changed({"3": "keep"})
    plan.save(tmp_path / "plan.json")
    given = plan if as_value else tmp_path / "plan.json"
    conversion = vfconvert.convert(deep(), plan=given, data=images, **FAST)
    assert conversion.plan.decisions == plan.decisions
    assert [row.name for row in conversion.report.layers if row.decision == "convert"] == ["6"]


def test_a_plan_fits_every_network_of_the_same_layers_and_no_other(images: Tensor) -> None:
    other = deep()
    torch.nn.init.ones_(other[3].weight)
    assert vfconvert.convert(other, plan=stated(spatial=True), data=images, **FAST).plan.plan.converted
    wide = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    with pytest.raises(PlanFileError, match=r"^<plan>: \d errors in the plan: layer \"3\", field layer: got a name"):
        vfconvert.convert(wide, plan=stated(spatial=True), data=images, **FAST)


def test_a_plan_of_linears_as_convolutions_is_taken_as_one() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(5), nn.Flatten(), nn.Linear(200, 8)
    )
    plan = vfconvert.plan(network, spatial=True, linear=True, input_shape=SHAPE)
    assert plan.linear
    assert kinds(plan) == {"0": "first", "4.conv": "crops 5x5 3x3 1x1"}
    assert vfconvert.plan(network, plan=plan, input_shape=SHAPE) == plan
    assert kinds(plan.changed({"4": "keep"})) == {"0": "first", "4.conv": "plan"}


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ({"6": "keep"}, {"0": "first", "3": "crops 3x3 1x1", "6": "plan"}),
        ({"*": "keep", "3": "lines"}, {"0": "plan", "3": "crops 3x3 1x1 1x3 3x1", "6": "plan"}),
        ({"0": "spatial"}, {"0": "crops 3x3 1x1", "3": "crops 3x3 1x1", "6": "crops 3x3 1x1"}),
        (
            {"6": "channel:windows=4,stride=1/8,primaries=0.5"},
            {"0": "first", "3": "crops 3x3 1x1", "6": "4 windows, stride 2; 8 primaries"},
        ),
        ((Override(glob="3", kind="keep"),), {"0": "first", "3": "plan", "6": "crops 3x3 1x1"}),
    ],
    ids=["keep", "last-wins", "first", "numbers", "overrides"],
)
def test_layers_of_a_plan_are_changed_by_name(images: Tensor, layers: Any, found: dict[str, str]) -> None:
    plan = stated(spatial=True)
    changed = plan.changed(layers)
    assert kinds(changed) == found
    assert kinds(plan) == {"0": "first", "3": "crops 3x3 1x1", "6": "crops 3x3 1x1"}
    assert kinds(vfconvert.plan(deep(), plan=changed, data=images)) == found


def test_a_layer_that_cannot_be_converted_stays() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 3))
    network[3].register_forward_hook(lambda *_: None)
    plan = vfconvert.plan(network, channel=True, input_shape=SHAPE)
    assert kinds(plan) == {"0": "first", "1": "depthwise", "2": "2 windows, stride 2", "3": "hooks"}
    assert kinds(plan.changed({"*": "spatial"})) == {
        **{"0": "crops 3x3 1x1", "1": "depthwise"},
        **{"2": "nothing-to-share", "3": "hooks"},
    }


@pytest.mark.parametrize(
    ("layers", "error", "said"),
    [
        (
            {"layer9.*": "keep"},
            SelectionError,
            r"no Conv2d layer matches 'layer9\.\*'; the 3 layers are named like",
        ),
        (
            {"3": "lines:primaries=99"},
            IllegalSpecError,
            "layer 3: primary filters of a group: got 99, expected 8 to",
        ),
        ({"3": "keeep"}, ValueError, r"^changed\(\): layers: got '3=keeep': kind: got 'keeep'"),
        ("3", TypeError, r"^changed\(\): layers: got '3', expected a mapping"),
    ],
)
def test_changes_that_cannot_be_are_refused(layers: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        stated(spatial=True).changed(layers)


def test_a_plan_that_keeps_everything_converts_nothing(images: Tensor) -> None:
    with pytest.raises(NothingEligibleError, match=r"none of the 3 Conv2d layers can be converted \(plan: 3\)"):
        vfconvert.convert(deep(), plan=stated(spatial=True).changed({"*": "keep"}), data=images, **FAST)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({}, ValueError, r"^plan\(\): nothing to do: add spatial, channel or both, or targets, layers or plan$"),
        ({"max_drop": 1.0}, TypeError, r"^plan\(\) has no setting 'max_drop'; vfconvert\.convert has it$"),
        ({"plan": 3}, TypeError, r"^plan\(\): plan: got 3, expected a path, a NetworkPlan or None$"),
        ({"targets": {"params": None}}, TypeError, r"^plan\(\): targets: params: got None, expected a share"),
        ({"layers": ["5"]}, TypeError, r"^plan\(\): layers: got '5', expected a mapping like"),
    ],
)
def test_a_plan_refuses_what_it_does_not_take(settings: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        stated(**settings)


def test_nothing_else_is_said_beside_a_plan() -> None:
    with pytest.raises(ValueError, match=r"^convert\(\): plan says what becomes of every layer, so spatial cannot be"):
        vfconvert.convert(deep(), plan=stated(spatial=True), spatial=True)
    with pytest.raises(TypeError, match=r"^save\(\): path: got 3, expected a path$"):
        stated(spatial=True).save(3)  # type: ignore[arg-type]
