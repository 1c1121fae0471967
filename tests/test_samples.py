"""Sample images: which are shown, what is said of both answers, and that pictures show the pixels."""

import io
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.restoration import RestorationTransform
from vfconvert.data.transforms import TrainTransform
from vfconvert.inputs import Images, Source
from vfconvert.reporting.report import ImagesReport
from vfconvert.samples import categories, samples_of

MADE = ImagesReport(source="memory", method="all", calibration=1, held_out=6, preprocessing="RGB")
ALL = slice(None)


@dataclass(frozen=True)
class Shades:
    """Six images of 8x8 pixels, each of noise; the label of all is 1."""

    class_names: tuple[str, ...] = ("cat", "dog", "eel")
    root: str = "memory"
    classes: int = 3
    side: int = 8

    def __len__(self):
        return 6

    def name(self, index):
        return f"{index}.png"

    def read(self, index):
        pixels = np.random.default_rng(index).integers(0, 256, (self.side, self.side, 3), dtype=np.uint8)
        return Image.fromarray(pixels), 1

    def labels(self):
        return (1,) * 6


PREPARED = Preprocessing(mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 2.0))


def read(transform=None, examples=None, indices=(5, 3, 1, 0, 2, 4)):
    """A source, and its images in the order of `indices`."""
    examples = examples or Shades()
    transform = transform or TrainTransform(preprocessing=PREPARED)
    source = Source(shape=(3, examples.side, examples.side), examples=examples, transform=transform)
    judging = torch.stack([source.read(index) for index in indices])
    labels = torch.tensor([examples.labels()[index] for index in indices])
    images = Images(
        calibration=judging[:1],
        judging=judging,
        labels=labels,
        classes=examples.classes,
        choosing=0,
        report=MADE,
        indices=tuple(indices),
    )
    return source, images


def logits(*classes, scale=4.0):
    """Rows that name these of three classes."""
    return scale * torch.nn.functional.one_hot(torch.tensor(classes), 3).float()


def pixels_of(picture):
    return np.asarray(Image.open(io.BytesIO(picture.png)))


def test_first_are_drawn_then_come_those_that_differ_most():
    source, images = read()
    wanted = logits(0, 0, 0, 0, 0, 0)
    got = torch.cat([logits(0, 1, 0), logits(1, scale=2.0), logits(0), logits(2)])
    found = samples_of(source, images, ALL, wanted, got, 4)
    assert [(sample.name, sample.chosen) for sample in found] == [
        ("5.png", "drawn"),
        ("3.png", "drawn"),
        ("4.png", "differs"),  # the surest
        ("0.png", "differs"),
    ]
    assert [sample.same for sample in found] == [True, False, False, False]


def test_all_that_agree_are_shown_as_drawn_only():
    source, images = read()
    found = samples_of(source, images, ALL, logits(0, 1, 2, 0, 1, 2), logits(0, 1, 2, 0, 1, 2), 4)
    assert [sample.chosen for sample in found] == ["drawn", "drawn"]


def test_a_part_has_its_own_names_and_labels():
    source, images = read()
    images = replace(images, labels=torch.tensor([0, 0, 0, 2, 2, 2]))
    (first, *_) = samples_of(source, images, slice(3, None), logits(0, 0, 0), logits(0, 0, 0), 2)
    assert (first.name, first.label) == ("0.png", "eel")


def test_answers_have_names_and_probabilities():
    source, images = read()
    wanted, got = logits(*[0] * 6), logits(*[1] * 6)
    sample = samples_of(source, images, ALL, wanted, got, 1)[0]
    share = math.exp(4) / (math.exp(4) + 2)
    assert (sample.label, sample.original.class_name, sample.converted.class_name) == ("dog", "cat", "dog")
    assert (sample.original.class_index, sample.converted.class_index) == (0, 1)
    assert sample.original.probability == pytest.approx(share, rel=1e-6)


def test_outputs_that_are_probabilities_already_stay_so():
    source, images = read()
    rows = torch.tensor([[0.5, 0.3, 0.2]]).repeat(6, 1)
    assert samples_of(source, images, ALL, rows, rows, 1)[0].original.probability == pytest.approx(0.5, rel=1e-6)


def test_other_classes_than_the_datas_have_no_names_and_no_label():
    source, images = read()
    rows = torch.randn(6, 5)
    sample = samples_of(source, images, ALL, rows, rows, 1)[0]
    assert (sample.original.class_name, sample.label) == (None, None)


def test_categories_of_a_preset_are_those_of_its_weights():
    assert categories("ResNet18_Weights.IMAGENET1K_V1")[:2] == ("tench", "goldfish")


