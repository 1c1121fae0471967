"""A network that enlarges rounding: its file may be as far from it as it is from itself in float64, and no farther."""

import pytest
import torch
from torch import Tensor, nn

from vfconvert.errors import ParityError
from vfconvert.verification.parity import Cases, OpenFile, Parity, verify
from vfconvert.verification.rounding import Rounding, allowed

IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) / 8


class Added(nn.Module):
    """Adds a number and takes it away again, which leaves of the images what float32 holds beside that number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.tensor(number))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.number - self.number


class Single(Added):
    """The same, in float32 whatever it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float() + torch.zeros(1).float()).float()


def compared(model: nn.Module, beyond: float) -> Parity:
    """With a file that is off by `beyond` of the largest output, everywhere."""

    def run(images: Tensor) -> list[tuple[str, Tensor]]:
        with torch.no_grad():
            outputs = model(images)
        return [("output", outputs + beyond * outputs.abs().max())]

    file = OpenFile(runtime="a runtime", version="1", fixed_batch=None, run=run)
    return verify(lambda: file, "a runtime", model, Cases(images=IMAGES, batch_sizes=(2,), sizes=(), tolerance=1e-4))


def test_what_rounding_leaves_open_is_measured() -> None:
    share = Rounding(Added(1024.0)).share("output", Added(1024.0)(IMAGES), IMAGES)
    lost = ((IMAGES + 1024.0 - 1024.0).double() - IMAGES.double()).abs().max() / IMAGES.double().abs().max()
    assert share == pytest.approx(float(lost), rel=1e-9)
    assert 1e-4 < share < 1e-3
    assert Rounding(Added(0.0)).share("output", IMAGES, IMAGES) == 0


def test_it_is_unknown_of_what_has_no_float64() -> None:
    assert Rounding(Single(1024.0)).share("output", Added(1024.0)(IMAGES), IMAGES) == 0
    assert Rounding(nn.Conv2d(4, 1, 1)).share("output", IMAGES, IMAGES) == 0
    assert Rounding(Added(1024.0)).share("other", Added(1024.0)(IMAGES), IMAGES) == 0


def test_a_file_may_be_off_by_twice_what_is_open_and_says_so() -> None:
    share = Rounding(Added(1024.0)).share("output", Added(1024.0)(IMAGES), IMAGES)
    parity = compared(Added(1024.0), 1.9 * share)
    assert parity.relative_error == pytest.approx(1.9 * share, rel=0.01)
    assert parity.tolerance == pytest.approx(2 * share)
    with pytest.raises(ParityError, match=r"relative error 0.001.*, allowed 0.0009.*; do not use the file, and report"):
        compared(Added(1024.0), 2.2 * share)


def test_a_network_that_does_not_enlarge_it_is_held_to_the_tolerance() -> None:
    assert compared(Added(0.0), 9e-5).tolerance == 1e-4
    with pytest.raises(ParityError, match=r"allowed 0.0001; do not use the file, and report"):
        compared(Added(0.0), 2e-4)


def test_where_all_is_open_nothing_is_compared() -> None:
    assert compared(Added(2.0**17), 9e-3).tolerance == 1e-2
    with pytest.raises(
        ParityError, match=r"allowed 0.01; the converted network enlarges rounding: in float64 .* by 0.\d+"
    ):
        compared(Added(2.0**17), 1.5e-2)


def test_limits() -> None:
    assert [allowed(1e-4, share) for share in (0.0, 4e-5, 1e-3, 0.3)] == [1e-4, 1e-4, 2e-3, 1e-2]
