"""Segmentations as pictures: colours of classes, shares of pixels, samples that show them."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.test_samples import ALL, Shades, pixels_of, read
from vfconvert import samples
from vfconvert.class_maps import alike, colour, coloured, resized
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.restoration import RestorationTransform
from vfconvert.data.transforms import TrainTransform
from vfconvert.judging import agreement_on, are_class_maps, judged
from vfconvert.reporting.describe import points_lost

PLAIN = TrainTransform(preprocessing=Preprocessing())


class Masked(Shades):
    """The same images, each with a mask: the left half class 1, the right half class 2, the last row open."""

    def read(self, index):
        mask = np.ones((self.side, self.side), dtype=np.uint8)
        mask[:, self.side // 2 :] = 2
        mask[-1] = 255
        return super().read(index)[0], Image.fromarray(mask)


def maps(count=6, right=2):
    """Logits of three classes: the left half class 1, the right half class `right`."""
    classes = torch.ones(count, 8, 8, dtype=torch.long)
    classes[:, :, 4:] = right
    return torch.nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2).float() * 4


def test_maps_stand_beside_the_labels():
    source, images = read(PLAIN, Masked())
    first = samples.samples_of(source, replace(images, labels=None), ALL, maps(), maps(right=0), 2, class_maps=True)[0]
    assert first.same_pixels == 0.5
    assert (first.original.right_pixels, first.converted.right_pixels) == (1.0, 0.5)
    assert not first.same
    assert first.psnr is None
    difference = pixels_of(first.difference)
    assert (difference[:, :4] == 0).all()
    assert (difference[:, 4:] == 255).all()
    assert np.array_equal(pixels_of(first.given), np.asarray(Masked().read(5)[0]))
    labelled, answer = pixels_of(first.clean), pixels_of(first.original.picture)
    assert np.array_equal(labelled[:-1], answer[:-1])
    assert not np.array_equal(labelled[-1], answer[-1])


def test_masks_say_that_outputs_are_maps():
    source, _ = read(PLAIN, Masked())
    assert samples.knows_class_maps(source, (5,), maps())
    assert not samples.knows_class_maps(source, (5,), maps()[:, :1])
    assert not samples.knows_class_maps(source, (5,), maps()[..., 0])


def test_equal_maps_are_the_same():
    source, images = read(PLAIN, Masked())
    found = samples.samples_of(source, replace(images, labels=None), ALL, maps(), maps(), 4, class_maps=True)
    assert [(one.chosen, one.same_pixels, one.same) for one in found] == [("drawn", 1.0, True)] * 2


def test_maps_of_a_presets_classes_need_no_masks(monkeypatch):
    monkeypatch.setattr(samples, "categories", lambda preset: ("a", "b", "c"))
    source, images = read(PLAIN)
    assert samples.knows_class_maps(source, (5,), maps()) is None
    assert samples.samples_of(source, images, ALL, maps(), maps(), 2) == ()
    prepared = TrainTransform(preprocessing=Preprocessing(preset="FCN_ResNet50_Weights.DEFAULT"))
    monkeypatch.setattr(Preprocessing, "pixels", lambda self, batch: batch)
    source = replace(source, transform=prepared)
    assert samples.knows_class_maps(source, (5,), maps())
    assert samples.knows_class_maps(source, (5,), maps()[:, :2]) is None
    first = samples.samples_of(source, images, ALL, maps(), maps(right=0), 2, class_maps=True)[0]
    assert (first.same_pixels, first.clean, first.original.right_pixels) == (0.5, None, None)


def test_colours_lie_over_the_grey_image():
    grey = torch.full((1, 2, 4), 0.5)
    made = coloured(torch.tensor([[0, 1]]), grey)
    for column, index in enumerate((0, 0, 1, 1)):
        wanted = 0.6 * torch.tensor(colour(index)) + 0.4 * 0.5
        torch.testing.assert_close(made[:, 0, column], wanted)
    assert len({colour(index) for index in range(200)}) == 200


def test_shares_by_hand():
    first, second = torch.tensor([[0, 1], [2, 3]]), torch.tensor([[0, 1], [2, 0]])
    assert alike(first, second) == 0.75
    assert alike(first, second, first > 1) == 0.5
    assert alike(first, second, first > 9) is None
    assert resized(torch.tensor([[1, 2]]), (2, 4)).tolist() == [[1, 1, 2, 2]] * 2


@pytest.mark.parametrize("side", [300])
def test_large_maps_are_shown_whole(side):
    examples = Masked(side=side)
    source, images = read(PLAIN, examples, indices=(0, 1))
    first = samples.samples_of(source, replace(images, labels=None), ALL, maps(2), maps(2), 2, class_maps=True)[0]
    assert (first.given.width, first.original.picture.height, first.difference.width) == (256, 256, 256)
    assert Image.open(io.BytesIO(first.clean.png)).size == (256, 256)


class Restored(Shades):
    """The same images, each with a clean one."""

    def read(self, index):
        return super().read(index)[0], super().read(index)[0]


@pytest.mark.parametrize(
    ("examples", "channels", "named", "wanted"),
    [
        pytest.param(Masked(), 3, False, True, id="masks"),
        pytest.param(Shades(), 5, False, False, id="nothing tells"),
        pytest.param(Shades(), 5, True, True, id="the name"),
        pytest.param(Shades(), 3, True, False, id="an image by that name"),
    ],
)
def test_the_data_tells_then_the_name(examples, channels, named, wanted):
    source, made = read(PLAIN, examples)
    outputs = torch.zeros(2, channels, 8, 8)
    assert are_class_maps({"out": outputs} if named else outputs, source, replace(made, labels=None)) == wanted


def test_clean_images_say_that_outputs_are_none():
    source, made = read(RestorationTransform(preprocessing=Preprocessing()), Restored())
    assert not are_class_maps({"out": torch.zeros(2, 5, 8, 8)}, source, replace(made, labels=None))


def test_trials_gates_and_reports_count_pixels():
    source, made = read(PLAIN, Masked())
    made = replace(made, labels=None)
    found, shown, doubts = judged(_Maps(2), _Maps(0), made, ALL, source, 2)
    assert (found.measure, found.value, len(shown), doubts) == ("pixel agreement", 0.5, 2, ())
    assert points_lost(agreement_on(_Maps(2), _Maps(0), made, ALL, source)) == 50


class _Maps(nn.Module):
    """The left half class 1, the right half class `right`, whatever the images."""

    def __init__(self, right):
        super().__init__()
        self.right = right

    def forward(self, x):
        return maps(len(x), self.right)
