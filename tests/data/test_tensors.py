import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.tensors import load_images, split_images
from vfconvert.errors import NoImagesError, PreprocessingError, UnreadableImageError


def write(root: Path, count: int, size: tuple[int, int] = (3, 4)) -> list[Path]:
    """Images each of one grey: its number."""
    paths = [root / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(np.full(size, number, dtype=np.uint8)).save(path)
    return paths


def test_load_images_keeps_the_order_of_the_paths(tmp_path: Path) -> None:
    paths = write(tmp_path, 40)[::-1]
    seen: list[tuple[str, int, int]] = []
    images = load_images(paths, Preprocessing(channels=1), lambda *progress: seen.append(progress))
    assert images.shape == (40, 1, 3, 4)
    assert images.dtype is torch.float32
    assert (images[:, 0, 0, 0] * 255).round().tolist() == list(range(39, -1, -1))
    assert seen[-1] == ("read images", 40, 40)


def test_load_images_opens_only_the_chosen_files(tmp_path: Path) -> None:
    paths = write(tmp_path, 3)
    paths[1].write_bytes(b"broken")
    assert load_images([paths[0], paths[2]], Preprocessing()).shape == (2, 3, 3, 4)


@pytest.mark.parametrize("at", [0, 2], ids=["first", "later"])
@pytest.mark.parametrize("kind", ["not an image", "cut short", "empty", "missing"])
def test_load_images_names_the_file_it_cannot_decode(tmp_path: Path, kind: str, at: int) -> None:
    paths = write(tmp_path, 4, (64, 64))
    whole = paths[at].read_bytes()
    damaged = {"not an image": b"hello", "cut short": whole[: len(whole) // 2], "empty": b""}
    if kind == "missing":
        paths[at].unlink()
    else:
        paths[at].write_bytes(damaged[kind])
    with pytest.raises(UnreadableImageError, match=f"cannot decode the image .*/{at}.png: ") as caught:
        load_images(paths, Preprocessing())
    assert "\n" not in str(caught.value)


def test_load_images_of_different_sizes_asks_for_size(tmp_path: Path) -> None:
    paths = write(tmp_path, 3)
    Image.new("L", (9, 5)).save(paths[2])
    with pytest.raises(PreprocessingError, match=r"/0\.png is 3x4, .*/2\.png is 5x9; use --size"):
        load_images(paths, Preprocessing())
    assert load_images(paths, Preprocessing(size=(4, 4))).shape == (3, 3, 4, 4)


def test_load_images_of_nothing_is_refused() -> None:
    with pytest.raises(NoImagesError, match="empty list of files"):
        load_images([], Preprocessing())


@pytest.mark.parametrize("labels", [None, [number % 3 for number in range(100)]], ids=["flat", "labelled"])
def test_split_images_is_disjoint_and_the_same_for_a_seed(labels: list[int] | None) -> None:
    before = torch.get_rng_state()
    splits = {seed: split_images(100, calibration=60, labels=labels, seed=seed) for seed in range(5)}
    for seed, split in splits.items():
        assert len(split.calibration) == 60
        assert len(split.held_out) == 20
        assert len({*split.calibration, *split.held_out}) == 80
        assert {*split.calibration, *split.held_out} <= set(range(100))
        assert split == split_images(100, calibration=60, labels=labels, seed=seed)
    assert all(a != b for a, b in itertools.combinations(splits.values(), 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_split_images_holds_out_the_same_images_however_many_are_fitted() -> None:
    assert split_images(50, calibration=5, seed=1).held_out == split_images(50, calibration=40, seed=1).held_out


def test_split_images_holds_out_a_fifth_but_one_to_2000() -> None:
    held_out = {count: len(split_images(count, calibration=1, seed=0).held_out) for count in (2, 9, 10, 50_000)}
    assert held_out == {2: 1, 9: 1, 10: 2, 50_000: 2_000}


def test_split_images_fits_on_no_more_than_there_are() -> None:
    split = split_images(10, calibration=1024, held_out=4, seed=0)
    assert (len(split.calibration), len(split.held_out)) == (6, 4)


def test_split_images_keeps_the_proportion_of_labels() -> None:
    labels = [0] * 80 + [1] * 20
    split = split_images(100, calibration=30, labels=labels, seed=3)
    assert sum(labels[index] for index in split.held_out) in (3, 4, 5)
    assert sum(labels[index] for index in split.calibration) in (5, 6, 7)


REFUSED = {
    "one image": ({"count": 1, "calibration": 1}, r"holds 1 image\(s\), expected at least 2"),
    "all held out": ({"count": 5, "calibration": 1, "held_out": 5}, "held-out images: got 5 of 5, expected 1 to 4"),
    "none held out": ({"count": 5, "calibration": 1, "held_out": 0}, "held-out images: got 0 of 5"),
    "none to fit": ({"count": 5, "calibration": 0}, "--calibration-images: got 0, expected at least 1"),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_split_images_refuses(values: dict, message: str) -> None:
    with pytest.raises(NoImagesError, match=message):
        split_images(**values, seed=0)
