"""Cautions: an original that answers all alike, few images to judge by, and what to do of what was not done."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.reporting.samples import FULL
from vfconvert.options import ConversionOptions
from vfconvert.planning import Plan
from vfconvert.reporting.cautions import warnings_of
from vfconvert.reporting.describe import Answers, agreement_of
from vfconvert.reporting.report import AgreementReport, ImagesReport
from vfconvert.targets import Target
from vfconvert.training_options import TrainingOptions


def found(outputs: Tensor, *, class_maps: bool = False) -> AgreementReport:
    assert FULL.images is not None
    images = torch.zeros(len(outputs), 3, 4, 4)
    return agreement_of(Answers(outputs, outputs), images, None, 0, FULL.images, class_maps=class_maps)


def said(
    report: AgreementReport, images: ImagesReport | None = FULL.images, *, chosen_by: int = 0, **given: Any
) -> str:
    """The sentences in one; of enough images where nothing else is said."""
    options = ConversionOptions(model=Path("m.pt"), **given)
    plan = Plan(decisions=())
    return " ".join(warnings_of(plan, nn.Identity(), images, report, options, alone=None, chosen_by=chosen_by))


def test_different_answers_are_counted() -> None:
    logits = torch.eye(3)[[0, 1, 1, 0, 1]] + torch.arange(5.0)[:, None]
    assert found(logits).distinct == 2
    maps = torch.zeros(5, 3, 2, 2)
    maps[2, 2, 0] = 1
    assert found(maps, class_maps=True).distinct == 2
    assert found(maps).distinct == 2  # other than the rest
    assert found(torch.arange(5.0).view(5, 1, 1)).distinct == 5


def test_one_class_in_all_images_is_told() -> None:
    logits = torch.tensor([0.0, 1.0, 0.5]) + torch.rand(6, 3) * 0.1
    assert "finds one class in all of 6 images, so that agreement with it tells little" in said(found(logits))
    logits[4, 0] = 9
    assert "tells little" not in said(found(logits))


def test_how_images_are_prepared_is_asked_where_it_may_be_said() -> None:
    report, images = found(torch.ones(20, 3)), FULL.images
    assert images is not None
    options = "are they prepared as in training (--preset, or --mean, --std and --size)?"
    assert options in said(report, images)
    tensors = said(report, replace(images, preprocessing="none: tensors are taken as they are"))
    assert tensors.endswith("tells little: are they prepared as in training?")
    assert "tells little no --data was given" in said(report, replace(images, source="synthetic"))
    assert said(report, None).endswith("tells little")


def test_outputs_that_are_all_the_same_are_told() -> None:
    outputs = torch.ones(6, 1, 2, 2)
    assert "answers 6 images alike, so that agreement with it tells little" in said(found(outputs))
    outputs[3, 0, 1, 1] += 1e-3
    assert "tells little" not in said(found(outputs))


@pytest.mark.parametrize("change", [{"images": 3}, {"distinct": None}, {"distinct": 2}])
def test_of_few_images_or_reports_without_the_count_nothing_is_said(change: dict[str, int | None]) -> None:
    report = found(torch.ones(6, 3))
    assert "tells little" in said(report)
    assert "tells little" not in said(replace(report, **change))  # type: ignore[arg-type]


CLASSES = AgreementReport(measure="top-1 agreement", value=1.0, relative_error=0.0, images=3, held_out=True, distinct=2)
PIXELS, PSNR = replace(CLASSES, measure="pixel agreement"), replace(CLASSES, measure="PSNR", value=60.0)


def test_few_images_to_judge_by_are_told() -> None:
    assert said(CLASSES) == "only 3 images held out to judge by, of which one is worth 33.3 points: give more images"
    assert said(replace(CLASSES, images=1)).startswith("only 1 image held out to judge by, of which one is worth 100 ")
    assert said(replace(CLASSES, images=19)).startswith("only 19 images")
    for report in (PIXELS, PSNR):
        assert said(report) == "only 3 images held out to judge by: give more images"
    assert said(replace(CLASSES, images=20)) == ""


def test_of_synthetic_images_or_none_held_out_it_is_not_said() -> None:
    assert FULL.images is not None
    assert "held out to judge by" not in said(CLASSES, replace(FULL.images, source="synthetic"))
    assert said(replace(CLASSES, held_out=False)) == ""
    assert said(CLASSES, None) == ""


def test_a_limit_of_less_than_one_image_is_told() -> None:
    report = replace(CLASSES, images=50)
    told = "--fail-over-drop 0.5 is less than the 2 points that one of the 50 images is worth which judge: "
    assert said(report, fail_over_drop=0.5) == f"{told}give more images"
    assert said(report, fail_over_drop=2.0) == ""
    assert said(report, fail_over_drop=0.0) == ""  # no loss at all, of however many
    told = "--max-drop 1 is less than the 2.5 points that one of the 40 images is worth which choose the plan: "
    assert said(report, max_drop=1.0, chosen_by=40) == f"{told}give more images"
    assert said(report, max_drop=2.5, chosen_by=40) == ""
    for smooth in (PIXELS, PSNR):
        assert said(replace(smooth, images=50), fail_over_drop=0.5, max_drop=0.5, chosen_by=40) == ""


ADVICE = (
    (
        {"spatial": True, "channel": True},
        "convert fewer layers (--exclude, --spatial alone or --target), or fine-tune it (--epochs)",
    ),
    (
        {"spatial": True, "reconstruct": False, "data": Path("images")},
        "convert fewer layers (--exclude or --target), use --crops lines, drop --no-reconstruct, "
        "give more --calibration-images, or fine-tune it (--epochs)",
    ),
    (
        {"spatial": True, "crops": "lines", "data": Path("images"), "training": TrainingOptions(epochs=3)},
        "convert fewer layers (--exclude or --target), give more --calibration-images, or train for more --epochs",
    ),
    ({"plan": Path("p.json")}, "convert fewer layers in the plan, or fine-tune it (--epochs)"),
    ({"targets": (Target(cost="params", share=0.5),)}, "allow a higher --target, or fine-tune it (--epochs)"),
    ({"max_drop": 1.0}, "allow a smaller --max-drop, or fine-tune it (--epochs)"),
)


@pytest.mark.parametrize(("given", "advice"), ADVICE)
def test_what_was_not_done_is_advised(given: dict[str, Any], advice: str) -> None:
    low = replace(CLASSES, images=1000, value=0.9)
    assert said(low, **given).endswith(f"agrees with the original on 90.00 % of the images, below 95%: {advice}")
    far = replace(PSNR, images=1000, relative_error=0.1)
    assert said(far, **given) == f"the outputs differ from the original's by 10.00 % of their size: {advice}"
    changed = replace(PSNR, images=1000, relative_change=0.5)
    assert said(changed, **given).endswith(f"from the original's by 50.00 % of its size: {advice}")
