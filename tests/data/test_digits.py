import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vfconvert.data.digits import (
    DIGITS_MEAN,
    DIGITS_STD,
    digits_network,
    load_digits_images,
    train_network,
    write_folder,
)
from vfconvert.data.folder import list_images
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.tensors import load_images
from vfconvert.errors import MissingPackageError


def test_digits_images_use_all_of_the_grey_scale() -> None:
    images, labels = load_digits_images()
    assert (images.shape, images.dtype) == ((1797, 8, 8), torch.uint8)
    assert (int(images.min()), int(images.max())) == (0, 255)
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    pixels = images.float() / 255
    assert float(pixels.mean()) == pytest.approx(DIGITS_MEAN, abs=5e-4)
    assert float(pixels.std()) == pytest.approx(DIGITS_STD, abs=5e-4)


def test_digits_without_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingPackageError, match=r"pip install vfconvert\[demo\]"):
        load_digits_images()


def test_digits_network_is_made_of_torchs_own_classes() -> None:
    assert {type(module) for module in digits_network().modules()} == {
        nn.Sequential,
        nn.Conv2d,
        nn.BatchNorm2d,
        nn.ReLU,
        nn.AdaptiveAvgPool2d,
        nn.Flatten,
        nn.Linear,
    }


def test_train_network_is_the_same_for_a_seed_and_leaves_the_random_state() -> None:
    images, labels = torch.randn(70, 1, 8, 8), torch.arange(70) % 10
    before, seen = torch.get_rng_state(), []
    first = train_network(images, labels, seed=1, epochs=1, progress=lambda *progress: seen.append(progress))
    second = train_network(images, labels, seed=1, epochs=1)
    other = train_network(images, labels, seed=2, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.training
    assert torch.equal(first(images), second(images))
    assert not torch.equal(first(images), other(images))
    assert seen == [("train the demo network", 1, 2), ("train the demo network", 2, 2)]


def test_digits_folder_trains_a_network_that_reads_digits(tmp_path: Path) -> None:
    write_folder(tmp_path)
    preprocessing = Preprocessing(channels=1, mean=(DIGITS_MEAN,), std=(DIGITS_STD,))
    train, test = list_images(tmp_path / "train"), list_images(tmp_path / "test")
    assert (len(train.paths), len(test.paths)) == (1437, 360)
    assert train.classes == test.classes == tuple("0123456789")
    assert not {path.name for path in train.paths} & {path.name for path in test.paths}
    written = load_images(train.paths[:1], Preprocessing(channels=1))[0, 0]
    images, _ = load_digits_images()
    assert torch.equal((written * 255).round().to(torch.uint8), images[int(train.paths[0].stem)])

    assert train.labels is not None
    assert test.labels is not None
    network = train_network(load_images(train.paths, preprocessing), torch.tensor(train.labels))
    with torch.no_grad():
        predicted = network(load_images(test.paths, preprocessing)).argmax(1)
    assert float((predicted == torch.tensor(test.labels)).float().mean()) >= 0.98
