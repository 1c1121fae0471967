"""Examples of several images: in a row, in the items of a dataset, or in one tensor; each prepared alike."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from vfconvert.data.examples import PairedExamples, open_examples
from vfconvert.data.folder import list_images
from vfconvert.data.foreign import DatasetExamples
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.several import SeveralTransform, channels_together, in_tuples
from vfconvert.data.transforms import TrainTransform
from vfconvert.errors import NoImagesError, PreprocessingError, UnreadableImageError


def frames(folder: Path, *counts: int) -> Path:
    """Videos of so many frames, each frame of another shade."""
    for number, count in enumerate(counts):
        (folder / f"video{number}").mkdir(parents=True)
        for at in range(count):
            shade = 100 * number + 10 * at
            Image.new("RGB", (8, 6), (shade, shade, shade)).save(folder / f"video{number}" / f"{at:02}.png")
    return folder


def dataset(*items: Any) -> DatasetExamples:
    return DatasetExamples("<list>", list(items))


def shade(image: Any) -> int:
    return int(image.getpixel((0, 0))[0])


def test_frames_follow_one_another_within_a_folder(tmp_path):
    found = in_tuples(open_examples(str(frames(tmp_path / "v", 3, 4))), (3, 3))
    shades = [[shade(image) for image in found.read(index)[0]] for index in range(len(found))]
    assert shades == [[0, 10], [10, 20], [100, 110], [110, 120], [120, 130]]
    assert found.name(2) == "video1/00.png + video1/01.png"
    assert found.root.endswith("v, 2 in a row")
    assert found.read(0)[1] is None
    assert found.labels() is None


def test_too_few_frames_in_a_row_are_refused(tmp_path):
    folder = frames(tmp_path / "v", 1, 1, 3)
    with pytest.raises(NoImagesError, match="holds 1 times 3 images in a row, expected at least 2"):
        in_tuples(open_examples(str(folder)), (3, 3, 3))
    with pytest.raises(NoImagesError, match="gives single images, and the network's inputs have 3 and 1 channels"):
        in_tuples(open_examples(str(folder)), (3, 1))


def test_targets_go_with_one_input(tmp_path):
    images = list_images(frames(tmp_path / "v", 3))
    with pytest.raises(NoImagesError, match="--target-data goes with networks of one input"):
        in_tuples(PairedExamples.of(images, images), (3, 3))


FIRST, SECOND = torch.rand(3, 4, 4), torch.rand(1, 4, 4)


@pytest.mark.parametrize(
    ("item", "label"),
    [
        ((FIRST, SECOND), None),
        ([FIRST, SECOND], None),
        ((FIRST, SECOND, 3), 3),
        (((FIRST, SECOND), 3), 3),
        ((FIRST, SECOND, torch.tensor(3)), 3),
        (((FIRST, SECOND), np.int64(3)), 3),
        (((FIRST, SECOND),), None),
        ((FIRST, SECOND, torch.rand(2, 4, 4), torch.rand(4, 4)), None),
        (torch.cat([FIRST, SECOND]), None),
        ((torch.cat([FIRST, SECOND]), 3), 3),
    ],
)
def test_an_item_holds_all_inputs(item, label):
    found = in_tuples(dataset(item, item), (3, 1))
    images, known = found.read(1)
    assert torch.equal(images[0], FIRST)
    assert torch.equal(images[1], SECOND)
    assert known == label
    assert len(found) == 2
    assert found.name(1) == "<list>[1]"


def test_items_unlike_the_first_are_refused():
    found = in_tuples(dataset((FIRST, SECOND), (FIRST, 3), (FIRST, torch.zeros(4, 4))), (3, 1))
    with pytest.raises(NoImagesError, match=r"<list>\[1\]: expected a tuple of 2 images, or a tensor of all their 4"):
        found.read(1)
    with pytest.raises(NoImagesError, match=r"<list>\[2\], image 2 is .*, expected a PIL image or a tensor"):
        found.read(2)
    with pytest.raises(UnreadableImageError, match=r"cannot read <list>\[3\]"):
        found.read(3)


def test_a_class_below_0_is_refused():
    with pytest.raises(NoImagesError, match=r"<list>\[0\] is labelled with -1, expected a class from 0"):
        in_tuples(dataset((FIRST, SECOND, -1)), (3, 1)).read(0)


def test_single_images_of_a_dataset_follow_one_another():
    found = in_tuples(dataset(*torch.rand(4, 3, 4, 4)), (3, 3))
    assert len(found) == 3
    first, second = found.read(1)[0], found.read(2)[0]
    assert torch.equal(first[1], second[0])


def test_channels_are_those_of_the_first_item():
    assert channels_together(DatasetExamples("<d>", TensorDataset(FIRST[None], SECOND[None])), 2) == (3, 1)
    assert channels_together(dataset((Image.new("L", (4, 4)), SECOND)), 2) == (3, 1)
    assert channels_together(dataset(FIRST), 2) is None


def transform(*channels: int, **settings: Any) -> SeveralTransform:
    each = tuple(TrainTransform(preprocessing=Preprocessing(channels=count), **settings) for count in channels)
    return SeveralTransform(each, channels)


def test_every_image_is_prepared_and_drawn_alike():
    left = Image.new("RGB", (8, 8))
    left.paste((255, 255, 255), (0, 0, 4, 8))
    prepared = transform(3, 1)
    made = [prepared((left, left), 2, seed, True) for seed in range(8)]
    assert all(image.shape == (4, 8, 8) for image, _ in made)
    assert all(torch.equal(image[0], image[3]) for image, _ in made)
    assert len({float(image[0, 0, 0]) for image, _ in made}) == 2  # mirrored or not
    assert all(target == 2 for _, target in made)
    assert torch.equal(prepared((left, left), None, 0, False)[0][0, 0], torch.tensor([1.0] * 4 + [0.0] * 4))


def test_images_of_other_sizes_or_channels_are_refused():
    with pytest.raises(PreprocessingError, match="image 2 of an example comes out as 3x4x5, expected 3x4x4"):
        transform(3, 3)((FIRST, torch.rand(3, 4, 5)), None, 0, False)
    with pytest.raises(PreprocessingError, match="3x4x4, expected 1x4x4: the network's input 1 has 1 channels"):
        transform(1, 1)((FIRST, SECOND), None, 0, False)


def test_description_says_how_each_is_prepared():
    assert transform(3, 3).describe().count("RGB") == 1
    assert "luminance" in transform(3, 1).describe()


def test_pictures_that_turn_out_damaged_are_unreadable_images():
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(content, "PNG")
    whole = content.getvalue()
    pictures = [[Image.open(io.BytesIO(whole[:length])) for length in (len(whole), end)] for end in (len(whole), 6000)]
    found = in_tuples(dataset(*map(tuple, pictures)), (3, 3))
    assert len(found.read(0)[0]) == 2
    with pytest.raises(UnreadableImageError, match=r"cannot read <list>\[1\]"):
        found.read(1)
