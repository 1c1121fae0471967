"""What says nothing beside other options is refused from the command line and from Python, in the same words."""

from pathlib import Path
from typing import Any

import pytest
import torch

import vfconvert
from tests.cli.conftest import network
from vfconvert.combinations import wrong_combination
from vfconvert.gates import Saving
from vfconvert.options import ConversionOptions
from vfconvert.targets import Target
from vfconvert.training_options import TrainingOptions

PLAIN = {"reconstruct": False, "measure": False}
IMAGES = torch.randn(4, 3, 12, 12)
REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "nothing to do: add spatial, channel or both, or targets, layers or plan"),
    ({"spatial": True, "rate": 0.1}, "rate says nothing without epochs; add that or drop it"),
    ({"spatial": True, "optimizer": "sgd"}, "optimizer says nothing without epochs; add that or drop it"),
    ({"spatial": True, "epochs": 1, "data": None}, "epochs trains on images; add data"),
    ({"spatial": True, "windows": 7}, "windows says nothing without channel; add that or drop it"),
    ({"spatial": True, "channel_stride": 2}, "channel_stride says nothing without channel; add that or drop it"),
    ({"channel": True, "crops": "lines"}, "crops says nothing without spatial; add that or drop it"),
    ({"layers": {"3": "channel"}, "crops": "lines"}, "crops says nothing without spatial; add that or drop it"),
    ({"spatial": True, "refine": 3}, "refine compares plans within a target; add targets or drop it"),
    ({"targets": {"params": "80%"}, "max_drop": 1, "refine": 3}, "refine has to fit networks, and max_drop fits its"),
    ({"targets": {"params": "80%"}, "windows": 4}, "windows is chosen for every layer under targets and max_drop"),
    (
        {"targets": {"params": "80%"}, "layers": {"3": "lines:primaries=0.5"}},
        "under targets and max_drop, layers takes GLOB=keep only; drop one of the two",
    ),
    ({"spatial": True, "damage_cache": "d.json"}, "damage_cache says nothing without targets or max_drop"),
    ({"spatial": True, "forms": "smallest"}, "forms: got 'smallest', expected one of fastest, plain"),
    (
        {"targets": {"params": "80%", "macs": "70%"}, "forms": "plain"},
        "forms plain computes as many products as the original, so no plan has fewer; drop it, or the limit on macs of",
    ),
    ({"plan": "p.json", "forms": "smallest"}, "forms: got 'smallest', expected one of fastest, plain"),
    ({"spatial": True, "forms": "plain", "costs": "c.json"}, "costs says nothing beside forms plain, which"),
    ({"targets": {"latency": "70%"}, "forms": "plain"}, "forms plain .* or the limit on latency of targets"),
    (
        {"spatial": True, "target_data": "clean", "data": None},
        "target_data says nothing without data; add that or drop",
    ),
    (
        {"spatial": True, "epochs": 1, "momentum": 0.5},
        "momentum says nothing without optimizer sgd; add that or drop it",
    ),
    ({"spatial": True, "epochs": 1, "patch": 8}, "patch says nothing without scale or target_data; add one or drop it"),
    (
        {"spatial": True, "epochs": 1, "patch": 8, "target_data": "masks", "task": "segmentation"},
        "patch says nothing beside task segmentation; drop it, or take crop_scale",
    ),
    (
        {"spatial": True, "epochs": 1, "scale": 2, "crop_scale": (0.5, 1)},
        "crop_scale says nothing beside scale, whose views are those of patch; drop it",
    ),
    (
        {"spatial": True, "epochs": 1, "target_data": "clean", "padding": 2},
        "padding says nothing beside target_data, whose views are those of patch; drop it",
    ),
    ({"spatial": True, "costs": "c.json"}, "costs says nothing without measure; add that or drop it"),
    ({"spatial": True, "threads": 3}, "threads says nothing without measure; add that or drop it"),
    ({"spatial": True, "plan": "p.json"}, "plan says what becomes of every layer, so spatial cannot be given beside"),
    ({"plan": "p.json", "include": ["3"], "refine": 1}, "so include, refine cannot be given beside it; drop them, or"),
)


