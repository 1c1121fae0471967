"""An original that answers all images alike is told of: what agrees with it proves little."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.reporting.samples import FULL
from vfconvert.planning import Plan
from vfconvert.reporting.cautions import warnings_of
from vfconvert.reporting.describe import Answers, agreement_of
from vfconvert.reporting.report import AgreementReport, ImagesReport


def found(outputs: Tensor, *, class_maps: bool = False) -> AgreementReport:
    assert FULL.images is not None
    images = torch.zeros(len(outputs), 3, 4, 4)
    return agreement_of(Answers(outputs, outputs), images, None, 0, FULL.images, class_maps=class_maps)


def said(report: AgreementReport, images: ImagesReport | None = FULL.images) -> str:
    return " ".join(warnings_of(Plan(decisions=()), nn.Identity(), images, report, alone=None))


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
    report, images = found(torch.ones(6, 3)), FULL.images
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
