"""Agreement measures what it says, of logits, of maps of classes and of images."""

import math

import pytest
import torch

from vfconvert.errors import ParityError
from vfconvert.verification import agreement, top1_accuracy

LOGITS = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 4.0], [1.0, 7.0]])


def test_agreement_of_logits_is_the_share_of_equal_choices() -> None:
    found = agreement(LOGITS, torch.tensor([[3.0, 1.0], [2.0, 0.0], [5.0, 4.0], [1.0, 7.0]]))
    assert (found.samples, found.top1, found.psnr) == (4, 0.75, None)
    assert found.relative_error == pytest.approx(math.sqrt(8 / LOGITS.square().sum()))
    assert agreement(LOGITS, 2 * LOGITS).top1 == 1
    assert agreement(LOGITS, LOGITS.flip(1)).top1 == 0


def test_agreement_of_class_maps_is_the_share_of_equal_pixels() -> None:
    maps = torch.zeros(2, 3, 4, 4)
    maps[:, 1] = 1
    other = maps.clone()
    other[0, 2, 0] = 2
    found = agreement(maps, other, class_maps=True)
    assert (found.measure, found.value, found.top1, found.psnr) == ("pixel agreement", 28 / 32, None, None)
    other[1, :, 3, 3] = math.nan
    assert agreement(maps, other, class_maps=True).value == 27 / 32
    assert agreement(maps, other.nan_to_num()).measure == "PSNR"


def test_agreement_never_counts_numbers_that_are_not_finite() -> None:
    broken = LOGITS.clone()
    broken[0, 0], broken[1, 1] = math.inf, math.nan
    assert agreement(LOGITS, broken).top1 == 0.5
    assert agreement(broken, broken).top1 == 0.5


def test_agreement_of_images_is_psnr_with_the_range_as_peak() -> None:
    reference = torch.linspace(-1, 3, 24).view(2, 3, 2, 2)
    found = agreement(reference, reference + 0.04)
    assert found.top1 is None
    assert found.psnr == pytest.approx(40.0, abs=1e-4)
    assert found.relative_error == pytest.approx(0.04 * math.sqrt(24) / float(reference.norm()), rel=1e-4)
    assert agreement(reference, reference).psnr == math.inf
    assert agreement(torch.zeros(2, 1), torch.ones(2, 1)).psnr == -math.inf
    assert agreement(reference, reference.flip(0)).psnr < 10


def test_agreement_refuses_other_shapes_and_no_images() -> None:
    with pytest.raises(ParityError, match=r"got outputs of shape \(3, 2\), expected \(4, 2\)"):
        agreement(LOGITS, LOGITS[:3])
    with pytest.raises(ParityError, match=r"expected \(0, 2\) with at least one image"):
        agreement(LOGITS[:0], LOGITS[:0])


def test_top1_accuracy() -> None:
    assert top1_accuracy(LOGITS, torch.tensor([0, 1, 1, 1])) == 0.75
    assert top1_accuracy(LOGITS, torch.tensor([1, 0, 1, 0])) == 0
    assert top1_accuracy(torch.full((2, 2), math.nan), torch.tensor([0, 0])) == 0
