"""A network that enlarges rounding: its file may be as far from it as it is from itself in float64, and no farther."""

from collections.abc import Callable

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


class Asserting(Added):
    """Takes nothing else than float32."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        return super().forward(x)


class Flipping(nn.Module):
    """One number of all is rounded away, the others are exact."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        open_number = torch.zeros_like(x)
        open_number[:, 0, 0, 0] = 4096.0
        return x * self.scale + open_number - open_number


def checked(model: nn.Module, run: Callable[[Tensor], Tensor]) -> Parity:
    """A network against a file that computes `run`."""
    file = OpenFile(runtime="a runtime", version="1", fixed_batch=None, run=lambda x: [("output", run(x).detach())])
    return verify(lambda: file, "a runtime", model, Cases(images=IMAGES, batch_sizes=(2,), sizes=(), tolerance=1e-4))


def beyond(times: float, model: Added) -> Parity:
    """Against a file that is farther from the exact sum by `times` the network's own rounding."""
    return checked(model, lambda x: model(x) + times * (model(x) - x))


def test_what_rounding_leaves_open_is_measured() -> None:
    share = Rounding(Added(1024.0)).of("output", Added(1024.0)(IMAGES), IMAGES).relative
    lost = ((IMAGES + 1024.0 - 1024.0).double() - IMAGES.double()).abs().max() / IMAGES.double().abs().max()
    assert share == pytest.approx(float(lost), rel=1e-9)
    assert 1e-4 < share < 1e-3
    assert Rounding(Added(0.0)).of("output", IMAGES, IMAGES).relative == 0


def test_it_is_unknown_of_what_has_no_float64() -> None:
    for model in (Single(1024.0), Asserting(0.0), nn.Conv2d(4, 1, 1)):
        assert Rounding(model).of("output", Added(1024.0)(IMAGES), IMAGES) is None
    assert Rounding(Added(1024.0)).of("other", Added(1024.0)(IMAGES), IMAGES) is None


def test_a_file_may_be_off_by_twice_what_is_open_and_says_so() -> None:
    model = Added(1024.0)
    share = Rounding(model).of("output", model(IMAGES), IMAGES).relative
    parity = beyond(1.9, model)
    assert parity.relative_error == pytest.approx(1.9 * share, rel=0.01)
    assert parity.tolerance == pytest.approx(2 * share)
    with pytest.raises(ParityError, match=r"relative error 0.001.*, allowed 0.0009.*; do not use the file, and report"):
        beyond(2.2, model)


def test_a_network_that_does_not_enlarge_it_is_held_to_the_tolerance() -> None:
    model = Added(0.0)
    assert checked(model, lambda x: (1 + 9e-5) * model(x)).tolerance == 1e-4
    with pytest.raises(ParityError, match=r"allowed 0.0001; do not use the file, and report"):
        checked(model, lambda x: (1 + 2e-4) * model(x))


def test_where_all_is_open_nothing_is_compared() -> None:
    assert beyond(0.14, Added(2.0**17)).tolerance == 1e-2
    with pytest.raises(
        ParityError, match=r"allowed 0.01; the converted network enlarges rounding: in float64 .* by 0.\d+"
    ):
        beyond(0.25, Added(2.0**17))


def test_limits() -> None:
    assert [allowed(1e-4, share) for share in (0.0, 4e-5, 1e-3, 0.3)] == [1e-4, 1e-4, 2e-3, 1e-2]


def test_one_number_that_is_open_excuses_no_other() -> None:
    model = Flipping()
    share = Rounding(model).of("output", model(IMAGES), IMAGES)
    assert 2 * share.relative > 5e-4 > 2 * share.typical
    with pytest.raises(ParityError, match=r"relative error 0.000\d+, allowed 0.00\d+; do not use the file"):
        checked(model, Flipping(1.0005))


class Table(nn.Module):
    """Boxes in pixels and scores of places in one table, `(B, 5, n)`, or turned round."""

    def __init__(self, scores: float, turned: bool) -> None:
        super().__init__()
        self.scores, self.turned = scores, turned

    def forward(self, x: Tensor) -> Tensor:
        table = torch.cat([640 * x[:, :1].expand(-1, 4, -1, -1), self.scores * x[:, 1:2]], 1).flatten(2)
        return table.transpose(1, 2) if self.turned else table


@pytest.mark.parametrize("turned", [False, True])
def test_small_numbers_beside_large_ones_are_compared_too(turned: bool) -> None:
    model = Table(0.2, turned)
    assert checked(model, Table(0.2 * (1 + 1e-6), turned)).relative_error < 1e-6
    for wrong in (0.0, 0.3):
        with pytest.raises(ParityError, match=r"relative error 0.0\d+, allowed 0.0001"):
            checked(model, Table(wrong, turned))


def test_repeated_images_are_not_the_same() -> None:
    cases = Cases(images=IMAGES[:1], batch_sizes=(5,), sizes=(), tolerance=1e-4)
    batch = cases.batch(4, None)
    assert batch.shape == (4, 3, 4, 4)
    assert torch.equal(batch[0], IMAGES[0])
    assert all(not torch.equal(batch[i], batch[j]) for i in range(4) for j in range(i))
