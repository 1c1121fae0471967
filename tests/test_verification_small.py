"""Outputs near zero are compared by what float32 can tell of them, or are said to be too small."""

import pytest
import torch
from torch import Tensor, nn

from vfconvert.errors import ParityError
from vfconvert.verification.parity import Cases, OpenFile, Parity, verify

IMAGES = torch.zeros(1, 3, 2, 2)


class Fixed(nn.Module):
    """Outputs `values`, whatever the images are."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def forward(self, x: Tensor) -> Tensor:
        return self.values.expand(len(x), -1)


def compared(wanted: Tensor, got: Tensor) -> Parity:
    file = OpenFile(
        runtime="a runtime", version="1", fixed_batch=None, run=lambda x: [("output", got.expand(len(x), -1))]
    )
    cases = Cases(images=IMAGES, batch_sizes=(1,), sizes=(), tolerance=1e-4)
    return verify(lambda: file, "a runtime", Fixed(wanted), cases)


@pytest.mark.parametrize("size", [1e-5, 1e-3])
def test_small_outputs_may_differ_by_a_step_of_float32(size: float) -> None:
    wanted = torch.linspace(0, size, 5)
    parity = compared(wanted, wanted + 1e-7)
    assert parity.relative_error == pytest.approx(1e-7 / (2**-23 / 1e-4), rel=0.02)
    with pytest.raises(ParityError, match=r"max\|Δ\| is 1.5e-07 at .* allowed 0.0001; do not use the file"):
        compared(wanted, wanted + 1.5e-7)


def test_outputs_of_hardly_anything_are_compared_to_the_letter_or_not_at_all() -> None:
    wanted = torch.linspace(0, 1e-8, 5)
    assert compared(wanted, wanted * (1 + 5e-5)).relative_error < 1e-4
    with pytest.raises(ParityError, match=r"are 1e-08 at most on these images, too small .* images in which"):
        compared(wanted, torch.zeros(5))
