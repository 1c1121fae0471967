"""How many inputs a network is given: what the user states, what images given together tell, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from tests.several_nets import Flow, Matting
from vfconvert.data.given import given_examples
from vfconvert.errors import InputShapeError
from vfconvert.nn.several_inputs import Inputs, takes_any_number
from vfconvert.options import ConversionOptions
from vfconvert.several import prepared_channels, refuse_targets, wanted_inputs
from vfconvert.training_options import TrainingOptions


def asked(*shapes: tuple[int, int, int], **options: object) -> ConversionOptions:
    shape = None if not shapes else shapes[0] if len(shapes) == 1 else shapes
    return ConversionOptions(model=Path("m.pt"), input_shape=shape, **options)  # type: ignore[arg-type]


def test_options_know_every_shape_and_that_of_all():
    assert asked().input_shapes == ()
    assert asked().whole_shape is None
    assert asked((3, 8, 9)).input_shapes == ((3, 8, 9),)
    assert asked((3, 8, 9), (1, 8, 9)).input_shapes == ((3, 8, 9), (1, 8, 9))
    assert asked((3, 8, 9), (1, 8, 9)).whole_shape == (4, 8, 9)


def test_inputs_are_those_that_are_stated():
    assert wanted_inputs(Matting(), asked((3, 8, 8), (1, 8, 8))) == Inputs(("image", "mask"), (3, 1))
    assert wanted_inputs(nn.Conv2d(3, 4, 1), asked((3, 8, 8))) is None
    assert wanted_inputs(nn.Conv2d(3, 4, 1), asked()) is None


def test_inputs_are_those_of_images_given_together():
    images = given_examples(TensorDataset(torch.rand(4, 3, 8, 8), torch.rand(4, 1, 8, 8)))
    assert wanted_inputs(Matting(), asked(), images) == Inputs(("image", "mask"), (3, 1))
    assert wanted_inputs(nn.Conv2d(3, 4, 1), asked(), images) is None


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ((), r"Matting takes 2 inputs \(image, mask\), got no --input-shape; give --input-shape once for each of them"),
        ((), r"or data whose items are tuples of as many images, like TensorDataset\(first, second\)"),
        (((3, 8, 8),), "takes 2 inputs .*, got 1 --input-shape; give --input-shape once for each"),
        (((3, 8, 8), (1, 8, 9)), "inputs of 8x8 and 8x9, expected one height and width"),
        (((3, 8, 8), (1, 8, 8), (1, 8, 8)), r"is given 3 times, and Matting takes 2 \(image, mask\)"),
    ],
)
def test_other_numbers_of_inputs_are_refused(shapes, said):
    with pytest.raises(InputShapeError, match=said):
        wanted_inputs(Matting(), asked(*shapes))


class Any(nn.Module):
    """Takes as many images as are given."""

    def forward(self, image, *others):
        return image


def test_a_forward_that_takes_any_number_is_given_as_many_as_are_stated():
    assert wanted_inputs(Any(), asked((3, 8, 8), (1, 8, 8))) == Inputs(("image", "input_1"), (3, 1))
    assert wanted_inputs(Any(), asked((3, 8, 8))) is None
    assert wanted_inputs(Any(), asked()) is None
    assert takes_any_number(Any())
    assert not takes_any_number(Matting())


@pytest.mark.parametrize(
    ("channels", "options", "wanted"),
    [
        ((1, 3), {}, 1),
        ((3, 1), {}, 3),
        ((1, 3), {"mean": (0.5, 0.5, 0.5)}, 3),
        ((3, 1), {"std": (0.5,)}, 1),
        ((1, 3), {"preset": "ResNet18_Weights.IMAGENET1K_V1"}, 3),
        ((6, 1), {"mean": (0.5, 0.5, 0.5)}, 1),  # which is refused then
        ((6, 2), {}, 3),
    ],
)
def test_mean_and_std_are_for_inputs_of_as_many_channels_in_any_order(channels, options, wanted):
    assert prepared_channels(Inputs(("a", "b"), channels), asked(**options)) == wanted


def test_an_optional_argument_is_no_input_unless_it_is_asked_for():
    assert wanted_inputs(Flow(), asked((3, 8, 8), (3, 8, 8))) == Inputs(("first", "second"), (3, 3))
    with pytest.raises(InputShapeError, match=r"takes 2 inputs \(first, second\), got no"):
        wanted_inputs(Flow(), asked())


@pytest.mark.parametrize(
    ("options", "named"),
    [({"target_data": Path("clean")}, "--target-data"), ({"training": TrainingOptions(epochs=1, scale=2)}, "--scale")],
)
def test_targets_of_a_restoration_are_refused(options, named):
    refuse_targets(asked())
    with pytest.raises(InputShapeError, match=f"^{named} goes with networks of one input"):
        refuse_targets(asked(**options))