@pytest.mark.parametrize(("settings", "said"), REFUSED)
def test_python_refuses_what_says_nothing(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        vfconvert.convert(network(), **{"data": IMAGES, **PLAIN, **settings})
    assert str(raised.value).startswith("convert(): ")


@pytest.mark.parametrize(
    "settings",
    [
        {"spatial": True, "windows": 2, "rate": None, "refine": 0, "damage_cache": None},
        {"layers": {"3": "channel"}, "windows": 3},
        {"layers": {"3": "both"}, "crops": "lines"},
    ],
)
def test_python_takes_defaults_and_what_a_layer_needs(settings: dict[str, Any]) -> None:
    assert vfconvert.convert(network(), data=IMAGES, **PLAIN, **settings).report.layers


def test_what_says_something_is_taken() -> None:
    classes = {"task": "segmentation", "padding": 2, "crop_scale": (0.5, 1.0)}
    taken: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
        (("training_momentum",), {"training": TrainingOptions(epochs=1, optimizer="sgd", momentum=0.5)}),
        (("training_patch",), {"training": TrainingOptions(epochs=1, scale=2, patch=8)}),
        (("training_patch",), {"training": TrainingOptions(epochs=1, patch=8), "target_data": Path("clean")}),
        (
            ("training_padding", "training_crop_scale", "target_data"),
            {"training": TrainingOptions(epochs=1, **classes), "target_data": Path("masks")},  # type: ignore[arg-type]
        ),
        (("costs", "threads"), {"measure": False, "targets": (Target(cost="latency", share=0.8),)}),
        (("threads",), {"measure": False, "int8": True}),
        (("threads",), {"measure": False, "precision": "fp16"}),
        (("augment",), {"augment": False, "reconstruct": False}),
        (("opset",), {"opset": 20, "formats": ("pt2", "onnx")}),
        (("dynamic_size",), {"dynamic_size": True, "formats": ("pt2", "safetensors")}),
        (("samples",), {"reports": (Path("r.HTML"),)}),
        (("samples",), {"reports": (Path("r.json"),)}),
        (("samples", "as_json"), {}),
        (("samples",), {"samples": 0}),
    )
    assert [problem(stated, spatial=True, **settings) for stated, settings in taken] == [None] * len(taken)


@pytest.mark.parametrize(
    ("stated", "settings", "said"),
    [
        ("trust_data_code", {"trust_data_code": True}, "<trust_data_code> says nothing without <data>; add that or"),
        ("augment", {"reconstruct": False}, "<augment> says nothing without <reconstruct>; drop it"),
        ("opset", {"formats": ("pt2", "safetensors")}, "<opset> says nothing without <formats> onnx; add that or drop"),
        (
            "dynamic_size",
            {"dynamic_size": True, "formats": ("safetensors",)},
            "<dynamic_size> says nothing of <formats> safetensors, which has no size; drop it",
        ),
        ("samples", {}, "<samples> says nothing without a page; add <reports> NAME.html or drop it"),
        ("samples", {"reports": (Path("r.md"),)}, "<samples> says nothing without a page; add <reports> NAME.html"),
    ],
)
def test_what_the_command_line_alone_has_is_refused_too(stated: str, settings: dict[str, Any], said: str) -> None:
    assert str(problem((stated,), has_images=False, spatial=True, **settings)).startswith(said)


def problem(stated: tuple[str, ...] = (), *, has_images: bool = True, **settings: Any) -> str | None:
    options = ConversionOptions(model=Path("m.pt"), **settings)
    return wrong_combination(options, stated, lambda name: f"<{name}>", has_images=has_images)


def test_the_words_are_the_callers() -> None:
    assert problem(spatial=True) is None
    assert problem(("training_task",), spatial=True, target_data=Path("masks")) is None
    assert problem(("training_rate",), spatial=True) == (
        "<training_rate> says nothing without <training_epochs>; add that or drop it"
    )
    assert problem(spatial=True, keep_on_fail=True) == (
        "<keep_on_fail> says nothing without a gate; add one, like <max_size> 5MB, or drop it"
    )
    assert problem(max_drop=1.0, dry_run=True) == (
        "<max_drop> has to fit networks, and <dry_run> fits none; drop one of the two"
    )
    assert problem(spatial=True, forms="plain", int8=True) is None
    for gate in ({"max_latency_ratio": 0.9}, {"fail_under_saving": (Saving(cost="macs", share=0.2),)}):
        assert problem(spatial=True, forms="plain", **gate) == (
            f"<forms> plain takes the original's products and time, so <{next(iter(gate))}> would fail; "
            "drop one of the two"
        )
    assert problem(spatial=True, forms="plain", max_latency_ratio=1.1) is None