def test_picture_shows_the_pixels_of_the_file():
    source, images = read()
    sample = samples_of(source, images, ALL, logits(*[0] * 6), logits(*[0] * 6), 1)[0]
    assert (sample.given.width, sample.given.height) == (8, 8)
    assert np.abs(pixels_of(sample.given).astype(int) - np.asarray(Shades().read(5)[0])).max() == 0


def test_meta_a_picture_without_mean_and_deviation_undone_differs():
    source, images = read()
    source = replace(source, transform=TrainTransform(preprocessing=Preprocessing()))
    sample = samples_of(source, images, ALL, logits(*[0] * 6), logits(*[0] * 6), 1)[0]
    assert np.abs(pixels_of(sample.given).astype(int) - np.asarray(Shades().read(5)[0])).max() > 20


def test_large_input_of_a_classifier_becomes_a_thumbnail():
    source, images = read(examples=Shades(side=320))
    sample = samples_of(source, images, ALL, logits(*[0] * 6), logits(*[0] * 6), 1)[0]
    assert (sample.given.width, sample.given.height) == (160, 160)


def test_restored_pictures_stand_beside_the_clean_one():
    source, images = read(RestorationTransform(scale=2), Shades(side=16))
    clean = torch.stack([source.pair(index)[1] for index in images.indices])
    wanted, got = clean + 0.01, clean.clone()
    got[:, :, ::2] += 0.02  # inside 0 to 1 but for a few pixels
    inside = [int(index) for index in ((clean + 0.02).flatten(1).amax(1) <= 1).nonzero()]
    found = samples_of(source, images, ALL, wanted, got, 6)
    assert len(found) == 6
    for sample in found:
        assert None not in (sample.clean, sample.difference)
        assert sample.original.psnr >= 40.0 - 1e-4  # clamping only helps
        assert sample.converted.psnr >= 10 * math.log10(2 / 0.02**2) - 1e-4
    assert np.array_equal(pixels_of(found[0].clean), np.asarray(Shades(side=16).read(5)[0]))
    assert inside == [] or found[inside[0]].original.psnr == pytest.approx(40.0, rel=1e-4)


def test_psnr_by_hand_and_the_amplified_difference():
    source, images = read(TrainTransform(preprocessing=Preprocessing()))
    wanted = torch.full((6, 3, 8, 8), 0.5)
    got = wanted + 0.0625
    sample = samples_of(source, images, ALL, wanted, got, 1)[0]
    assert sample.psnr == pytest.approx(-20 * math.log10(0.0625), rel=1e-9)
    assert sample.amplified == 8
    assert set(pixels_of(sample.difference).flatten()) == {128}
    assert (sample.original.psnr, sample.clean, sample.same) == (None, None, False)


def test_equal_pictures_have_no_psnr():
    source, images = read(TrainTransform(preprocessing=Preprocessing()))
    wanted = torch.full((6, 3, 8, 8), 0.5)
    sample = samples_of(source, images, ALL, wanted, wanted.clone(), 1)[0]
    assert (sample.psnr, sample.same) == (None, True)


def test_middle_of_a_large_picture_is_shown_and_of_a_smaller_input_the_same_part():
    source, images = read(TrainTransform(preprocessing=Preprocessing()), Shades(side=200))
    wanted = torch.rand(6, 3, 400, 400)
    sample = samples_of(source, images, ALL, wanted, wanted * 0.9, 1)[0]
    assert (sample.original.picture.width, sample.given.width) == (256, 128)
    assert np.array_equal(pixels_of(sample.given), np.asarray(Shades(side=200).read(5)[0])[36:164, 36:164])


@pytest.mark.parametrize(
    "outputs",
    [
        torch.rand(6, 5, 8, 8),
        torch.randn(6, 3, 8, 8) * 8,
        torch.full((6, 3), math.nan),
        torch.rand(6, 1),
        torch.rand(6, 3, 8),
    ],
    ids=["other channels", "no pixels", "not finite", "one number", "three axes"],
)
def test_other_outputs_have_no_samples(outputs):
    source, images = read(TrainTransform(preprocessing=Preprocessing()))
    assert samples_of(source, images, ALL, outputs, outputs, 4) == ()


def test_without_images_or_where_none_are_wanted_there_are_none():
    source, images = read()
    assert samples_of(source, images, ALL, logits(*[0] * 6), logits(*[0] * 6), 0) == ()
    synthetic = replace(source, examples=None, transform=None)
    assert samples_of(synthetic, images, ALL, logits(*[0] * 6), logits(*[0] * 6), 4) == ()
